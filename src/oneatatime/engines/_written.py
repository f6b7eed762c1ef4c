"""What an engine writes: Arrow's batches into a deployment, task by task.

A `Destination` is made where the job is put together, and travels to the workers: it is picklable, and holds
no password. Each worker gives it the batches of its task.

Rows with a column `type` are those of the layout "records" (docs/formats.md), as reading gives them; columns
that are missing are taken for null. Without one each row is a hash, with a field for each column that is not
null there. `key`, `db` and `expires_at` (ms since 1970) are never fields.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .._blocking import aside, iterate
from .._deployment import Deployment
from .._errors import ConnectionLost, InvalidInput
from .._feed import Feed, Numbered
from .._import import How, Import, Loaded
from .._options import MiB
from .._record import Batch
from .._secret import Secret, without_secrets
from ..formats._read_records import Hole, batch_of
from ..formats._schema import arrow, records_schema
from ._table import safe

_ROWS, _BYTES = 4096, 4 * MiB  # of a batch
_KEPT = 64 * MiB  # of a value in pieces, to go back to its first one
_BESIDE = {"db": "int32", "expires_at": "int64"}


def write(batches: Iterable[Any], target: object, *, secret: Secret | None = None, **how: Any) -> Loaded:
    """Writes Arrow's batches (or tables) into a deployment; `how` as for `load`. For code without `await`.

    What a task wrote before it failed stays, and a task that an engine does again writes the same again: at
    least once, and to the same end with `on_conflict="replace"`. Raises what `load` raises, with the key.

    >>> import pyarrow
    >>> def add(url, name):
    ...     return write([pyarrow.table({"key": ["user:1"], "name": [name]})], url).written
    """
    return Destination.of(target, secret=secret, **how).write(batches)


@dataclass(frozen=True, eq=False, repr=False)
class Destination:
    """Where rows are written, and how: anywhere, any number of times."""

    deployment: Deployment
    how: Mapping[str, Any]

    @classmethod
    def of(cls, target: object, *, secret: Secret | None = None, **how: Any) -> Destination:
        """A deployment, and the arguments of `load`, checked.

        Raises InvalidInput for what makes no sense, and for a target with a password and no `secret=`.
        """
        if unfit := {"format", "checkpoint"} & set(how):
            raise InvalidInput(f"{min(unfit)}= is for files, and not for rows that an engine writes")
        unknown = set(how) - set(How.__dataclass_fields__)
        if unknown:
            raise InvalidInput(f"there is no argument {min(unknown)!r}: they are those of oneatatime.load")
        _ = How(**how).wanted
        deployment = Deployment.of(target)
        if secret is not None:
            return cls(without_secrets(deployment, secret), how)
        return cls(safe(deployment, None), how)

    def write(self, batches: Iterable[Any]) -> Loaded:
        """What has become of the rows of one task. Picklable, whatever engine carries it."""

        async def once() -> AsyncIterator[Loaded]:
            yield await Import(Rows(batches), self.deployment, **self.how).run()

        loaded = next(iterate(once))
        return replace(loaded, types=dict(loaded.types))

    def __repr__(self) -> str:
        return f"<Destination {self.deployment.name}>"


def together(loaded: Iterable[Loaded]) -> Loaded:
    """What several tasks have done, as one; `seconds` are those of the longest."""
    every = list(loaded)
    types: Counter[str] = Counter()
    for one in every:
        types.update(one.types)
    names = ("written", "skipped", "replaced", "expired", "left_out", "torn", "before")
    counts = {name: sum(getattr(one, name) for one in every) for name in names}
    return Loaded(**counts, types=dict(types), seconds=max([one.seconds for one in every], default=0.0))


class Rows(Feed):
    """Arrow's batches as they come. It can go back within a value of which no more than 64 MiB have come."""

    name = "the rows"

    def __init__(self, given: Iterable[Any]) -> None:
        self._given = _batches(given)
        self._number = 0
        self._again: deque[Numbered] = deque()
        self._kept: list[Numbered] = []  # the batch that the value in hand begins in, and those after it

    async def next(self) -> Numbered | None:
        if self._again:
            numbered = self._again.popleft()
        else:
            batch = await aside(next, self._given, None)
            if batch is None:
                return None
            numbered = self._number, batch
            self._number += len(batch)
        self._keep(numbered)
        return numbered

    async def go_back(self, number: int) -> None:
        found = [place for place, (first, _) in enumerate(self._kept) if first <= number]
        if not found:
            text = "a connection was lost in the middle of a value that is too big to be kept here"
            raise ConnectionLost(f"{text}: the task can be done again, from its first row")
        (first, batch), *others = self._kept[found[-1] :]
        rest = batch.of(list(range(number - first, len(batch))))
        self._again.extendleft(reversed([(number, rest), *others]))
        self._kept = []

    async def close(self) -> None:
        self._given.close()

    def _keep(self, numbered: Numbered) -> None:
        if not numbered[1].continues:
            self._kept = [numbered]
        elif self._kept:
            self._kept.append(numbered)
            if sum(batch.size for _, batch in self._kept) > _KEPT:
                self._kept = []


