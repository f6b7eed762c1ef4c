"""The checker of the chaos runs: it sees what it has to see, and blames nobody for what a server lost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from chaos.__main__ import main
from chaos.checker import Tally, judge, slots_named
from chaos.keyspace import NEVER
from chaos.subjects import READERS, Report
from tests.clusters import slot_of

SINCE = {b"a": 1.0, b"b": 1.0, b"late": 6.0, b"lost": NEVER}
OTHERS = (b"c1", b"c2")


def ever(key: bytes) -> bool:
    return key in SINCE or key in OTHERS


def all_there(keys: Iterable[bytes], began: float) -> list[bytes]:
    return list(keys)


def test_what_was_there_throughout_and_did_not_come_is_missed() -> None:
    found = judge(Report([b"a", b"c1"]), 5.0, SINCE, ever=ever, there=all_there, in_slots=True)
    assert (found.owed, found.missed, found.phantoms, found.unnamed) == (2, [b"b"], [], False)


def test_what_the_server_lost_meanwhile_is_not_missed() -> None:
    found = judge(Report([b"a"]), 5.0, SINCE, ever=ever, there=lambda keys, began: [], in_slots=True)
    assert found.missed == []


def test_what_never_existed_is_a_phantom_and_what_comes_twice_is_counted() -> None:
    report = Report([b"a", b"b", b"b", b"x", b"c2", b"b"])
    found = judge(report, 5.0, SINCE, ever=ever, there=all_there, in_slots=True)
    assert (found.phantoms, found.again, found.missed) == ([b"x"], 2, [])


def test_an_incomplete_iteration_may_miss_what_it_names_and_nothing_else() -> None:
    both = f"slots {slot_of(b'a')}, {slot_of(b'b')}"
    report = Report([], kind="incomplete", missing=[both])
    found = judge(report, 5.0, SINCE, ever=ever, there=all_there, in_slots=True)
    assert found.missed == [] and not found.unnamed
    report = Report([], kind="incomplete", missing=[f"slot {slot_of(b'a')}"])
    assert judge(report, 5.0, SINCE, ever=ever, there=all_there, in_slots=True).missed == [b"b"]
    report = Report([], kind="incomplete")
    assert judge(report, 5.0, SINCE, ever=ever, there=all_there, in_slots=True).unnamed


@pytest.mark.parametrize("kind", ["error", "stuck"])
def test_any_other_end_is_a_broken_promise(kind: str) -> None:
    report = Report([b"a"], kind=kind)
    assert judge(report, 5.0, SINCE, ever=ever, there=all_there, in_slots=True).unnamed


def test_slots_are_read_from_words() -> None:
    assert slots_named(["slots 7, 12-14 of 127.0.0.1:7000", "slot 16383"]) == {7, 12, 13, 14, 16383}
    assert slots_named(["node 127.0.0.1:7000"]) == set()


def test_the_verdict_counts_what_was_broken() -> None:
    tally = Tally(READERS["oneatatime unique"])
    good = Report([b"a", b"b"], rss=1)
    tally.add(good, judge(good, 5.0, SINCE, ever=ever, there=all_there, in_slots=True))
    assert tally.broken(most_again=0.03) == []
    bad = Report([b"a", b"a"], rss=1)
    tally.add(bad, judge(bad, 5.0, SINCE, ever=ever, there=all_there, in_slots=True))
    assert len(tally.broken(most_again=0.03)) == 2
    assert (tally.iterations, tally.missed, tally.again) == (2, 1, 1)


@pytest.mark.parametrize("topology", ["cluster", "standalone"])
def test_a_short_run_ends_with_a_verdict_and_a_history(
    topology: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "history.jsonl"
    words = ["--minutes", "0.05", "--topology", topology, "--readers", "SCAN by hand", "--stable", "600"]
    assert main([*words, "--history", str(path)]) == 0
    assert "SCAN by hand" in capsys.readouterr().out
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    happened = {line["what"] for line in lines}
    assert {"run", "begins", "event", "iteration", "verdict"} <= happened
    assert all(line["phantoms"] == [] for line in lines if line["what"] == "iteration")
