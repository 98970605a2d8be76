"""What is said of each step: means of the losses in the run folder and beside a progress bar. Knows no model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tqdm import tqdm

from spatial_mllm_training.training_loop.checkpoints import Progress
from spatial_mllm_training.training_loop.run_folder import RunFolder


class StepLog:
    """Losses are summed in `progress`, so that a resumed run writes the lines of an uninterrupted one."""

    def __init__(
        self, folder: RunFolder, progress: Progress, *, every: int, total: int | None, quiet: bool
    ) -> None:
        self._folder, self._progress, self._every = folder, progress, every
        self._bar = tqdm(total=total, initial=progress.step, unit="step", disable=quiet)
        self._waited_s, self._since = 0.0, time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in here counts as waiting for data."""
        began = time.monotonic()
        yield
        self._waited_s += time.monotonic() - began

    def note(self, losses: Mapping[str, float]) -> None:
        """Take in the losses of a step; every so many steps their means are written."""
        progress, window = self._progress, self._progress.window
        for name, value in losses.items():
            window[name] = window.get(name, 0.0) + value
        progress.window_steps += 1
        self._bar.update()
        if progress.step % self._every:
            return
        means = {name: value / progress.window_steps for name, value in window.items()}
        progress.window, progress.window_steps = {}, 0
        now = time.monotonic()
        idle = self._waited_s / max(now - self._since, 1e-9)
        self._waited_s, self._since = 0.0, now
        self._folder.log(
            progress.step,
            means,
            minutes=round(progress.elapsed_s / 60, 4),
            data_wait=round(idle, 4),
            skipped=progress.skipped,
        )
        self._bar.set_postfix(
            {k: f"{v:.3f}" for k, v in means.items() if "/" not in k} | {"idle": f"{idle:.0%}"}
        )

    def close(self) -> None:
        self._bar.close()