def _batches(given: Iterable[Any]) -> Any:
    pa = arrow()
    for one in given:
        for table in one.to_batches() if isinstance(one, pa.Table) else [one]:
            make = _of_records if "type" in table.schema.names else _of_hashes
            rows = max(1, min(_ROWS, table.num_rows * _BYTES // max(1, table.nbytes)))
            for start in range(0, table.num_rows, rows):
                some = table.slice(start, rows)
                _with_keys(some)
                yield make(some)


def _with_keys(table: Any) -> None:
    """Raises InvalidInput where a row does not say which key it is."""
    names = table.schema.names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"two columns have the name {twice!r}")
    if "key" not in names:
        raise InvalidInput(
            f"there is no column 'key' that names the rows' keys: there are {', '.join(names)}"
        )
    if table.column("key").null_count:
        raise InvalidInput("the column 'key' is null in a row: each row is of a key")


# The layout "records" ------------------------------------------------------------------------------


def _of_records(table: Any) -> Batch:
    pa, kinds, texts = arrow(), records_schema(False), records_schema(True)
    names = table.schema.names
    if unknown := [name for name in names if name not in kinds.names]:
        text = (
            f"there is no column {unknown[0]!r} in the layout records, which rows with a column 'type' have"
        )
        raise InvalidInput(
            f"{text}: drop it; or, where each row is a hash, give the field 'type' another name"
        )
    columns = [
        _fitting(table.column(kind.name), kind.name, (kind.type, text.type))
        if kind.name in names
        else pa.nulls(table.num_rows, kind.type)
        for kind, text in zip(kinds, texts)
    ]
    whole = pa.RecordBatch.from_arrays(columns, kinds.names)
    try:
        return batch_of(whole, table.nbytes)
    except Hole as hole:
        raise InvalidInput(hole.what, key=_key(table, hole.row)) from hole
    except KeyError as error:
        raise InvalidInput(f"a row has what no record has: {error}") from error


def _fitting(column: Any, name: str, kinds: tuple[Any, Any]) -> Any:
    """A column as one of these types: engines have others for the same."""
    pa = arrow()
    if column.type in kinds:
        return column
    for kind in reversed(kinds):
        try:
            return column.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
            continue
    raise InvalidInput(f"the column {name!r} is {column.type}, and holds {kinds[0]} in the layout records")


# Hashes --------------------------------------------------------------------------------------------


def _of_hashes(table: Any) -> Batch:
    pa = arrow()
    fields: list[tuple[bytes, list[bytes | None]]] = []
    metadata: dict[str, list[Any]] = {}
    keys: list[Any] = []
    for name in table.schema.names:
        column = table.column(name)
        if name in _BESIDE:
            if column.null_count < len(column):
                metadata[name] = _whole_numbers(column, name, pa.type_for_alias(_BESIDE[name]))
        elif name == "key":
            keys = _words(column, name)
        else:
            fields.append((name.encode(), _words(column, name)))
    values: list[dict[bytes, bytes]] = [{} for _ in keys]
    for field, contents in fields:
        for value, content in zip(values, contents):
            if content is not None:
                value[field] = content
    if {} in values:
        text = "every column of its row is null, and a hash has at least one field: leave such rows out"
        raise InvalidInput(text, key=keys[values.index({})])
    return Batch(keys, "hash", values, table.nbytes, metadata or None)


def _words(column: Any, name: str) -> list[Any]:
    """What stands in a column as text, as clients write it; None where it is null."""
    pa = arrow()
    types, kind = pa.types, column.type
    if types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if types.is_nested(kind) or types.is_duration(kind) or isinstance(kind, pa.BaseExtensionType):
        text = f"the column {name!r} is {kind}, and a field of a hash holds text or a number"
        raise InvalidInput(f"{text}: make columns of what is in it, or JSON text")
    if types.is_float64(kind):  # as Python writes it, and with it every client
        return _each(column, lambda number: repr(number).encode())
    try:
        if not (types.is_binary(kind) or types.is_large_binary(kind)):
            column = column.cast(pa.large_string()).cast(pa.large_binary())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidInput(f"the column {name!r} is {kind}, which has no form as text here") from error
    return column.to_pylist()  # type: ignore[no-any-return]


def _each(column: Any, make: Callable[[Any], bytes]) -> list[Any]:
    return [None if one is None else make(one) for one in column.to_pylist()]


def _whole_numbers(column: Any, name: str, kind: Any) -> list[Any]:
    pa = arrow()
    try:
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            return column.cast(kind).to_pylist()  # type: ignore[no-any-return]
    except pa.ArrowInvalid as error:
        raise InvalidInput(f"the column {name!r} holds what is no {kind}: {error}") from error
    what = "ms since 1970" if name == "expires_at" else "the number of a database"
    raise InvalidInput(f"the column {name!r} is {column.type}, and holds {what}: {kind}")


def _key(table: Any, row: int) -> bytes:
    found = table.column("key")[row].as_py()
    return found.encode() if isinstance(found, str) else found
