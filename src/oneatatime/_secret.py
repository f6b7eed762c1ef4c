"""Passwords that do not travel: whoever connects asks for them, where it runs.

A partition goes to workers through an engine's scheduler, its logs and its dashboard. So it can hold, in
place of a password, where a worker finds one: an environment variable, or a callable of the user's own.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ._deployment import Deployment
from ._endpoint import Endpoint
from ._errors import AuthenticationFailed, InvalidInput

Secret = str | Callable[[], Any]
"""The name of an environment variable that holds the password, or a callable that gives it, or (username,
password); a coroutine function does as well."""


@dataclass(frozen=True)
class _Asked:
    """Credentials as an endpoint wants them, of a secret."""

    secret: Secret = field(repr=False)  # a callable may show what it holds
    username: str | None = None

    async def __call__(self) -> tuple[str | None, str | None]:
        if isinstance(self.secret, str):
            found = os.environ.get(self.secret)
            if found is None:
                text = f"the environment variable {self.secret} is not set here, and secret= says that it"
                raise AuthenticationFailed(f"{text} holds the password: set it for every worker")
            return self.username, found
        given = self.secret()
        if inspect.isawaitable(given):
            given = await given
        username, password = given if isinstance(given, tuple) and len(given) == 2 else (self.username, given)
        if not isinstance(password, str) or not isinstance(username, str | None):
            kind = type(password).__name__  # and not what it is
            text = f"secret= gave no password, but {kind}"
            raise AuthenticationFailed(f"{text}: it gives a str, or (username, password)")
        return username, password


def has_secrets(deployment: Deployment) -> bool:
    """Whether it holds what nobody else should see."""
    return any(map(_secrets_of, (deployment.login, *deployment.seeds)))


def without_secrets(deployment: Deployment, secret: Secret) -> Deployment:
    """The same, with where to find the password in place of it.

    Raises InvalidInput for a secret that is none, and where there are secrets that it cannot stand for.
    """
    if not callable(secret) and not (isinstance(secret, str) and secret):
        text = f"secret= is the name of an environment variable, or a callable, not {type(secret).__name__}"
        raise InvalidInput(text)
    places = (deployment.login, *deployment.seeds)
    if any(place.tls is not None and place.tls.key_password is not None for place in places):
        text = "the password of a TLS key does not travel, and secret= is about the server's"
        raise InvalidInput(f"{text}: give the workers a key that needs none")
    if len({place.password for place in places if place.password}) > 1:
        text = "Sentinels and servers have passwords of their own here, and secret= can give one"
        raise InvalidInput(f"{text}: give the address of the primary, or the same password to both")
    known = has_secrets(deployment)  # then it tells who logs in: servers, Sentinels, or both
    asks = _secrets_of(deployment.login) or not known
    seeds = [
        _asking(seed, secret) if _secrets_of(seed) or (not known and deployment.kind != "sentinel") else seed
        for seed in deployment.seeds
    ]
    login = _asking(deployment.login, secret) if asks else deployment.login
    return replace(deployment, login=login, seeds=tuple(seeds))


def _secrets_of(place: Endpoint) -> bool:
    key = place.tls is not None and place.tls.key_password is not None
    return bool(place.password) or place.credentials is not None or key


def _asking(place: Endpoint, secret: Secret) -> Endpoint:
    if isinstance(place.credentials, _Asked):  # it asks already, and knows whose password it is
        return replace(place, credentials=replace(place.credentials, secret=secret))
    return replace(place, username=None, password=None, credentials=_Asked(secret, place.username))
