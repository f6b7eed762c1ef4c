"""The fault proxy does what its plans say: tests of other rooms rely on it to the byte."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from tests.proxy import Fault, FaultProxy, Plan
from tests.servers import Server, TLSServer

PING, PONG = b"PING\r\n", b"+PONG\r\n"


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.url) as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def connected(
    proxy: FaultProxy,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_passes_bytes_and_counts_them(proxy: FaultProxy) -> None:
    async with connected(proxy) as (reader, writer):
        writer.write(PING * 1000)
        assert await reader.readexactly(len(PONG) * 1000) == PONG * 1000
    link = proxy.links[-1]
    assert (link.to_server.passed, link.to_client.passed) == (len(PING) * 1000, len(PONG) * 1000)


async def test_carries_a_client_over_tcp_to_a_unix_socket(proxy: FaultProxy) -> None:
    async with redis.asyncio.from_url(proxy.url) as client:
        await client.set("key", b"x" * 3_000_000)
        assert await client.get("key") == b"x" * 3_000_000


async def test_passes_tls_through(tls_server: TLSServer) -> None:
    async with FaultProxy(tls_server.url) as proxy:
        assert proxy.url.startswith("rediss://")
        async with redis.asyncio.from_url(proxy.url, ssl_ca_certs=tls_server.ca_certs) as client:
            assert await client.ping()


@pytest.mark.parametrize("reset", [False, True])
async def test_cuts_towards_the_client_after_exactly_n_bytes(proxy: FaultProxy, reset: bool) -> None:
    for position in range(len(PONG) * 2 + 1):
        proxy.plan = Plan(to_client=Fault(cut=position, reset=reset))
        received = b""
        ended_by_reset = False
        async with connected(proxy) as (reader, writer):
            writer.write(PING * 3)
            try:
                while data := await reader.read(100):
                    received += data
            except ConnectionResetError:
                ended_by_reset = True
        assert received == (PONG * 3)[:position] or (reset and (PONG * 3).startswith(received))
        assert ended_by_reset or not reset
        assert proxy.links[-1].to_client.passed == position


async def test_cuts_towards_the_server_after_exactly_n_bytes(proxy: FaultProxy, server: Server) -> None:
    proxy.plan = Plan(to_server=Fault(cut=len(PING) + 3))
    async with connected(proxy) as (reader, writer):
        writer.write(PING * 5)
        assert await reader.read() in (PONG, b"")  # the reply may be overtaken by the cut
    assert proxy.links[-1].to_server.passed == len(PING) + 3


async def test_stalls_and_keeps_the_connection_open(proxy: FaultProxy) -> None:
    proxy.plan = Plan(to_client=Fault(stall=3))
    async with connected(proxy) as (reader, writer):
        writer.write(PING)
        assert await reader.readexactly(3) == PONG[:3]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        assert proxy.links[-1].open


async def test_stalls_through_the_end_of_the_server_side(proxy: FaultProxy) -> None:
    proxy.plan = Plan(to_client=Fault(stall=0))
    async with connected(proxy) as (reader, writer):
        writer.write(b"QUIT\r\n")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)


async def test_replaces_bytes_where_told(proxy: FaultProxy) -> None:
    for position in range(len(PONG) * 2 - 2):
        proxy.plan = Plan(to_client=Fault(replace=(position, b"\x00\xff")))
        async with connected(proxy) as (reader, writer):
            writer.write(PING)
            first = await reader.readexactly(len(PONG))
            writer.write(PING)
            received = first + await reader.readexactly(len(PONG))
        expected = bytearray(PONG * 2)
        expected[position : position + 2] = b"\x00\xff"
        assert received == expected


async def test_dribbles_one_byte_at_a_time(proxy: FaultProxy) -> None:
    proxy.plan = Plan(to_client=Fault(dribble=True))
    pieces: list[bytes] = []
    async with connected(proxy) as (reader, writer):
        writer.write(PING * 2)
        while len(b"".join(pieces)) < len(PONG) * 2:
            pieces.append(await reader.read(100))
    assert b"".join(pieces) == PONG * 2
    assert pieces == [bytes((byte,)) for byte in PONG * 2]


async def test_dribbles_then_cuts(proxy: FaultProxy) -> None:
    proxy.plan = Plan(to_client=Fault(dribble=True, cut=5))
    async with connected(proxy) as (reader, writer):
        writer.write(PING * 2)
        assert await reader.read() == PONG[:5]


async def test_refuses_one_connection_and_takes_the_next(proxy: FaultProxy) -> None:
    proxy.upcoming.append(Plan(refuse=True))
    with pytest.raises(ConnectionResetError):
        async with connected(proxy) as (reader, _):
            await reader.readexactly(1)
    async with connected(proxy) as (reader, writer):
        writer.write(PING)
        assert await reader.readexactly(len(PONG)) == PONG


async def test_closes_its_port_and_opens_the_same_again(proxy: FaultProxy) -> None:
    before = proxy.url
    await proxy.close_port()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)
    await proxy.open_port()
    assert proxy.url == before
    async with connected(proxy) as (reader, writer):
        writer.write(PING)
        assert await reader.readexactly(len(PONG)) == PONG


async def test_drops_live_connections(proxy: FaultProxy) -> None:
    async with connected(proxy) as (reader, writer):
        writer.write(PING)
        await reader.readexactly(len(PONG))
        proxy.drop(reset=True)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)


async def test_resets_when_the_server_is_not_there(tmp_path: object) -> None:
    async with FaultProxy(f"unix://{tmp_path}/nobody.sock") as proxy:
        with pytest.raises(ConnectionResetError):
            async with connected(proxy) as (reader, _):
                await reader.readexactly(1)


async def test_a_delay_is_paid_once_by_a_pipeline(proxy: FaultProxy) -> None:
    proxy.plan = Plan(round_trip=0.1)
    async with connected(proxy) as (reader, writer):
        began = time.perf_counter()
        writer.write(PING)
        await reader.readexactly(len(PONG))
        one = time.perf_counter() - began
        began = time.perf_counter()
        for _ in range(50):
            writer.write(PING)
            await asyncio.sleep(0.001)
        await reader.readexactly(len(PONG) * 50)
        fifty = time.perf_counter() - began
    assert one >= 0.1
    assert 0.1 <= fifty < 10 * 0.1  # 50 round trips would be 5 s


async def test_a_delay_is_no_limit_to_throughput(proxy: FaultProxy, server: Server) -> None:
    server.admin.set("big", b"x" * 20_000_000)
    proxy.plan = Plan(round_trip=0.02)
    async with connected(proxy) as (reader, writer):
        began = time.perf_counter()
        writer.write(b"GET big\r\n")
        reply = await reader.readexactly(20_000_000 + len(b"$20000000\r\n\r\n"))
        elapsed = time.perf_counter() - began
    assert reply.endswith(b"xx\r\n")
    assert elapsed < 5


async def test_keeps_the_order_under_delay(proxy: FaultProxy) -> None:
    proxy.plan = Plan(round_trip=0.004)
    async with connected(proxy) as (reader, writer):
        for number in range(300):
            writer.write(b"ECHO %06d\r\n" % number)
            await asyncio.sleep(0)
        reply = await reader.readexactly(300 * len(b"$6\r\n000000\r\n"))
    assert reply == b"".join(b"$6\r\n%06d\r\n" % number for number in range(300))


def test_keeps_user_password_and_database_in_its_url() -> None:
    tcp = FaultProxy("redis://user:secret@example.org:7000/3?timeout=1")
    assert tcp.url == "redis://user:secret@127.0.0.1:0/3?timeout=1"
    assert FaultProxy("unix://:secret@/run/redis.sock?db=2").url == "redis://:secret@127.0.0.1:0?db=2"
