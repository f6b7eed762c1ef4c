"""Records into a deployment: `load`, from a file, a folder of parts, or any iterable of records."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ._blocking import aside
from ._deployment import Deployment
from ._errors import InvalidInput
from ._feed import Feed, Live
from ._glob import matcher
from ._journal import Journal
from ._loading import Loading, Wanted
from ._options import Options, Selection
from ._record_files import File, Place, places_of
from ._store import Store
from ._stream import Stream

_CONFLICTS = ("replace", "skip", "fail")


@dataclass(frozen=True)
class Loaded:
    """What has become of the records of an import; of a dry run, what would have.

    `written` of so many `types`; of these, `replaced` are known to have taken the place of a key (strings and
    dumps do so without telling), and `torn` had been changed while they were read. `skipped`: their keys were
    there. `expired`: their time was over. `left_out`: not selected. `before`: done with by earlier runs.
    """

    written: int = 0
    skipped: int = 0
    replaced: int = 0
    expired: int = 0
    left_out: int = 0
    torn: int = 0
    before: int = 0
    types: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class How:
    """What `load` may be told beside source and target."""

    format: str | None = None
    on_conflict: str = "replace"
    dry_run: bool = False
    match: bytes | str | None = None
    types: str | Iterable[str] | None = None
    prefix: bytes | str | None = None
    db: int | None = None
    checkpoint: str | os.PathLike[str] | None = None
    options: Options | None = None

    def __post_init__(self) -> None:
        if self.on_conflict not in _CONFLICTS:
            choices = ", ".join(map(repr, _CONFLICTS))
            raise InvalidInput(f"on_conflict={self.on_conflict!r} must be one of {choices}")
        if not isinstance(self.options, Options | None):
            kind = type(self.options).__name__
            raise InvalidInput(f"options= is an oneatatime.Options, not {kind}: {self.options!r}")
        if not isinstance(self.prefix, bytes | str | None):
            kind = type(self.prefix).__name__
            raise InvalidInput(f"prefix={self.prefix!r} must be bytes or str, not {kind}")
        if self.db is not None and (self.db.__class__ is not int or self.db < 0):
            raise InvalidInput(f"db={self.db!r} must be the number of a database")
        if self.checkpoint is not None and self.dry_run:
            raise InvalidInput("dry_run= writes nothing, so there is nothing for checkpoint= to keep")

    @property
    def wanted(self) -> Wanted:
        """Which records these select. Raises InvalidInput."""
        selection = Selection.checked(
            match=self.match, types=self.types, keys=None, metadata=(), encoding=None, errors="strict"
        )
        prefix = self.prefix.encode() if isinstance(self.prefix, str) else self.prefix
        said = {
            "match": repr(selection.match),
            "types": sorted(selection.types),
            "prefix": repr(prefix),
            "db": self.db,
        }
        means = None if selection.match is None else matcher(selection.match)
        return Wanted(means, frozenset(selection.types), prefix, self.db, said)


class Import:
    """An import, for whoever wants to see how far it is: `await run()`, and `so_far()` meanwhile.

    The arguments are those of `load`; `source` may be a `Feed` as well.
    """

    def __init__(self, source: Any, target: object, **given: Any) -> None:
        how = How(**given)
        self._in_files = isinstance(source, str | os.PathLike) or hasattr(source, "read")
        if self._in_files:
            pass
        elif isinstance(source, bytes) or not (
            isinstance(source, Feed) or hasattr(source, "__aiter__") or hasattr(source, "__iter__")
        ):
            text = f"source= is a path, or an iterable of records, not {type(source).__name__}"
            raise InvalidInput(text)
        elif how.format is not None or how.checkpoint is not None:
            raise InvalidInput("format= and checkpoint= are for files: nobody can go back to other records")
        self._source = source
        self._how = how
        self._deployment = Deployment.of(target)
        store = Store(self._deployment, how.options or Options())
        self._loading = Loading(store, how.wanted, how.on_conflict, dry_run=how.dry_run)
        self._before = 0
        self._began: float | None = None
        self._ended: float | None = None

    async def run(self) -> Loaded:
        """Imports everything. Raises what `load` does."""
        self._began = time.perf_counter()
        store = self._loading.store
        try:
            places = await aside(places_of, self._source) if self._in_files else []
            for place in places:
                place.format(self._how.format)  # what makes no sense is told before anything is written
            await store.open()
            if self._in_files:
                await self._run_files(places)
            elif isinstance(self._source, Feed):
                await self._run(self._source)
            else:
                records = self._source
                given = records.batches() if isinstance(records, Stream) else records
                await self._run(Live(given, (self._how.options or Options()).patience))
        finally:
            self._ended = time.perf_counter()
            store.close()
        return self.so_far()

    def so_far(self) -> Loaded:
        """What has been acknowledged until now."""
        counts = self._loading.store.counts
        end = self._ended or time.perf_counter()
        return Loaded(
            counts.written,
            counts.skipped,
            counts.replaced,
            counts.expired,
            counts.left_out,
            counts.torn,
            self._before,
            MappingProxyType(dict(counts.types)),
            end - (self._began or end),
        )

    async def _run_files(self, places: list[Place]) -> None:
        journal = self._journal(places)
        if journal is not None:
            self._loading.journal = journal
            self._before = sum(journal.done.values())
        for place in places:
            name = place.path
            if journal is not None and name in journal.whole:
                continue
            start = 0 if journal is None else journal.done.get(name, 0)
            await self._run(File(place, self._how.format, start), name, start)

    async def _run(self, feed: Feed, part: str = "", start: int = 0) -> None:
        try:
            await self._loading.take_all(feed, part, start)
        finally:
            await feed.close()

    def _journal(self, places: list[Place]) -> Journal | None:
        if self._how.checkpoint is None:
            return None
        if places[0].stream is not None:
            raise InvalidInput("checkpoint= is for files by name: what is open is read once")
        what = {
            "source": os.path.basename(os.fspath(self._source).rstrip("/")),
            "parts": {place.path: place.size for place in places},
            "target": self._deployment.name,
            "format": self._how.format,
            "database": self._deployment.login.db,
            **self._loading.what,
        }
        return Journal.opened(os.fspath(self._how.checkpoint), what)


async def load(
    source: object,
    target: object,
    *,
    format: str | None = None,  # noqa: A002
    on_conflict: str = "replace",
    dry_run: bool = False,
    match: bytes | str | None = None,
    types: str | Iterable[str] | None = None,
    prefix: bytes | str | None = None,
    db: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    options: Options | None = None,
) -> Loaded:
    """Writes records into a deployment, and returns what has become of them.

    `source` is a file that an export wrote, or a folder of such files: a path, a URL, a file open for bytes;
    or any iterable, async or not, of `Record` or of lists of them: a generator of your own, or
    `stream(...).records()`. `target` is what `stream` takes: a URL or a client object. `format` names the
    format where a file's ending does not.

    A key that exists already is replaced (`on_conflict="replace"`), stays as it is ("skip"), or ends the
    import before anything of it is written ("fail"). `dry_run` writes nothing, and counts what would be.
    `match` (a glob pattern), `prefix` (what keys begin with), `types` and `db` select records. Those of a
    database go into the one of the same number, all others into the one that `target` names. One whose time
    is over is not written. `checkpoint` is the path of a file that keeps how far the import is: the same call
    goes on from there after a crash. `options` as for `stream`.

    A record counts as written when the server has acknowledged it. Raises InvalidInput for arguments that
    make no sense, for files that are damaged, and for values that no command can write; ServerFailure for
    what the server refuses, with the key; and what connections raise, after `Options.patience`.

    >>> import oneatatime
    >>> async def copy(here, there):
    ...     stream = oneatatime.stream(here, metadata=("expires_at", "details"))
    ...     return await oneatatime.load(stream.batches(), there)
    """
    ready = Import(
        source,
        target,
        format=format,
        on_conflict=on_conflict,
        dry_run=dry_run,
        match=match,
        types=types,
        prefix=prefix,
        db=db,
        checkpoint=checkpoint,
        options=options,
    )
    return await ready.run()
