"""Runs one schedule, or many in parallel."""

import gc
import resource
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import suppress
from multiprocessing import get_context
from typing import Any, override

from chaos import schedule as schedules
from chaos.functions import Functions
from chaos.pipeline import Pipeline
from chaos.schedule import Schedule
from chaos.trace import Trace
from chaos.verdict import Verdict, judge
from chaos.world import World

Build = Callable[[World], Functions]
_MOST_BYTES = 6 << 30  # for one process; a schedule of a thousand events takes 0.2 GB


def run_schedule(schedule: Schedule, build: Build = Functions, *, trace: list[str] | None = None) -> Verdict:
    """Run a schedule and check the promises; the trace's lines are added to `trace`."""
    world = World(schedule, traced=trace is not None)
    judged = Trace(world)
    pipeline = Pipeline(world, build(world))
    judged.watch(pipeline.worker)
    try:
        pipeline.run()
        verdict = judge(pipeline)
        verdict.rules, verdict.told = judged.broken, judged.told
        return verdict
    finally:
        gc.enable()  # a worker invocation that stays frozen leaves it off
        if trace is not None:
            trace += world.simulation.trace or []


def run_seed(seed: int, events: int, build: Build = Functions) -> Verdict:
    """Draw a seed's schedule and run it."""
    try:
        return run_schedule(schedules.draw(seed, events), build)
    except Exception as error:
        error.add_note(f"seed {seed}, {events} events")
        raise


def run_seeds(jobs: list[tuple[int, int]]) -> Iterator[Verdict]:
    """Run schedules, each a seed and a number of events, in parallel, and yield each result as it ends."""
    with Pool() as pool:
        for future in as_completed([pool.submit(run_seed, *job) for job in jobs]):
            yield future.result()


class Pool(ProcessPoolExecutor):
    """A pool of processes, 0 for one per core. They share no state with this one, so a schedule runs the same in each.

    A process that keeps growing gets a `MemoryError`, before the system kills a process of its choice. None hears Ctrl-C: `bin/start.py` ends them.
    """

    def __init__(self, processes: int = 0, **options: Any) -> None:
        super().__init__(processes or None, get_context("spawn"), **{"initializer": _limit_memory} | options)

    @override
    def submit(self, *job: Any, **options: Any) -> Future[Any]:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what this starts inherits it
        try:
            return super().submit(*job, **options)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _limit_memory() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    with suppress(ValueError):  # not every system limits it
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, most))
