"""The way back: from a stream, from files, and on after whatever ended the import."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import oneatatime
from oneatatime import Group, Options, Pending, Record, RepeatedFields, StreamDetails, _journal
from oneatatime._record import Batch, Commands, Piece
from oneatatime._record_files import File, Place
from oneatatime._store import Store
from tests.compare import everything
from tests.importing import Canned, piece, take
from tests.servers import Server
from tests.test_store import keys_of, records

FAR = int(time.time() * 1000) + 3_600_000
SMALL_PARTS = Options(parts_over=3000, chunk=1000)


@pytest.fixture
def other(any_server) -> Any:
    """Another server, empty."""
    second = Server(tcp=False)
    second.start()
    yield second
    second.close()


def fill(admin: Any) -> None:
    for number in range(300):
        admin.set(f"string:{number}", os.urandom(20))
        admin.hset(f"hash:{number}", mapping={f"f{n}": os.urandom(5) for n in range(5)})
        admin.zadd(f"zset:{number}", {"a": number / 7, "b": float("-inf")})
        admin.sadd(f"set:{number}", "a", number)
        admin.rpush(f"list:{number}", "a", "a", number)
        admin.xadd(f"stream:{number}", {"f": number}, id="5-5")
    admin.set("empty", "")
    admin.set("big:string", os.urandom(20_000))
    admin.hset("big:hash", mapping={f"f{n}": "v" * 50 for n in range(500)})
    admin.rpush("big:list", *[f"{n}" * 10 for n in range(500)])
    admin.sadd("big:set", *[f"{n}" * 10 for n in range(500)])
    admin.zadd("big:zset", {f"{n}" * 10: n / 3 for n in range(500)})
    for number in range(1, 500):
        admin.xadd("big:stream", {"f": "v" * 20}, id=f"{number}-0")


class TestAnotherServer:
    async def test_everything_is_copied(self, any_server, other, no_leaks) -> None:
        fill(any_server.admin)
        stream = oneatatime.stream(any_server.url, options=SMALL_PARTS)
        loaded = await oneatatime.load(stream.records(), other.url)
        before, after = everything(any_server), everything(other)
        assert loaded.written == len(before)
        assert {key: one["value"] for key, one in after.items()} == {
            key: one["value"] for key, one in before.items()
        }

    async def test_batches_and_the_stream_itself(self, server, other) -> None:
        fill(server.admin)
        for source in (
            oneatatime.stream(server.url).batches(),
            oneatatime.stream(server.url),
            oneatatime.stream(server.url, encoding="utf-8", match="list:*").records(),
        ):
            await oneatatime.load(source, other.url)
        assert set(everything(other)) == set(everything(server))

    async def test_into_a_cluster(self, server, cluster) -> None:
        fill(server.admin)
        stream = oneatatime.stream(server.url, options=SMALL_PARTS)
        loaded = await oneatatime.load(stream.records(), cluster.url)
        found = keys_of(cluster.primaries())
        before = everything(server)
        assert loaded.written == len(before) == len(found)
        assert {key: one["value"] for key, one in found.items()} == {
            key: one["value"] for key, one in before.items()
        }

    async def test_documents(self, module_server) -> None:
        ask = module_server.admin.execute_command
        documents = {
            "d": {"a": [1, None, {"b": 2.5}], "c'": "x" * 5000, "e": {}},
            "l": [["x" * 500, n] for n in range(30)],
            "one": ["x" * 5000],
            "text": "x" * 5000,
        }
        for name, document in documents.items():
            ask("JSON.SET", name, "$", json.dumps(document))
        stream = oneatatime.stream(module_server.url, options=SMALL_PARTS)
        held = [record async for record in stream.records()]
        renamed = [record._replace(key=b"copy:" + record.key) for record in held]
        await oneatatime.load(renamed, module_server.url)
        found = everything(module_server)
        for name, document in documents.items():
            assert found[b"copy:" + name.encode()]["value"] == document

    async def test_values_of_other_modules(self, module_server) -> None:
        module_server.admin.execute_command("BF.RESERVE", "bloom", 0.01, 1000)
        module_server.admin.execute_command("BF.ADD", "bloom", "here")
        held = [record async for record in oneatatime.stream(module_server.url).records()]
        await oneatatime.load([record._replace(key=b"copy") for record in held], module_server.url)
        assert module_server.admin.execute_command("BF.EXISTS", "copy", "here")


class TestRecordsOfOnesOwn:
    async def test_text_and_numbers(self, server) -> None:
        loaded = await oneatatime.load(
            [
                Record("ключ", "string", "text"),
                Record("n", "string", 7),
                Record("h", "hash", {"f": 1, "g": "ü"}),
                Record("z", "zset", [("m", 1)]),
                Record("s", "stream", [("1-1", {"f": "v"}), ("1-2", RepeatedFields([("f", 1), ("f", 2)]))]),
                Record("l", "list", ["a", 1]),
            ],
            server.url,
        )
        assert loaded.written == 6
        assert server.admin.get("ключ") == b"text" and server.admin.get("n") == b"7"
        assert server.admin.hgetall("h") == {b"f": b"1", b"g": "ü".encode()}

    async def test_everything_of_a_stream(self, any_server) -> None:
        ask = any_server.admin.execute_command
        details = StreamDetails(
            b"9-0",
            9,
            b"0-0",
            (Group(b"g", b"3-0", 3, (b"c", b"idle")),),
            (Pending(b"g", b"2-0", b"c", 1000, 4),),
        )
        entries = [(b"%d-0" % n, {b"f": b"v"}) for n in range(1, 6)]
        await oneatatime.load([Record(b"s", "stream", entries, details=details)], any_server.url)
        one = everything(any_server)[b"s"]
        assert one["info"]["last-generated-id"] == b"9-0"
        assert one["consumer_groups"][b"g"]["consumers"] == {b"c": 1, b"idle": 0}
        assert one["pending"][0][:4] == (b"g", b"2-0", b"c", 4)
        ask("DEL", "s")

    async def test_what_is_none_is_refused(self, server) -> None:
        for wrong, said in (
            ([("k", "v")], "not tuple"),
            (oneatatime.stream(server.url).keys(), "not bytes"),
            (7, "an iterable of records"),
            (b"path", "an iterable of records"),
        ):
            server.admin.set("k", "v")
            with pytest.raises(oneatatime.InvalidInput, match=said):
                await oneatatime.load(wrong, server.url)
        with pytest.raises(oneatatime.InvalidInput, match="ttl means nothing"):
            await oneatatime.load([Record(b"k", "string", b"v", ttl=5)], server.url)

    @pytest.mark.parametrize(
        "how",
        [
            {"on_conflict": "merge"},
            {"checkpoint": "x"},
            {"format": "jsonl"},
            {"prefix": 7},
            {"db": -1},
            {"options": 7},
            {"types": "no-such-type"},
        ],
    )
    async def test_arguments_that_make_no_sense(self, how, server) -> None:
        with pytest.raises(oneatatime.InvalidInput):
            await oneatatime.load([], server.url, **how)
        with pytest.raises(oneatatime.InvalidInput):
            await oneatatime.load("file.jsonl", server.url, dry_run=True, checkpoint="x")

    async def test_a_selection(self, server) -> None:
        some = list(records(600))
        for how, wanted in (
            ({"prefix": "key:1"}, [one for one in some if one.key.startswith(b"key:1")]),
            ({"match": "key:?"}, some[:10]),
            ({"types": ["hash", "set"]}, [one for one in some if one.type in ("hash", "set")]),
            ({"types": "string", "match": "*7*", "prefix": b"key"}, None),
        ):
            server.admin.flushall()
            loaded = await oneatatime.load(some, server.url, **how)
            if wanted is not None:
                assert set(everything(server)) == {one.key for one in wanted}
            assert loaded.left_out + loaded.written == 600

    @pytest.mark.parametrize("conflict", ["skip", "fail"])
    async def test_a_key_that_comes_up_just_before_it_is_written(self, conflict, server, monkeypatch) -> None:
        server.admin.set("dump", "new")
        dump = oneatatime.Opaque("string", server.admin.dump("dump"))
        existing = Store.existing

        async def and_then(store: Store, batch: Batch, rows: list[int]) -> set[int]:
            found = await existing(store, batch, rows)
            server.admin.set(batch.keys[0], "theirs")
            return found

        monkeypatch.setattr(Store, "existing", and_then)
        for record in (Record(b"s", "string", b"new"), Record(b"d", "string", dump)):
            if conflict == "fail":
                with pytest.raises(oneatatime.Error, match="exists already"):
                    await oneatatime.load([record], server.url, on_conflict="fail")
            else:
                loaded = await oneatatime.load([record], server.url, on_conflict="skip")
                assert (loaded.written, loaded.skipped) == (0, 1)
            assert server.admin.get(record.key) == b"theirs"

    async def test_a_generator_is_closed(self, server) -> None:
        closed = []

        async def mine() -> Any:
            try:
                for record in records(10_000):
                    yield record
            finally:
                closed.append(True)

        with pytest.raises(oneatatime.Error):
            server.admin.set("key:0", "x")
            await oneatatime.load(mine(), server.url, on_conflict="fail")
        assert closed


async def forbidden(*_: Any) -> None:
    raise oneatatime.PermissionDenied("no")


class TestPieces:
    async def test_in_one_batch_with_others(self, server) -> None:
        batch = Batch(
            [b"a", b"s", b"s", b"b"],
            ["string", "string", "string", "list"],
            [b"1", b"one ", b"two", [b"e"]],
            pieces=[None, Piece(0), Piece(1, True), None],
            metadata={"expires_at": [None, FAR, FAR, None]},
        )
        loaded = await take(Canned([batch]), server.url)
        assert loaded.written == 3
        assert server.admin.get("s") == b"one two" and server.admin.exists("a", "b") == 2
        assert abs(server.admin.pttl("s") + time.time() * 1000 - FAR) < 1000

    async def test_dumps_and_commands(self, server) -> None:
        server.admin.rpush("l", *range(1000))
        dump = server.admin.dump("l")
        feed = Canned(
            [
                piece(b"copy", "list", oneatatime.Opaque("list", dump[:50]), 0),
                piece(b"copy", "list", oneatatime.Opaque("list", dump[50:]), 1, last=True),
                piece(b"c", "list", Commands("list", (b"*3\r\n$5\r\nRPUSH\r\n$1\r\nc\r\n$1\r\n1\r\n",)), 0),
                piece(
                    b"c",
                    "list",
                    Commands("list", (b"*3\r\n$5\r\nRPUSH\r\n$1\r\nc\r\n$1\r\n2\r\n",)),
                    1,
                    last=True,
                    expires_at=FAR,
                ),
            ]
        )
        loaded = await take(feed, server.url)
        assert loaded.written == 2
        assert server.admin.lrange("copy", 0, -1) == server.admin.lrange("l", 0, -1)
        assert server.admin.lrange("c", 0, -1) == [b"1", b"2"] and server.admin.pttl("c") > 0

    @pytest.mark.parametrize("conflict", ["skip", "fail"])
    async def test_a_key_that_is_there(self, conflict, server) -> None:
        server.admin.set("l", "mine")
        feed = Canned([piece(b"l", "list", [b"1"], 0), piece(b"l", "list", [b"2"], 1, last=True)])
        if conflict == "skip":
            loaded = await take(feed, server.url, on_conflict="skip")
            assert (loaded.written, loaded.skipped) == (0, 1)
        else:
            with pytest.raises(oneatatime.Error, match="exists already"):
                await take(feed, server.url, on_conflict="fail")
        assert server.admin.get("l") == b"mine"

    @pytest.mark.parametrize(
        "batches",
        [
            [piece(b"l", "list", [b"1"], 0)],
            [piece(b"l", "list", [b"1"], 1, last=True)],
            [piece(b"l", "list", [b"1"], 0), piece(b"m", "list", [b"1"], 1, last=True)],
            [piece(b"l", "list", [b"1"], 0), piece(b"l", "list", [b"1"], 2, last=True)],
            [piece(b"l", "list", [b"1"], 0), Batch([b"k"], "string", [b"v"])],
            [piece(b"l", "list", [b"1"], 0), piece(b"m", "list", [b"1"], 0, last=True)],
        ],
    )
    async def test_pieces_that_do_not_fit(self, batches, server) -> None:
        with pytest.raises(oneatatime.InvalidInput, match="piece"):
            await take(Canned(batches), server.url)

    async def test_pieces_that_begin_again_replace_those_before(self, server) -> None:
        server.admin.set("l", "before")
        batches = [
            piece(b"l", "list", [b"1"], 0),
            piece(b"l", "list", [b"2"], 1),
            piece(b"l", "list", [b"3"], 0),
            piece(b"l", "list", [b"4"], 1, last=True),
        ]
        loaded = await take(Canned(batches), server.url)
        assert (loaded.written, loaded.replaced) == (1, 1)
        assert server.admin.lrange("l", 0, -1) == [b"3", b"4"]

    @pytest.mark.parametrize("conflict", ["skip", "fail"])
    async def test_and_are_decided_about_once(self, conflict, server) -> None:
        server.admin.set("there", "before")
        batches = [
            piece(key, "list", [b"%d" % number], number, last)
            for key in ((b"new", b"there") if conflict == "skip" else (b"new",))
            for number, last in ((0, False), (1, False), (0, False), (1, True))
        ]
        loaded = await take(Canned(batches), server.url, on_conflict=conflict)
        assert (loaded.written, loaded.skipped) == (1, int(conflict == "skip"))
        assert server.admin.lrange("new", 0, -1) == [b"0", b"1"]
        assert server.admin.get("there") == b"before"

    @pytest.mark.parametrize(
        "after", [[], [Batch([b"k"], "string", [b"v"])], [piece(b"m", "list", [b"1"], 0, last=True)]]
    )
    async def test_what_has_no_last_piece_is_refused_and_nothing_of_it_stays(self, after, server) -> None:
        server.admin.set("other", "stays")
        batches = [
            piece(b"first", "list", [b"1"], 0, last=True),
            piece(b"l", "list", [b"1"], 0, db=0),
            piece(b"l", "list", [b"2"], 1, db=0),
        ]
        with pytest.raises(oneatatime.InvalidInput, match="canned, record 2: the last piece") as caught:
            await take(Canned([*batches, *after]), server.url)
        assert caught.value.key == b"l"
        assert set(server.admin.keys()) == {b"first", b"other"}

    async def test_what_was_there_stays_where_nothing_was_written(self, server) -> None:
        server.admin.set("there", "before")
        dump = oneatatime.Opaque("list", b"half")
        for batch, how in (
            (piece(b"there", "list", [b"1"], 0), {"on_conflict": "skip"}),
            (piece(b"there", "list", dump, 0), {}),
        ):
            with pytest.raises(oneatatime.InvalidInput, match="last piece"):
                await take(Canned([batch]), server.url, **how)
            assert server.admin.get("there") == b"before"

    async def test_a_file_says_the_line_where_it_began(self, server, tmp_path) -> None:
        path = tmp_path / "cut.jsonl"
        path.write_text(
            '{"key":"a","type":"string","value":"1"}\n'
            '{"key":"l","type":"list","part":0,"value":["1"]}\n'
            '{"key":"b","type":"string","value":"1"}\n'
        )
        with pytest.raises(oneatatime.InvalidInput, match=r"cut\.jsonl, line 2: the last piece.*key b'l'"):
            await oneatatime.load(path, server.url)
        assert set(server.admin.keys()) <= {b"a"}

    async def test_a_source_that_fails_leaves_no_half_value(self, server, other) -> None:
        other.admin.rpush("l", *range(5000))
        stream = oneatatime.stream(other.url, options=SMALL_PARTS)
        held = [record async for record in stream.records()]
        source = held[0].value._source

        class Failing:
            async def chunks(self, parts: Any) -> Any:
                async for chunk in source.chunks(parts):
                    yield chunk
                    if server.admin.exists("l"):
                        raise oneatatime.PermissionDenied("no more")

        held[0].value._source = Failing()
        with pytest.raises(oneatatime.PermissionDenied, match=r"no more.*key b'l'"):
            await oneatatime.load(held, server.url)
        assert not server.admin.exists("l")

    async def test_a_target_that_is_full_keeps_no_half_value(self, tcp_server) -> None:
        ask = tcp_server.admin.execute_command
        wide = [b"%d" % n * 200 for n in range(2000)]
        batches = [piece(b"l", "list", wide, number, last=number == 49) for number in range(50)]
        whole = [Batch([b"other", b"whole"], "list", [[b"1"], [b"%d" % n * 10 for n in range(400_000)]])]
        ask("CONFIG", "SET", "maxmemory", int(tcp_server.admin.info()["used_memory"]) + 8_000_000)
        try:
            for given in (batches, whole):
                with pytest.raises(oneatatime.ServerFailure, match="OOM") as caught:
                    await take(Canned(given), tcp_server.url)
                assert "half" not in str(caught.value)
                assert set(tcp_server.admin.keys()) <= {b"other"}
        finally:
            ask("CONFIG", "SET", "maxmemory", 0)

    async def test_nor_does_one_that_is_cancelled(self, server) -> None:
        batches = [piece(b"l", "list", [b"%d" % n] * 50, n, last=n == 4999) for n in range(5000)]
        importing = asyncio.ensure_future(take(Canned(batches), server.url))
        while not server.admin.exists("l"):
            await asyncio.sleep(0.005)
        importing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await importing
        assert not server.admin.exists("l")

    async def test_a_half_that_cannot_be_deleted_is_named(self, server, monkeypatch) -> None:
        monkeypatch.setattr(Store, "delete", forbidden)
        batches = [piece(b"l", "list", [b"1"], 0), piece(b"other", "list", [b"1"], 0)]
        with pytest.raises(oneatatime.InvalidInput, match="half of its value is left in b'l'"):
            await take(Canned(batches), server.url)

    async def test_connections_that_are_cut_between_pieces(self, node) -> None:
        batches = [
            piece(b"l:%d" % key, "list", [b"%d" % number] * 20, number, last=number == 49)
            for key in range(20)
            for number in range(50)
        ]
        feed = Canned(batches)
        over = False

        async def cut() -> None:
            pause = 0.05
            while not over:
                await asyncio.sleep(random.random() * pause)
                pause *= 1.05  # a slow machine gets a value through, too
                node.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        cutting = asyncio.ensure_future(cut())
        loaded = await take(feed, f"redis://localhost:{node.port}")
        over = True
        await cutting
        assert loaded.written == 20
        for key in range(20):
            found = node.ask("LRANGE", f"l:{key}", 0, -1)
            assert found == [b"%d" % number for number in range(50) for _ in range(20)]
        assert feed.returns > 0

    async def test_a_slot_that_moves_between_pieces(self, any_cluster) -> None:
        from tests.clusters import tag

        source, _, target = any_cluster.primaries()
        slot = any_cluster.slots(source)[0]
        key = b"{%b}big" % tag(slot).encode()
        half = asyncio.Event()

        class Halting(Canned):
            async def next(self) -> Any:
                if self._at in (30, 60):
                    half.set()
                    await asyncio.sleep(0.2)
                return await super().next()

        feed = Halting([piece(key, "list", [b"%d" % n] * 20, n, last=n == 99) for n in range(100)])

        async def move() -> None:
            await half.wait()
            migration = await asyncio.to_thread(any_cluster.migration(slot, target, source).begin)
            await asyncio.to_thread(migration.move)
            await asyncio.sleep(0.25)
            await asyncio.to_thread(migration.finish)

        loaded, _ = await asyncio.gather(take(feed, any_cluster.url), move())
        assert loaded.written == 1
        found = everything(any_cluster.owner(slot))[key]["value"]
        assert found == [b"%d" % number for number in range(100) for _ in range(20)]


LOADER = """
import asyncio, sys, oneatatime
from oneatatime import _journal
_journal._SAVE_SECONDS = 0.02
path, url, conflict, checkpoint = sys.argv[1:]
loaded = asyncio.run(oneatatime.load(path, url, on_conflict=conflict, checkpoint=checkpoint))
print(loaded.written, loaded.skipped, loaded.before)
"""


def run_once(arguments: list[str], seconds: float | None) -> bool:
    """Runs the import in a process of its own, which is killed after a while; whether it came to its end."""
    process = subprocess.Popen([sys.executable, "-c", LOADER, *arguments], stdout=subprocess.PIPE)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return False
    assert process.returncode == 0
    return True


def write_file(path: Path, *, keys: int) -> None:
    """JSON lines of small values and of some in pieces."""
    big = {n * (keys // 10) for n in range(1, 10)}
    with path.open("w") as file:
        for number in range(keys):
            if number in big:
                for part in range(20):
                    line: dict[str, Any] = {"key": f"k:{number}", "type": "list", "part": part}
                    if part == 19:
                        line["last"] = True
                    line["value"] = [f"{number}:{part}:{element}" for element in range(100)]
                    file.write(json.dumps(line) + "\n")
            elif number % 2:
                file.write(json.dumps({"key": f"k:{number}", "type": "string", "value": f"v{number}"}) + "\n")
            else:
                value = [f"{number}:{element}" for element in range(5)]
                file.write(json.dumps({"key": f"k:{number}", "type": "list", "value": value}) + "\n")


def check_file(server: Any, *, keys: int, mine: set[int]) -> None:
    big = {n * (keys // 10) for n in range(1, 10)}
    found = everything(server)
    assert len(found) == keys
    for number in range(keys):
        value = found[f"k:{number}".encode()]["value"]
        if number in mine:
            assert value == b"mine"
        elif number in big:
            wanted = [f"{number}:{part}:{element}".encode() for part in range(20) for element in range(100)]
            assert value == wanted
        elif number % 2:
            assert value == b"v%d" % number
        else:
            assert value == [f"{number}:{element}".encode() for element in range(5)]


class TestFiles:
    KEYS = 40_000

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("conflict", ["replace", "skip"])
    def test_it_goes_on_after_it_was_killed(self, conflict, tcp_server, tmp_path) -> None:
        path = tmp_path / "keys.jsonl"
        write_file(path, keys=self.KEYS)
        mine = {number * 97 for number in range(200)} | {self.KEYS // 10} if conflict == "skip" else set()
        for number in mine:
            tcp_server.admin.set(f"k:{number}", "mine")
        arguments = [str(path), str(tcp_server.url), conflict, str(tmp_path / "checkpoint")]
        for kills in range(60):
            if run_once(arguments, 0.2 + random.random() * 0.4 + kills * 0.01):
                break
        else:
            assert run_once(arguments, None)
        check_file(tcp_server, keys=self.KEYS, mine=mine)

    async def test_a_folder_of_parts_and_what_is_done(self, server, tmp_path) -> None:
        folder = tmp_path / "export"
        folder.mkdir()
        for part in range(3):
            with (folder / f"part-{part}.jsonl").open("w") as file:
                for number in range(50):
                    record = {"key": f"{part}:{number}", "type": "string", "value": "v"}
                    file.write(json.dumps(record) + "\n")
        checkpoint = tmp_path / "checkpoint"
        loaded = await oneatatime.load(folder, server.url, checkpoint=checkpoint)
        assert loaded.written == 150 and len(everything(server)) == 150
        loaded = await oneatatime.load(folder, server.url, checkpoint=checkpoint)
        assert (loaded.written, loaded.before) == (0, 150)
        with pytest.raises(oneatatime.Error, match="another import"):
            await oneatatime.load(folder, server.url, checkpoint=checkpoint, on_conflict="skip")
        checkpoint.write_text(checkpoint.read_text().replace("50", "51"))
        with pytest.raises(oneatatime.Error, match="damaged"):
            await oneatatime.load(folder, server.url, checkpoint=checkpoint)

    async def test_what_an_import_left_half_is_its_own(self, server, tmp_path, monkeypatch) -> None:
        path, checkpoint = tmp_path / "keys.jsonl", tmp_path / "checkpoint"
        write_file(path, keys=10)
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines[:5], "x" * (len(lines[5]) - 1) + "\n", *lines[6:]]))
        with monkeypatch.context() as patched, pytest.raises(oneatatime.InvalidInput, match="half of its"):
            patched.setattr(Store, "delete", forbidden)
            await oneatatime.load(path, server.url, on_conflict="skip", checkpoint=checkpoint)
        path.write_text("".join(lines))
        await oneatatime.load(path, server.url, on_conflict="skip", checkpoint=checkpoint)
        check_file(server, keys=10, mine=set())

    async def test_connections_that_are_cut_while_a_file_is_read(self, node, tmp_path) -> None:
        path = tmp_path / "keys.jsonl"
        write_file(path, keys=3000)
        over = False

        async def cut() -> None:
            while not over:
                await asyncio.sleep(random.random() / 50)
                node.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        cutting = asyncio.ensure_future(cut())
        options = Options(patience=20, connect_timeout=2)
        loaded = await oneatatime.load(path, f"redis://localhost:{node.port}", options=options)
        over = True
        await cutting
        assert loaded.written == 3000
        check_file(node, keys=3000, mine=set())

    async def test_a_checkpoint_is_saved_by_one_at_a_time(self, tmp_path, monkeypatch) -> None:
        saving, most = 0, 0
        whole = _journal.replace

        def slow(path: str, data: bytes) -> None:
            nonlocal saving, most
            saving += 1
            most = max(most, saving)
            time.sleep(0.1)
            whole(path, data)
            saving -= 1

        monkeypatch.setattr(_journal, "replace", slow)
        journal = _journal.Journal(str(tmp_path / "checkpoint"), {})
        task = asyncio.ensure_future(journal.save())
        await asyncio.sleep(0.03)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        journal.done["part"] = 7
        journal.save_now()
        assert most == 1 and _journal.Journal.opened(journal.path, {}).done == {"part": 7}

    async def test_a_file_is_closed_when_nobody_reads_it_any_more(self, tmp_path, monkeypatch) -> None:
        reading = False

        def slow(_: Any) -> None:
            nonlocal reading
            reading = True
            time.sleep(0.1)
            reading = False

        monkeypatch.setattr(File, "_step", slow)
        file = File(Place("x", 0), None)
        task = asyncio.ensure_future(file.next())
        await asyncio.sleep(0.03)
        task.cancel()
        await asyncio.wait([task])
        assert reading
        await file.close()
        assert not reading

    async def test_a_folder_in_the_folder_is_none_of_its_files(self, server, tmp_path) -> None:
        (tmp_path / "sub.jsonl").mkdir()
        (tmp_path / "a.jsonl").write_text('{"key":"a","type":"string","value":"v"}\n')
        assert (await oneatatime.load(tmp_path, server.url)).written == 1

    @pytest.mark.parametrize("conflict", ["replace", "skip", "fail"])
    async def test_of_records_of_one_key_the_later_is_taken(self, conflict, server, tmp_path) -> None:
        lines = [
            [{"key": f"k{n}", "type": "hash", "value": {f"old{part}": "v"}} for n in range(50)]
            for part in range(3)
        ]
        lines[2] += [{"key": f"k{n}", "type": "string", "value": "new"} for n in range(50)]  # in one batch
        lines[1] += [{"key": "big", "type": "list", "part": 0, "last": True, "value": ["1"]}]
        lines[2] += [{"key": "big", "type": "list", "part": 0, "last": True, "value": ["2"]}]
        for part, some in enumerate(lines):
            (tmp_path / f"part-{part}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in some))
        if conflict == "skip":
            server.admin.set("k7", "mine")
        loaded = await oneatatime.load(tmp_path, server.url, on_conflict=conflict)
        found = {key: one["value"] for key, one in everything(server).items()}
        assert found.pop(b"big") == [b"2"]
        assert found.pop(b"k7") == (b"mine" if conflict == "skip" else b"new")
        assert set(found.values()) == {b"new"} and len(found) == 49
        assert loaded.skipped == (4 if conflict == "skip" else 0)

    @pytest.mark.parametrize("name", ["jsonl", "jsonl.gz", "dump", "parquet", "arrow"])
    async def test_a_part_is_what_its_manifest_says(self, name, server, tmp_path) -> None:
        folder = tmp_path / "export"
        for number in range(2000):
            server.admin.set(f"k:{number}", f"value-{number}")
        await oneatatime.export(server.url, f"{folder}/", format=name)
        server.admin.flushall()
        assert (await oneatatime.load(folder, server.url)).written == 2000
        server.admin.flushall()
        (part,) = folder.glob("part-*")
        data = bytearray(part.read_bytes())
        at = data.rfind(b"value-1999") + 6 if name == "jsonl" else len(data) // 2
        data[at] ^= 1
        part.write_bytes(data)
        with pytest.raises(oneatatime.InvalidInput, match="part-00000") as caught:
            await oneatatime.load(folder, server.url, checkpoint=tmp_path / "checkpoint")
        if name in ("jsonl", "parquet", "arrow"):
            assert "SHA-256" in str(caught.value)
        if name in ("parquet", "arrow"):
            assert not server.admin.dbsize()
        with pytest.raises(oneatatime.InvalidInput, match="part-00000"):
            await oneatatime.load(folder, server.url, checkpoint=tmp_path / "checkpoint")

    async def test_files_that_are_none(self, server, tmp_path) -> None:
        with pytest.raises(oneatatime.InvalidInput, match="no file"):
            await oneatatime.load(tmp_path / "none.jsonl", server.url)
        with pytest.raises(oneatatime.InvalidInput, match="holds no files"):
            await oneatatime.load(tmp_path, server.url)
        (tmp_path / "x.jsonl").write_text('{"key":"a","type":"string","value":"v"}\n{"key"')
        with pytest.raises(oneatatime.InvalidInput, match=r"x.jsonl"):
            await oneatatime.load(tmp_path / "x.jsonl", server.url)
