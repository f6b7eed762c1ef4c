"""Arrow IPC, the file format (`.arrow`, `.feather`): batches as they are in memory, and where each stands.

Compressed by Zstandard, whose 0.07 us more for a string of 100 bytes than LZ4 halve the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from .._options import MiB
from ._arrow_file import ArrowReader, ArrowWriter, rows_at_once
from ._schema import arrow, check


class Writer(ArrowWriter):
    """Records into an Arrow file; see `ArrowWriter`."""

    codecs = ("zstd", "lz4", "none")
    group_bytes = 2 * MiB  # a reader holds a whole group, and there is nothing to gain from more

    def _open(self, codec: str) -> Any:
        ipc = arrow().ipc
        options = ipc.IpcWriteOptions(compression=None if codec == "none" else codec, use_threads=False)
        return ipc.new_file(self.sink, self.layout.schema, options=options)

    def _write_group(self, table: Any) -> None:
        for batch in table.combine_chunks().to_batches():
            self._writer.write_batch(batch)


class Reader(ArrowReader):
    """What a `Writer` wrote."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__(file, name)
        with self._damage():
            self._reader = arrow().ipc.open_file(file, options=arrow().ipc.IpcReadOptions(use_threads=False))
            check(self._reader.schema, name)

    def _tables(self, start: int) -> Iterator[tuple[Any, int]]:
        before = 0
        for number in range(self._reader.num_record_batches):
            table = self._reader.get_batch(number)
            table.validate(
                full=True
            )  # or damage that no checksum shows would be read from anywhere in memory
            rows = rows_at_once(table.nbytes, table.num_rows)
            for at in range(min(max(start - before, 0), table.num_rows), table.num_rows, rows):
                some = table.slice(at, rows)
                yield some, table.get_total_buffer_size() * some.num_rows // table.num_rows
            before += table.num_rows
