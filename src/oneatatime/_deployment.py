"""What a source points at: one server, a primary that Sentinel watches, or a cluster.

Nothing is asked here: `seeds` are the servers to ask where the others are, `login` is how those are
reached once their addresses are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ._endpoint import Endpoint, endpoint_of_settings, masked_user, settings_of_source
from ._errors import InvalidInput, ProtocolViolation
from ._url import CLUSTER_SHAPE, SENTINEL_SHAPE

if TYPE_CHECKING:
    from ._client import Settings

_MOST_SEEDS_NAMED = 3
_OF_SEVERAL = ("kind", "seeds", "service", "remap", "replica")


@dataclass(frozen=True, repr=False)
class Deployment:
    """What a source points at. Hashable, comparable; picklable as far as its endpoints and `remap` are.

    `kind` is "server", "sentinel" or "cluster". `seeds` are: the one server; the Sentinels, with their
    own user and TLS; nodes of the cluster. `login` is how data nodes are reached: database, user, TLS,
    protocol; its place means something only for "server". `service` is Sentinel's name for the primary.
    `remap` is a client's own map from the address that a node announces to one that can be reached.
    `replica` says that the source is a client of the service's replicas.
    """

    kind: str
    seeds: tuple[Endpoint, ...]
    login: Endpoint
    service: str | None = None
    remap: Callable[[str, int], tuple[str, int]] | None = field(default=None, compare=False)
    replica: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("server", "sentinel", "cluster"):
            raise InvalidInput("a deployment is a server, a sentinel or a cluster")
        if not self.seeds or (self.kind == "server" and len(self.seeds) > 1):
            raise InvalidInput(f"a deployment of one server has one, any other at least one: {CLUSTER_SHAPE}")
        if (self.kind == "sentinel") != (self.service is not None):
            raise InvalidInput(
                f"Sentinel needs the name of a service, and nothing else has one: {SENTINEL_SHAPE}"
            )
        if self.service is not None and (not self.service.strip() or not self.service.isprintable()):
            raise InvalidInput(f"the name of the service is none: {SENTINEL_SHAPE}")
        if self.kind == "cluster" and any(seed.path is not None for seed in self.seeds):
            raise InvalidInput(f"the nodes of a cluster are reached by host and port: {CLUSTER_SHAPE}")

    @classmethod
    def of(cls, source: object, *, db: int | None = None) -> Deployment:
        """The deployment that `source` means: a URL, a client object, an Endpoint, or a Deployment.

        URLs are those of `Endpoint.of`, and redis+sentinel:// and redis+cluster:// with several hosts
        (rediss+, valkey+, valkeys+ as well). Client objects may be of a cluster, or made by a Sentinel
        object for one service; they stay as they are. `db` wins over the database that the source names.

        Raises InvalidInput for anything else.

        >>> Deployment.of("rediss+sentinel://reader:secret@one.example,two.example/orders/2").name
        'service orders of Sentinel one.example:26379, two.example:26379'
        """
        if isinstance(source, Deployment):
            deployment = source
        elif isinstance(source, Endpoint):
            deployment = cls("server", (source,), source)
        else:
            deployment = _of_settings(settings_of_source(source))
        return deployment if db is None else deployment._of_db(db)

    def endpoint(self, host: str, port: int) -> Endpoint:
        """How to reach the data node that is announced as `host` and `port`.

        Raises ProtocolViolation for what is no address, InvalidInput where `remap` makes none of it.
        """
        announced = host, port
        place = announced if self.remap is None else self.remap(host, port)
        try:
            host, port = place
            return replace(self.login, host=host, port=int(port), path=None)
        except (InvalidInput, TypeError, ValueError) as error:
            if self.remap is not None:
                raise InvalidInput(
                    f"the client's own map of addresses makes none of {announced!r}"
                ) from error
            raise ProtocolViolation(f"{self.name}: {announced!r} is announced, and is no address") from error

    @property
    def name(self) -> str:
        """Names it in errors and logs: `redis.example:6379`, `cluster of h1:7000, h2:7000`."""
        named = ", ".join(seed.node for seed in self.seeds[:_MOST_SEEDS_NAMED])
        if len(self.seeds) > _MOST_SEEDS_NAMED:
            named += f" and {len(self.seeds) - _MOST_SEEDS_NAMED} more"
        if self.kind == "server":
            return named
        return f"service {self.service} of Sentinel {named}" if self.service else f"cluster of {named}"

    def _of_db(self, db: int) -> Deployment:
        login = Endpoint.of(self.login, db=db)
        if self.kind == "sentinel":
            return replace(self, login=login)  # Sentinels have no databases
        return replace(self, login=login, seeds=tuple(Endpoint.of(seed, db=db) for seed in self.seeds))

    def __repr__(self) -> str:
        if self.kind == "server":
            return f"<Deployment {repr(self.login).partition(' ')[2]}"
        url = f"{'rediss' if self.login.tls else 'redis'}+{self.kind}://{masked_user(self.login)}"
        url += ",".join(seed.node for seed in self.seeds)
        if self.service is not None:
            from urllib.parse import quote

            url += f"/{quote(self.service, safe='')}"
        password = "?sentinel_password=***" if self.service and any(map(masked_user, self.seeds)) else ""
        return f"<Deployment {url}/{self.login.db}{password}>"


def _of_settings(settings: Settings) -> Deployment:
    one = {name: value for name, value in settings.items() if name not in _OF_SEVERAL}
    login = endpoint_of_settings(one)
    kind, given = settings.get("kind", "server"), settings.get("seeds", ())
    if kind == "server":
        return Deployment(kind, (login,), login)
    if kind == "cluster":
        given = [{**one, **place} for place in given]
    seeds = tuple(dict.fromkeys(map(endpoint_of_settings, given)))
    service = settings.get("service")
    if isinstance(service, bytes):
        service = service.decode("utf-8", "replace")
    return Deployment(kind, seeds, login, service, settings.get("remap"), settings.get("replica", False))
