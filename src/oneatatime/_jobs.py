"""An export by several processes: each takes one partition after the other, and writes whole parts of it.

The parent plans, holds the folder, and alone writes its manifest, so that the order of promises is that of
one process: a part is whole and under its name, then it is named, with the checkpoint of what is in it.
Everything here happens in one loop over what the children say: there is no task, and nothing to lock.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

from ._blocking import aside
from ._child import Child, news, started
from ._deployment import Deployment
from ._errors import FileFailure, InvalidInput, PlanOutdated, ProcessLost
from ._files import NewFile
from ._in_job import Job, Order, Report, export_partitions, selected_stream
from ._manifest import Manifest, part_name
from ._node import OUT_OF_REACH, Outage
from ._options import EXPORT_AHEAD, Options
from ._outfile import Writing
from ._partition import Partition
from ._plan import aplan
from ._portions import Portion, Portions, are_portions
from ._processes import MOST_LOST, evenly, shared
from ._sealed import Json
from ._statistics import Statistics, summed
from ._stream import Stream
from ._target import Target

_MOST = 1000
_EACH = 4  # partitions for each process, at least: so that all have something to do until the end
_GRACE = 5.0  # seconds for the children to put away what they have in hand
_OPTIONS = ("rate", "bandwidth", "max_load", "count", "on_unreachable", "read_from")


def check_jobs(jobs: object, source: object, target: Target) -> None:
    """Raises InvalidInput where `jobs=` makes no sense, by itself or for this source and target."""
    if jobs.__class__ is not int or not 0 < jobs <= _MOST:
        raise InvalidInput(f"jobs={jobs!r} must be a number from 1 to {_MOST:,}")
    if jobs == 1:
        return
    if target.folder is None:
        text = "several processes write a folder of parts, and this is a single file or pipe"
        raise InvalidInput(f"jobs={jobs}: {text}: let the target end with a slash, or take jobs=1")
    if isinstance(source, Stream | Partition) or hasattr(source, "__aiter__"):
        text = "several processes read a deployment: give a URL or client"
        raise InvalidInput(f"jobs={jobs}: {text}, or take jobs=1")
    if target.folder.where.startswith("memory:"):
        raise InvalidInput(f"jobs={jobs}: {target.folder.where} is of this process alone: take jobs=1")


class _Worker:
    """A child and what it has in hand: a portion, and the number of the part that it writes next."""

    def __init__(self, child: Child, portion: Portion, number: int) -> None:
        self.child = child
        self.portion: Portion | None = portion
        self.number = number


class Jobs:
    """An export of `source` by so many `processes`. `manifest` is that of the folder, as it is by now.

    Raises InvalidInput for what cannot be begun, or gone on with.
    """

    def __init__(self, source: object, job: Job, processes: int, manifest: Manifest) -> None:
        self.manifest = manifest
        self._source = source
        self._processes = processes
        selected = job.selected
        for name in ("keys", "unique"):
            if selected.get(name):
                text = f"{name}= is of one process"
                raise InvalidInput(f"{text}, and this export is in partitions, for several: leave it out")
        options = selected.get("options") or Options(ahead=EXPORT_AHEAD)
        given = {name: selected[name] for name in _OPTIONS if selected.get(name) is not None}
        self._options: Options = replace(options, **given)
        # what makes no sense is told before anything is begun
        probe = selected_stream(source, selected, job.layout.asked(job.format), None)
        self._what: Json = probe.checkpoint()["what"]
        self._db = selected.get("db")
        kept = {name: value for name, value in selected.items() if name not in (*_OPTIONS, "db")}
        self._job = replace(job, selected=kept)
        self._before = manifest.left_out
        self._portions = self._known(manifest)
        self._waiting: list[Portion] = []
        self._workers: list[_Worker] = []
        self._began = self._ended = 0.0

    def _known(self, manifest: Manifest) -> Portions | None:
        """The partitions that the export was cut into by a run before; None where there was none."""
        if are_portions(manifest.checkpoint):
            assert manifest.checkpoint is not None
            numbered = None if isinstance(self._db, str) else self._db
            return Portions.of_json(
                manifest.checkpoint,
                Deployment.of(self._source, db=numbered),
                self._what,
                all_dbs=self._db == "all",
            )
        if manifest.parts:
            text = "the export was begun by one process, which goes on by a checkpoint of its own"
            raise InvalidInput(f"{text}: go on with jobs=1, or take another folder")
        return None

    def statistics(self) -> Statistics:
        """What all processes have done so far, together."""
        portions = list(self._portions or ())
        now = self._ended or time.perf_counter()
        found = [one for portion in portions for one in (*portion.before, portion.now)]
        elapsed = now - self._began if self._began else 0.0
        return summed(found, elapsed=elapsed, whole=max(1, len(portions)))

    def checkpoint(self) -> Json:
        """What is in the manifest."""
        return self._portions.to_json() if self._portions is not None else {}

    async def aclose(self) -> None:
        """Nothing of it stays when `run` is over."""

    async def run(self, limit: int | None = None) -> None:
        """Exports everything that is not done. What was done before an error stays.

        Raises what a process has failed with, and ProcessLost where several in a row were killed over one
        partition.
        """
        if limit is not None:
            raise InvalidInput("a limit is of one process: take jobs=1")
        self._began = time.perf_counter()
        files = self._job.files
        await aside(self.manifest.begin, files)  # from here on what is not named is ours to delete
        try:
            if self._portions is None:
                self._portions = Portions.planned(await self._plan(), self._what)
            self._waiting = [portion for portion in self._portions if not portion.done]
            async with AsyncExitStack() as stack:
                await self._work(stack)
            if self._portions.all_done:
                await aside(self._complete)
        except BaseException:
            with suppress(FileFailure):  # then the next run does it
                await aside(self.manifest.sweep, files)
            raise
        finally:
            self._ended = time.perf_counter()

    # The plan

    async def _plan(self) -> list[Partition]:
        least, outage = _EACH * self._processes, Outage(self._options.patience)
        while True:
            try:
                found = await aplan(self._source, db=self._db, options=self._options)
                if len(found) >= least:
                    return found
                return await aplan(self._source, least, db=self._db, options=self._options)
            except OUT_OF_REACH as error:
                deployment = Deployment.of(self._source)
                if deployment.kind == "cluster":  # whose slots are known; who has them is waited for later
                    return evenly(deployment, least, all_dbs=self._db == "all")
                outage.noted(error)
                if outage.too_long or self._options.on_unreachable == "fail":
                    raise
                await outage.rest()

    # The children

    async def _work(self, stack: AsyncExitStack) -> None:
        """Has the children do it all; they are gone when `stack` is left."""
        try:
            at_once = min(self._processes, len(self._waiting))
            self._share_limits(at_once)
            for _ in range(at_once):
                await self._start(self._waiting.pop(0), stack)
            while self._workers:
                await news(worker.child for worker in self._workers)
                for worker in [worker for worker in self._workers if worker.child.has_news]:
                    await self._hear(worker, stack)
        except BaseException:
            await self._put_away()
            raise

    def _share_limits(self, processes: int) -> None:
        """Each may do its part of what all together may."""
        options = shared(self._options, processes)
        self._job = replace(self._job, selected={**self._job.selected, "options": options})

    async def _start(self, portion: Portion, stack: AsyncExitStack) -> None:
        number = self._number()
        await self._write()
        what = "exports a partition"
        child = await stack.enter_async_context(
            await started(export_partitions, self._job, number, what=what)
        )
        worker = _Worker(child, portion, number)
        self._workers.append(worker)
        self._give(worker, portion)

    def _give(self, worker: _Worker, portion: Portion) -> None:
        assert self._portions is not None
        worker.portion = portion
        worker.child.send(Order(portion.partition, portion.checkpoint, self._portions.where))

    async def _hear(self, worker: _Worker, stack: AsyncExitStack) -> None:
        """Takes what a child has said."""
        portion = worker.portion
        try:
            report = await worker.child.receive()
        except ProcessLost as error:
            self._workers.remove(worker)
            if portion is not None:
                await self._lost(portion, worker.number, error)
                await self._start(portion, stack)
            return
        except PlanOutdated as error:
            text = f"{error.message}; this folder goes on with no other"
            text = f"{text}: take another folder, or delete this one, and begin anew"
            raise PlanOutdated(text, node=error.node, missing=error.missing) from error
        if report is None:
            self._workers.remove(worker)
            return
        if report.part is not None:
            worker.number = self._number()
        await self._take(worker, report)
        if report.part is not None:
            worker.child.send(worker.number)
        if report.over:
            worker.portion = None
            if self._waiting:
                self._give(worker, self._waiting.pop(0))
            else:
                worker.child.send(None)

    async def _take(self, worker: _Worker, report: Report) -> None:
        """Writes down what a child has done."""
        portion = worker.portion
        assert portion is not None and self._portions is not None, "it reports what it was given"
        portion.now = report.statistics
        if report.part is None and not report.over:
            return
        assert report.checkpoint is not None and report.left_out is not None
        portion.come_to(report.checkpoint)
        portion.written = report.statistics
        portion.left_out = dict(Counter(portion.left_out_before) + Counter(report.left_out))
        portion.over, portion.done = report.over, report.whole
        self._portions.where = self._portions.where or report.checkpoint["where"]
        if report.part is not None:
            self.manifest = self.manifest.with_part(report.part, None)
        await self._write()

    def _number(self) -> int:
        """The number of the next part. The manifest says so before it is given away."""
        assert self._portions is not None
        number = max(self._portions.numbers, self.manifest.next_number)
        self._portions.numbers = number + 1
        return number

    async def _write(self) -> None:
        assert self._portions is not None
        left_out: Counter[str] = Counter(self._before)
        for portion in self._portions:
            left_out.update(portion.left_out)
        checkpoint = self._portions.to_json()
        self.manifest = replace(self.manifest, checkpoint=checkpoint, left_out=dict(+left_out))
        await aside(self.manifest.write, self._job.files)

    # Ends

    async def _lost(self, portion: Portion, number: int, error: ProcessLost) -> None:
        """A child was killed: what it has not said is not done. Raises ProcessLost where that goes on."""
        await aside(self.manifest.sweep_one, self._job.files, part_name(number, self._job.format.extension))
        portion.lost += 1
        name = str(portion.partition)[1:-1]
        told = (*portion.written.read_again, f"{name}: {error.message}")
        written = replace(portion.written, read_again=told, fraction=0.0, complete=True, finished=True)
        portion.before.append(written)
        portion.now = portion.written = Statistics()
        portion.left_out_before = portion.left_out
        if portion.lost >= MOST_LOST:
            text = f"{name}: {portion.lost} processes in a row ended over it: {error.message}"
            text = f"{text}; what was written before is kept, and the same command goes on there"
            raise ProcessLost(text) from error

    async def _put_away(self) -> None:
        """Has the children write down what they have in hand, as far as that takes no time; and end."""
        for worker in self._workers:
            worker.child.wants_no_more()
        with suppress(asyncio.TimeoutError):  # then what is not said is not done
            await asyncio.wait_for(self._last_words(), _GRACE)

    async def _last_words(self) -> None:
        for worker in self._workers:
            with suppress(Exception):  # whatever it is, there was an error before it
                while (report := await worker.child.receive()) is not None:
                    await self._take(worker, report)

    def _complete(self) -> None:
        """All is there: an empty database is a part without records."""
        files, job = self._job.files, self._job
        if not self.manifest.parts:
            file: NewFile = files.new(part_name(self.manifest.next_number, job.format.extension))
            try:
                part = Writing(file, job.format, job.how).committed()
            except BaseException:
                file.abandon()
                raise
            self.manifest = self.manifest.with_part(part, self.manifest.checkpoint)
        self.manifest = replace(self.manifest, complete=True)
        self.manifest.write(files)
        self.manifest.sweep(files)
