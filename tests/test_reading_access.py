"""Clusters with users: what they may not read is told, and what they may not do ends everything at once."""

from __future__ import annotations

import time
from typing import Any

import pytest

import oneatatime
from tests.clusters import Cluster
from tests.reading import gathered


def users(cluster: Cluster, *rules: str) -> str:
    """The URL of a user of that cluster with these rules."""
    for node in cluster.nodes:
        node.ask("ACL", "SETUSER", "reader", "reset", "on", ">secret", *rules)
    return cluster.url.replace("://", "://reader:secret@")


async def test_a_user_that_may_only_read(any_cluster: Cluster) -> None:
    keys = any_cluster.fill(1000)
    url = users(any_cluster, "~*", "+@read", "+@connection", "+cluster", "+info", "+dbsize")
    stream = oneatatime.stream(url)
    assert sorted(key for key, _ in await gathered(stream)) == sorted(keys)
    assert stream.statistics().complete


@pytest.mark.parametrize("rules", [[], ["-info"]], ids=["with INFO", "without INFO"])
async def test_keys_that_a_user_may_not_read_are_counted_and_the_first_are_named(
    cluster: Cluster, rules: list[str]
) -> None:
    keys = cluster.fill(1000)
    allowed = {key for key in keys if key.startswith(b"key:1")}
    stream = oneatatime.stream(users(cluster, "~key:1*", "+@all", *rules))
    assert {key for key, _ in await gathered(stream)} == allowed
    done = stream.statistics()
    assert (done.finished, done.complete, done.forbidden) == (True, False, 1000 - len(allowed))
    assert done.failures and all("NOPERM" in why and "key b'key:" in why for why in done.failures)
    assert not done.read_again


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("reader:wrong@", oneatatime.AuthenticationFailed),
        ("nobody:secret@", oneatatime.AuthenticationFailed),
        ("reader:secret@", oneatatime.PermissionDenied),
    ],
)
async def test_what_is_not_allowed_is_never_tried_again(cluster: Cluster, url: str, kind: Any) -> None:
    cluster.fill(100)
    users(cluster, "~*", "+@all", "-scan")
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        await gathered(oneatatime.stream(cluster.url.replace("://", f"://{url}")))
    assert time.monotonic() - began < 5
    assert "secret" not in str(caught.value) and "wrong" not in str(caught.value)
