"""Which keys a pattern means: the matcher against what SCAN's MATCH finds in a real server."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oneatatime._glob import matcher
from tests.servers import Server

SIGNED = sys.platform == "darwin" or platform.machine() in ("x86_64", "AMD64", "i686")
HIGH = [b"\x80", b"\xff"] if SIGNED else []  # elsewhere ranges over them are another thing to a server

bits = st.sampled_from([b"a", b"b", b"c", b"-", b"]", b"^", b"[", b"\\", b"*", b"?", b"\0", b"\n", *HIGH])
pieces = bits | st.sampled_from([b"*", b"?", b"[a-c]", b"[^a]", b"[c-a]", b"\\*", b"[a-", b"[\\]-", b"\\"])
keys = st.lists(bits, max_size=6).map(b"".join) | st.binary(max_size=4)
patterns = st.lists(pieces, max_size=8).map(b"".join)


def found(server: Server, keys: Iterable[bytes], patterns: Iterable[bytes]) -> list[set[bytes]]:
    """Which of the keys a server finds with each pattern."""
    pipeline = server.admin.pipeline(transaction=False)
    pipeline.execute_command("FLUSHALL")
    pipeline.mset(dict.fromkeys(keys, b""))
    for pattern in patterns:
        pipeline.execute_command("SCAN", "0", "MATCH", pattern, "COUNT", "100000")
    _, _, *replies = pipeline.execute()
    assert all(int(cursor) == 0 for cursor, _ in replies)
    return [set(page) for _, page in replies]


def meant(keys: Iterable[bytes], patterns: Iterable[bytes]) -> list[set[bytes]]:
    return [{key for key in keys if matches(key)} for matches in map(matcher, patterns)]


@given(
    some_keys=st.lists(keys, min_size=1, max_size=60),
    some_patterns=st.lists(patterns, min_size=1, max_size=30),
)
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_pattern_means_what_it_means_to_the_server(
    any_server: Server, some_keys: list[bytes], some_patterns: list[bytes]
) -> None:
    some_patterns += some_keys  # each a pattern that has a chance
    assert meant(some_keys, some_patterns) == found(any_server, some_keys, some_patterns)


TRICKY = [
    *(b"", b"*", b"**", b"***", b"?", b"??", b"*?", b"?*", b"**?", b"*?*"),
    *(b"a", b"a*", b"*a", b"*a*", b"a**", b"a*b", b"a*b*a", b"ab*ba", b"*ab*ba*", b"a?b", b"a\\?b", b"a\\*"),
    *(b"[", b"[^", b"[]", b"[^]", b"[]]", b"[^]]", b"[a", b"[^a", b"[a-", b"[a-]", b"[a-c", b"[^a-", b"[\\"),
    *(
        b"[abc]",
        b"[a-c]",
        b"[c-a]",
        b"[^c-a]",
        b"[a-a]",
        b"[a-c-e]",
        b"[-a]",
        b"[a\\-c]",
        b"[\\a-c]",
        b"[a-\\]",
    ),
    *(
        b"[a-\\]]",
        b"[\\]]",
        b"[\\]",
        b"[^\\]]",
        b"[a^]",
        b"[\\^a]",
        b"[*]",
        b"[?]",
        b"[[]",
        b"[[-]]",
        b"a[*]b",
    ),
    *(b"\\", b"\\\\", b"\\\\\\", b"a\\", b"*\\", b"\\a", b"\\[", b"\\*", b"[ab]*[^b]", b"*[ab][ab]"),
    *(
        b"\0",
        b"a\0*",
        b"*\0",
        b"[\0]",
        b"[\0-\x7f]",
        b"\n",
        b"*\n",
        b"a\n",
        b"a\r\n*",
        b"?\n?",
        b".",
        b"(a)",
        b"a|b",
    ),
    *(
        b"{a}*",
        b"a{1}",
        b"$",
        b"a$",
        b"^a",
        b"(?i)A",
        b"A",
        b"[A-z]",
        b"\xff",
        b"*\xff",
        b"[\xff]",
        b"[^\xff]",
    ),
]
if SIGNED:
    TRICKY += [b"[\x80-\xff]", b"[\xff-\x80]", b"[\0-\xff]", b"[a-\xff]", b"[\x7f-\x80]", b"[^\x7f-\x80]"]
TRICKY_KEYS = sorted(
    {
        *TRICKY,
        *(bytes([byte]) for byte in range(256)),
        *(b"a%b" % bytes([byte]) for byte in range(256)),
        *(b"ab", b"aab", b"aba", b"abba", b"abab", b"ababba", b"a\nb", b"a\0b", b"\n\n\n", b"a\r\nb", b"aXb"),
        *(b"a\n", b"aa", b"bb", b"a]", b"b]", b"]]", b"-]", b"a-]", b"[]", b"[a", b"a" * 300),
    }
)


def test_tricky_patterns_mean_what_they_mean_to_the_server(any_server: Server) -> None:
    ours, servers = meant(TRICKY_KEYS, TRICKY), found(any_server, TRICKY_KEYS, TRICKY)
    assert dict(zip(TRICKY, ours, strict=True)) == dict(zip(TRICKY, servers, strict=True))


def test_a_pattern_of_a_thousand_stars_means_what_it_means_to_the_server(server: Server) -> None:
    many = [b"*a" * stars + end for stars in (101, 1000, 1001) for end in (b"", b"*", b"a", b"*b")]
    long = [b"a" * length for length in (100, 101, 102, 1000, 1001, 1002)]
    assert meant(long, many) == found(server, long, many)


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        (b"*a" * 50 + b"*b", b"a" * 100_000),
        (b"*a" * 50 + b"b", b"a" * 100_000),
        (b"a*" * 20 + b"b", b"a" * 100_000),
        (b"*a" * 900 + b"*b", b"a" * 5000),
        (b"*?" * 500 + b"b", b"a" * 5000),
        (b"*[ab]" * 30 + b"*c", b"ab" * 50_000),
        (b"*" * 100_000 + b"b", b"a" * 100_000),
        (b"*" + b"a" * 200 + b"b*", b"a" * 5000),
    ],
    ids=lambda word: f"{word[:8]!r} {len(word)}",
)
def test_no_pattern_takes_long(pattern: bytes, key: bytes) -> None:
    begin = time.process_time()
    assert not matcher(pattern)(key)
    assert time.process_time() - begin < 0.5  # going back would take longer than there is time
