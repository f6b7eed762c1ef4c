"""What `keys` and `items` have in common: from their options to a job that is ready to run."""

from __future__ import annotations

from typing import Any

import oneatatime

from .. import Error, InvalidInput
from ._checkpoint_file import CheckpointFile
from ._job import Job
from ._source import Care, Chosen, Source

PAGES_IN_A_LIMIT = 8


def begun(
    source: Source,
    chosen: Chosen,
    care: Care,
    lines: dict[str, Any],
    progress: bool | None,
    quiet: bool,
) -> Job[oneatatime.Stream]:
    """The job that reads what was chosen, from the beginning or from where the checkpoint is.

    `lines` says what lines it writes. Raises Error for a checkpoint that is of something else.
    """
    arguments = {
        **chosen.arguments(),
        **care.arguments(),
        "metadata": lines.get("with", ()),
        "db": "all" if source.all_dbs else None,
    }
    if care.checkpoint is not None and chosen.limit is not None:  # a checkpoint counts whole pages
        arguments["count"] = min(arguments["count"], max(1, chosen.limit // PAGES_IN_A_LIMIT))
    endpoint = source.endpoint(quiet=quiet)
    stream = oneatatime.stream(endpoint, **arguments)  # what makes no sense is told before a file is touched
    file = CheckpointFile.opened(care.checkpoint, lines) if care.checkpoint is not None else None
    if file is not None and file.checkpoint is not None:
        try:
            stream = oneatatime.stream(endpoint, **arguments, resume=file.checkpoint)
        except InvalidInput as error:
            raise Error(f"cannot go on from {file.path}: {error.message}") from error
    return Job(
        stream,
        progress=progress,
        quiet=quiet,
        limit=chosen.limit,
        file=file,
        everything=chosen.match is None and not chosen.types,
        unique=care.unique is not None,
    )
