"""What a checkpoint says, when it is taken for it, and that nothing is left out by going on from one."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import redis

import oneatatime
from oneatatime import InvalidInput, Options
from oneatatime._checkpoint import Checkpoint, Progress, _digest, what_of
from oneatatime._cursor import POSITIONS, Range, position
from oneatatime._deployment import Deployment
from oneatatime._options import Selection
from oneatatime._scan import Scan
from oneatatime._session import Identity
from oneatatime._single import Database
from oneatatime._slot import ALL_SLOTS
from oneatatime._work import Work
from tests.fake import as_array
from tests.nodes import Node
from tests.promise import slowly

WHERE = {"kind": "server", "name": "here", "ids": ["r1"]}
WHAT = {"match": "a*", "types": ["hash"], "db": 0}
HALF = Range(0, POSITIONS // 2)


def written(**databases: Progress) -> dict[str, Any]:
    numbered = {int(name[2:]): one for name, one in databases.items()}
    return json.loads(json.dumps(Checkpoint(WHERE, WHAT, numbered).to_json()))


@pytest.mark.parametrize(
    "one",
    [
        Progress(done=True),
        Progress(run_id="r", ranges=(HALF, Range(POSITIONS - 1, POSITIONS))),
        Progress(slots=ALL_SLOTS),
        Progress(slots=0b1011),
        Progress(),
    ],
)
def test_what_is_written_is_what_is_read(one: Progress) -> None:
    read = Checkpoint.of_json(written(db3=one, db0=Progress(done=True)))
    assert read == Checkpoint(WHERE, WHAT, {3: one, 0: Progress(done=True)})


def test_anything_else_is_refused() -> None:
    good = written(db0=Progress(run_id="r", ranges=(HALF,)))
    for bad in (None, [], "text", {}, {**good, "oneatatime": "x"}, {**good, "version": 2}):
        with pytest.raises(InvalidInput):
            Checkpoint.of_json(bad)
    for name in ("where", "what", "databases", "digest"):
        for changed in ({**good, name: {}}, {key: value for key, value in good.items() if key != name}):
            with pytest.raises(InvalidInput, match="damaged"):
                Checkpoint.of_json(changed)


@pytest.mark.parametrize(
    "one",
    [
        {"ranges": [["5", "4"]]},
        {"ranges": [["0", str(POSITIONS + 1)]]},
        {"ranges": [["-1", "4"]]},
        {"ranges": [["0"]]},
        {"slots": [[0, 16384]]},
        {"slots": [[2, 1]]},
        {"slots": ["x"]},
        [],
        None,
    ],
)
def test_what_makes_no_sense_is_refused_though_its_digest_fits(one: Any) -> None:
    data = {name: value for name, value in written().items() if name != "digest"}
    data["databases"] = {"0": one}
    with pytest.raises(InvalidInput, match="begin anew"):
        Checkpoint.of_json({**data, "digest": _digest(data)})


def test_other_keys_and_another_deployment_are_refused() -> None:
    read = Checkpoint(WHERE, WHAT, {})
    read.check_what(dict(WHAT))
    for other in ({"match": None}, {"types": []}, {"db": "all"}, {"partition": [0, 2]}):
        with pytest.raises(InvalidInput, match=next(iter(other))):
            read.check_what({**WHAT, **other})
    read.check_where({"kind": "server", "name": "elsewhere", "ids": ["r1", "r2"]})
    read.check_where({"kind": "server", "name": "here", "ids": ["r9"]})
    for name, kind in (("elsewhere", "server"), ("here", "cluster")):
        with pytest.raises(InvalidInput, match="another deployment"):
            read.check_where({"kind": kind, "name": name, "ids": ["r9"]})
    assert what_of(Selection(match=b"\xff"), 3, None)["match"] == "\xff"


# What of a database is settled


def database(*scans: Scan, run_id: str | None = "r1") -> Database:
    work = Work(Deployment.of("redis://127.0.0.1:1"), Options(), Selection())
    one = Database(work, None, 0)  # type: ignore[arg-type]
    one._identity, one._scans = Identity(run_id=run_id), list(scans)
    return one


def at(fraction: float) -> bytes:
    return b"%d" % position(int(fraction * POSITIONS))


def test_what_one_side_of_a_border_left_out_is_not_settled_before_the_other_side_is() -> None:
    """The table may have grown when it is gone on: then the other side alone does not bring it again."""
    first = Scan(Range(), Selection(), 10, node="here")
    second = first.split()
    assert second.take([as_array([at(0.75), [b"both", b"c"]])]) == [b"both", b"c"]
    assert first.take([as_array([at(0.25), [b"a"]])]) == [b"a"]
    assert first.take([as_array([at(0.6), [b"b", b"both"]])]) == [b"b"]
    both = database(first, second)
    first.loop_reached(first.reached)
    assert both.settled == ("r1", [Range(0, POSITIONS // 4)])
    second.loop_reached(second.reached)
    assert second.take([as_array([b"0", []])]) == []
    second.loop_reached(second.reached)
    assert both.settled == ("r1", [Range()])


def test_nothing_of_a_server_whose_cursors_are_its_own_affair_is_settled_before_the_end() -> None:
    one = Scan(Range(), Selection(), 10, node="here")
    both = database(one)
    for cursor in (at(0.9), at(0.2)):
        one.take([as_array([cursor, [b"a"]])])
    both._ordered = not one.disordered
    one.loop_reached(one.reached)
    assert both.settled[1] == []
    one.take([as_array([b"0", []])])
    one.loop_reached(one.reached)
    assert both.settled[1] == [Range()]


# Going on


def fill(node: Node, n: int) -> list[bytes]:
    keys = [b"key:%d" % number for number in range(n)]
    node.many([("SET", key, key) for key in keys])
    return keys


async def test_ranges_of_a_process_that_does_not_tell_who_it_is_are_read_again(node: Node) -> None:
    keys = fill(node, 3000)

    def allow() -> None:
        node.ask("ACL", "SETUSER", "u", "on", ">p", "~*", "+@all", "-info")

    allow()
    url = node.url.replace("://", "://u:p@")
    stream, found = oneatatime.stream(url, options=slowly()), set()
    async for key, _ in stream:
        found.add(key)
        if len(found) == 1500:
            break
    checkpoint = stream.checkpoint()
    await stream.aclose()
    node.restart(keep_data=True)
    allow()
    found |= {key async for key, _ in oneatatime.stream(url, options=slowly(), resume=checkpoint)}
    assert found == set(keys)


async def test_a_database_that_was_done_stays_done(node: Node) -> None:
    fill(node, 100)
    with_db1 = node.url + "/1"
    with redis.Redis.from_url(with_db1, protocol=2) as client:
        client.mset({b"one:%d" % number: b"" for number in range(400)})
    stream, found = oneatatime.stream(node.url, db="all", options=slowly()), 0
    async for _ in stream:
        found += 1
        if found == 200:
            break
    first = stream.checkpoint()
    await stream.aclose()
    assert first["databases"]["0"] == {"done": True}
    stream = oneatatime.stream(node.url, db="all", options=slowly(), resume=first)
    async for _ in stream:
        break
    assert stream.checkpoint()["databases"]["0"] == {"done": True}
    await stream.aclose()


def begun(node: Node) -> Any:
    """All of it has come to this process, and the loop has taken one page of three."""
    return oneatatime.stream(node.url, options=Options(ranges=1, count=20))


def test_a_plain_loop_is_complete_at_its_end_and_not_when_all_has_come_to_this_process(node: Node) -> None:
    fill(node, 60)
    stream = begun(node)
    for seen, _ in enumerate(stream, 1):
        time.sleep(0.01)
        assert not stream.statistics().finished or seen == 60
    assert stream.statistics().complete


def test_what_a_plain_loop_never_got_is_not_settled_when_it_is_closed(node: Node) -> None:
    keys, found = fill(node, 60), set()
    stream = begun(node)
    with pytest.raises(oneatatime.StreamClosed):
        for key, _ in stream:
            time.sleep(0.01)
            found.add(key)
            if not stream._reading._keys.__length_hint__():
                stream.close()  # at the end of a page; the loop asks for more
    assert len(found) < 60
    found |= {key for key, _ in oneatatime.stream(node.url, resume=stream.checkpoint())}
    assert found == set(keys)
