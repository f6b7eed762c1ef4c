"""What an engine reads: rows of a selection, in the partitions of one plan, as Arrow's batches.

A `Table` is made where the job is put together, and travels to the workers: it is picklable, and holds no
password. Each worker reads partitions of it, whole or up to a limit; a partition that could not be read to
its end raises, so that the engine does it again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from .._deployment import Deployment
from .._errors import InvalidInput
from .._frames import ArrowStream
from .._options import Options
from .._partition import Partition
from .._plan import plan
from .._secret import Secret, has_secrets, without_secrets
from .._stream import Stream, stream


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Rows of a deployment, to be read partition by partition anywhere.

    `schema` is a pyarrow.Schema. `arguments` are those of `stream` that select and hold back; `columns` of
    hashes have their types here, also where only names were given.
    """

    name: str
    schema: Any
    partitions: tuple[Partition, ...]
    arguments: Mapping[str, Any]
    flatten: bool = False
    columns: Mapping[str, Any] | None = None
    unfit: str = "null"

    @classmethod
    def of(
        cls,
        source: object,
        *,
        partitions: int | None = None,
        flatten: bool = False,
        columns: Mapping[str, Any] | Iterable[str] | None = None,
        unfit: str = "null",
        **arguments: Any,
    ) -> Table:
        """The rows that `Stream.arrow` gives of `stream(source, **arguments)`, in about so many partitions.

        Raises InvalidInput for what makes no sense, for a source with a password and no `secret=`, and what
        `plan` raises.
        """
        sent, begun = opened(source, arguments)
        table = begun.arrow(flatten=flatten, columns=columns, unfit=unfit)
        schema = table.schema
        return cls(sent.name, schema, sent.cut(partitions), sent.arguments, flatten, table.columns, unfit)

    def batches(
        self, partition: Partition, columns: Iterable[str] | None = None, limit: int | None = None
    ) -> Generator[Any, None, None]:
        """The RecordBatches of one partition: of the columns only these, of the rows no more than so many.

        Raises what a stream raises: where it ends by itself, the partition was read whole.
        """
        with closing(self._arrow(partition).reader(columns)) as reader:
            for batch in reader:
                if limit is not None:
                    batch = batch.slice(0, limit)
                    limit -= batch.num_rows
                yield batch
                if limit == 0:
                    return

    def narrowed(self, **arguments: Any) -> Table:
        """The same with other arguments of `stream`: fewer types, a pattern for keys."""
        return replace(self, arguments={**self.arguments, **arguments})

    def _arrow(self, partition: Partition) -> ArrowStream:
        rows = stream(partition, **self.arguments)
        return rows.arrow(flatten=self.flatten, columns=self.columns, unfit=self.unfit)

    def __repr__(self) -> str:
        return f"<Table of {self.name} in {len(self.partitions)} partitions: {', '.join(self.schema.names)}>"


@dataclass(frozen=True, eq=False, repr=False)
class Sent:
    """A source as it goes to workers: where it is, what of it is wanted, and how it is cut."""

    source: Deployment
    db: int | str | None
    secret: Secret | None
    options: Options | None
    arguments: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Names it in messages."""
        return self.source.name

    def cut(self, partitions: int | None) -> tuple[Partition, ...]:
        """Its partitions, without a password."""
        return tuple(plan(self.source, partitions, db=self.db, secret=self.secret, options=self.options))


def opened(source: object, arguments: Mapping[str, Any], *, travels: bool = True) -> tuple[Sent, Stream]:
    """A source for workers, and a stream of it here that has checked the arguments.

    `arguments` are those of `stream`, with `secret`. Where it `travels`, a password must not go with it.
    Raises InvalidInput.
    """
    given = dict(arguments)
    secret, db, options = given.pop("secret", None), given.pop("db", None), given.get("options")
    for name in ("keys", "resume"):
        if given.get(name) is not None:
            raise InvalidInput(f"{name}= is for one loop, and not for partitions that engines read again")
    deployment = Deployment.of(source, db=db if isinstance(db, int) else None)
    if travels or secret is not None:
        deployment = safe(deployment, secret)
    begun = stream(deployment, db="all" if db == "all" else None, **given)
    return Sent(deployment, db, secret, options, given), begun


def safe(deployment: Deployment, secret: Secret | None) -> Deployment:
    """The same; refused where its password would travel. What has none asks `secret` for it here, too."""
    if secret is None and has_secrets(deployment):
        text = f"{deployment.name} needs a password, and passwords do not travel to workers"
        raise InvalidInput(
            f'{text}: give secret="NAME" of an environment variable that they have, or a callable'
        )
    if secret is not None and not has_secrets(deployment):
        return without_secrets(deployment, secret)
    return deployment


@dataclass(frozen=True, eq=False)
class Task:
    """A function of the user's for each partition: it gets the partition's `Stream`, and gives anything."""

    function: Callable[[Stream], Any]
    arguments: Mapping[str, Any]

    def __call__(self, partition: Partition) -> Any:
        with stream(partition, **self.arguments) as begun:
            return self.function(begun)
