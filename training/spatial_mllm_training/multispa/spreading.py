"""Runs one function over many scenes with Ray Data, here or on a cluster; knows nothing about scenes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Job = Callable[[Any], Any]


def spread(
    function: Job, items: Sequence[Any], *, workers: int, address: str | None, memory_gib: float
) -> Iterator[tuple[int, Any]]:
    """Yield (index, function(item)) as they finish.

    Args:
        function: picklable; an item whose worker dies is left out.
        workers: processes at a time; 0 runs in this process, without Ray.
        address: of a Ray cluster ("auto" or host:port); None starts a local one.
        memory_gib: what a worker may need; Ray starts no more workers than fit.
    """
    if workers == 0:
        for index, item in enumerate(items):
            yield index, function(item)
        return
    yield from _with_ray(function, items, workers, address, memory_gib)


def _with_ray(
    function: Job, items: Sequence[Any], workers: int, address: str | None, memory_gib: float
) -> Iterator[tuple[int, Any]]:
    # Before the import: Ray reads these once. Its own bars and reports would hide ours.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    import ray.data

    logging.getLogger("ray").setLevel(logging.ERROR)
    if not ray.is_initialized():
        if address:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        else:
            ray.init(
                num_cpus=workers,
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                object_store_memory=128 << 20,  # only small outcomes travel
            )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a worker that dies costs its scene, not the run
    context.print_on_execution_start = False
    # One scene a block, so that outcomes come one by one and a dead worker takes one scene along.
    data = ray.data.from_items(
        [{"index": i, "item": item} for i, item in enumerate(items)], override_num_blocks=len(items)
    ).map(
        lambda record: {"index": record["index"], "outcome": function(record["item"])},
        num_cpus=1,
        memory=int(memory_gib * (1 << 30)),
        concurrency=None if address else workers,
        max_retries=1,  # the default is for ever
    )
    for record in data.iter_rows():
        yield int(record["index"]), record["outcome"]


def stop() -> None:
    """Leave the cluster or stop the local one."""
    import sys

    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()
