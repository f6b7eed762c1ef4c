"""What Parquet and Arrow IPC files have in common: groups of records bounded in bytes, and their way back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from .._errors import InvalidInput
from .._options import MiB
from .._record import Batch, Piece, Record
from ._format import Reader, Writer
from ._gather import Gatherer
from ._layouts import layout_of
from ._read_records import Hole, batch_of
from ._schema import arrow
from ._table import BESIDE

GROUP_BYTES = 8 * MiB
GROUP_ROWS = 64 * 1024

_MOST_ROWS = 4096  # read at a time
_AT_ONCE = 1 * MiB


class Sink:
    """What pyarrow writes into: the file, until the writer has finished or is dropped.

    A Parquet writer that is thrown away writes its footer all the same, and half of a file would look whole:
    so what comes after that goes nowhere.
    """

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file: BinaryIO | None = file

    def write(self, data: Any) -> int:
        return len(data) if self._file is None else self._file.write(data)

    def flush(self) -> None:
        """What waits in the file is the affair of whoever opened it."""

    def close(self) -> None:
        """The file stays open."""

    def writable(self) -> bool:
        return True

    def cut_off(self) -> None:
        """Nothing more goes into the file."""
        self._file = None


class ArrowWriter(Writer):
    """Gathers records until they are a group, and writes that at once.

    `layout` is "records", "elements" or "columns"; `encoding` None for bytes, or "utf-8". `columns`, of the
    last layout, maps the fields wanted to names of Arrow types; what does not fit its type becomes null and
    is counted in `unfit`, or is an error (`unfit="error"`); `beside` names what a table shows beside the key.
    """

    codecs: tuple[str, ...]
    group_bytes = GROUP_BYTES
    sink: Sink | None = None

    def __init__(
        self,
        file: BinaryIO,
        *,
        layout: str = "records",
        encoding: str | None = None,
        columns: Mapping[str, str] | None = None,
        unfit: str = "null",
        beside: Sequence[str] = BESIDE,
        codec: str = "zstd",
    ) -> None:
        super().__init__(file)
        if codec not in self.codecs:
            raise InvalidInput(f"codec={codec!r} must be one of {', '.join(map(repr, self.codecs))}")
        self.sink = Sink(file)
        self.layout = layout_of(layout, encoding=encoding, columns=columns, unfit=unfit, beside=beside)
        self._gatherer = Gatherer(self.layout)
        self._writer = self._open(codec)
        self._waiting: list[Any] = []
        self._rows = self._bytes = 0

    @property
    def unfit(self) -> Mapping[str, int]:
        """How many values became null, by column."""
        return self.layout.unfit

    def write(self, batch: Batch) -> None:
        self._gather(self._gatherer.add(batch))

    def _gather(self, tables: Iterator[Any]) -> None:
        for table in tables:
            self._waiting.append(table)
            self._rows += table.num_rows
            self._bytes += table.nbytes
            if self._bytes >= self.group_bytes or self._rows >= GROUP_ROWS:
                self._flush()

    def write_piece(self, record: Record, piece: Piece) -> None:
        metadata = {name: [value] for name, value in record._asdict().items() if value is not None}
        for name in ("key", "type", "value"):
            metadata.pop(name, None)
        self.write(Batch([record.key], record.type, [record.value], metadata=metadata, pieces=[piece]))

    def finish(self) -> None:
        self._gather(self._gatherer.rest())
        self._flush()
        self._writer.close()
        self._cut_off()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._rows = self._bytes = 0
        if waiting:
            self._write_group(arrow().Table.from_batches(waiting))
            del waiting
            release_unused()

    def _cut_off(self) -> None:
        if self.sink is not None:
            self.sink.cut_off()

    def __del__(self) -> None:
        self._cut_off()

    @abstractmethod
    def _open(self, codec: str) -> Any:
        """Pyarrow's writer of this format."""

    @abstractmethod
    def _write_group(self, table: Any) -> None:
        """Writes records that were gathered."""


def rows_at_once(size: int, rows: int) -> int:
    """How many rows to make objects of, where so many have so many bytes: a megabyte may become ten."""
    return max(1, min(_MOST_ROWS, _AT_ONCE * rows // max(size, 1)))


def release_unused() -> None:
    """Has Arrow's allocator give back what is free: it keeps tens of MiB for a second, and so for ever."""
    arrow().default_memory_pool().release_unused()


class ArrowReader(Reader):
    """Reads group after group, and of a group a few thousand records at a time."""

    def batches(self, start: int = 0) -> Iterator[tuple[int, Batch]]:
        number = start
        with self._damage():
            tables = self._tables(start)
        while True:
            with self._damage(number):
                found = next(tables, None)
            if found is None:
                return
            try:
                with self._damage(number):
                    batch = batch_of(*found)
            except Hole as hole:
                raise InvalidInput(f"{self.name}, {self.place(number + hole.row)}: {hole.what}") from hole
            del found
            release_unused()
            if len(batch):
                yield number, batch
            number += len(batch)

    def place(self, number: int) -> str:
        return f"row {number + 1:,}"

    @abstractmethod
    def _tables(self, start: int) -> Iterator[tuple[Any, int]]:
        """RecordBatches from that row on, and about the bytes of each."""

    @contextmanager
    def _damage(self, number: int | None = None) -> Iterator[None]:
        """What pyarrow says of a file that is damaged, as an error that says which and where."""
        pa = arrow()
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, EOFError) as error:
            if isinstance(error, InvalidInput) or getattr(error, "errno", None):
                raise  # said already, or an error of the disk
            where = "" if number is None else f", after {self.place(number - 1)}" if number else ", row 1"
            text = f"{self.name}{where}: the file is damaged, cut off, or of another kind: {error}"
            raise InvalidInput(text) from error
