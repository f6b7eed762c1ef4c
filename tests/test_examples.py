"""The small programs in examples/ run as they are, and say what they should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def output_of(example: str, url: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", EXAMPLES / example, url],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.fixture
def continents(server, admin) -> str:
    admin.mset({"Americas": "1000", "Africa": "1200", "Europe": "750", "Asia": "4600"})
    admin.hset("country:AD", mapping={"name": "Andorra", "capital": "Andorra la Vella"})
    admin.hset("country:XX", mapping={"capital": "unknown"})
    return str(server.url)


VALUES = ["b'1000'", "b'1200'", "b'750'", "b'4600'"]


@pytest.mark.parametrize("example", ["seed_class.py", "seed_generator.py"])
def test_the_seed_awaits_one_value_after_the_other(example, continents) -> None:
    assert output_of(example, continents) == VALUES


def test_ours_gives_the_same_values_in_order_and_then_everything(continents) -> None:
    lines = output_of("ours.py", continents)
    assert lines[:4] == VALUES
    assert len(lines) == 4 + 6
    assert "b'country:AD' {b'name': b'Andorra', b'capital': b'Andorra la Vella'}" in lines


def test_steps_of_ones_own_stand_between_stream_and_print(continents) -> None:
    assert output_of("pipeline.py", continents) == ["country:AD is Andorra"]


def test_partitions_are_read_in_processes_of_their_own(continents) -> None:
    assert output_of("partitions.py", continents) == ["4 b'Asia'"]
