"""Runs one function over many scenes with Ray Data, here or on a cluster; knows nothing about scenes."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from spatial_mllm_core.errors import ErrorCode, SpatialError

Job = Callable[[Any], Any]


def spread(
    function: Job, items: Sequence[Any], *, workers: int, address: str | None, memory_gib: float
) -> Iterator[tuple[int, Any]]:
    """Yield (index, function(item)) as they finish.

    Args:
        function: picklable, gives what JSON can carry; an item whose worker dies twice is left out.
        workers: processes at a time; 0 runs in this process, without Ray.
        address: of a Ray cluster ("auto" or host:port); None starts a local one.
        memory_gib: what a worker may need; Ray starts no more workers than fit.

    Raises:
        SpatialError: OUT_OF_MEMORY when not even one worker fits; BACKEND_UNAVAILABLE when the
            cluster does not answer.
    """
    if workers == 0 or not items:
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

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not ray.is_initialized():
        try:
            if address:
                _knock(address)
                ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
            else:
                ray.init(
                    num_cpus=workers,
                    include_dashboard=False,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    object_store_memory=128 << 20,  # only small outcomes travel
                )
        except (OSError, RuntimeError, ValueError) as error:
            raise SpatialError(
                ErrorCode.BACKEND_UNAVAILABLE, f"Ray at '{address or 'this machine'}' does not start: {error}"
            ) from error
    memory = int(memory_gib * (1 << 30))
    there = max((node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if there < memory:
        raise SpatialError(
            ErrorCode.OUT_OF_MEMORY,
            f"a worker is given {memory_gib:g} GiB but Ray has {there / (1 << 30):.1f} GiB on its largest node; "
            "give --memory-gib less",
        )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a worker that dies costs its scene, not the run
    context.print_on_execution_start = False
    # One scene a block, so that outcomes come one by one and a dead worker takes one scene along.
    with warnings.catch_warnings():
        # `max_retries` goes in 2.64, which pyproject.toml keeps out until there is another way
        warnings.simplefilter("ignore", DeprecationWarning)
        data = ray.data.range(len(items), override_num_blocks=len(items)).map(
            lambda record: {"id": record["id"], "outcome": json.dumps(function(items[record["id"]]))},
            num_cpus=1,
            memory=memory,
            concurrency=None if address else min(workers, len(items)),
            max_retries=1,  # the default is for ever
        )
    for record in data.iter_rows():
        yield int(record["id"]), json.loads(record["outcome"])


def _knock(address: str) -> None:
    """See that somebody listens: Ray itself tries for two minutes and then ends the process.

    Raises:
        OSError: nobody does.  ValueError: not an address.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host, int(port)), timeout=5).close()


def stop() -> None:
    """Leave the cluster or stop the local one."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()
