"""One training run on any number of processes: draw, step, log, validate, save, go on after a kill.

Accelerate places the model (CPU, GPU, DDP, FSDP) and gives bf16; everything that decides what is learnt
(which sample comes when, the random numbers of a step) depends on the seed and the step alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from tqdm import tqdm

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.files import write_atomically
from spatial_mllm_training.recipes.config import TrainConfig
from spatial_mllm_training.training_loop import adapting, checkpoints
from spatial_mllm_training.training_loop.averaging import WeightAverage
from spatial_mllm_training.training_loop.batch import Batch
from spatial_mllm_training.training_loop.beginning import begin_with
from spatial_mllm_training.training_loop.checkpoints import Progress
from spatial_mllm_training.training_loop.distilling import Distiller, add_projector, build_distiller
from spatial_mllm_training.training_loop.objective import Objective, figures
from spatial_mllm_training.training_loop.optimizers import build_optimizers, schedule, set_rates
from spatial_mllm_training.training_loop.placing import accelerator_for, placed
from spatial_mllm_training.training_loop.run_folder import TOKENIZER, RunFolder, kept_tokenizer
from spatial_mllm_training.training_loop.sampling import Mix, SampleSource, batches, digests, subtasks
from spatial_mllm_training.training_loop.setup import (
    DataPaths,
    Learner,
    build_learner,
    build_sources,
    collated,
)
from spatial_mllm_training.training_loop.step_log import StepLog

_PREFIX = "model."  # of the wrapped model inside the objective
STATE_OPTIONS = StateDictOptions(
    full_state_dict=True, cpu_offload=True, ignore_frozen_params=True, strict=False
)


class StoppedError(SpatialError):
    """The run cannot go on; the sentence says why and what was kept."""


def run(
    config: TrainConfig,
    paths: DataPaths,
    out: Path,
    *,
    cpu: bool = False,
    strict: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Begin a run or go on with it; returns what `final.json` holds.

    Args:
        cpu: no GPU even where there is one.
        strict: stop at the first sample that cannot be made, instead of leaving it out.

    Raises:
        SpatialError: data, model, teacher or checkpoint that cannot be used; StoppedError for a loss that is
            not finite.
    """
    accelerator = accelerator_for(config, cpu=cpu)
    try:
        distiller = build_distiller(config, paths, str(accelerator.device))
        before = None if checkpoints.begun(out) else paths.begin_with
        tokenizer = kept_tokenizer(out if before is None else before)
        learner = build_learner(config, paths.checkpoint, tokenizer=tokenizer)
        began_with = {} if before is None else begin_with(before, learner.model)
        sources, weights, held_out = build_sources(config, paths, learner)
        trainer = TrainingRun(
            config, out, accelerator, learner, distiller=distiller, strict=strict, quiet=quiet
        )
        return trainer.train(sources, weights, held_out, began_with=began_with)
    finally:
        accelerator.end_training()
        AcceleratorState._reset_state(True)  # so that the next run in this process may have another precision


class TrainingRun:
    """The state of a run between its steps; the teacher, where there is one, stands beside it."""

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        accelerator: Accelerator,
        learner: Learner,
        *,
        distiller: Distiller | None = None,
        strict: bool,
        quiet: bool,
    ) -> None:
        self.config, self.learner, self.strict = config, learner, strict
        self.distiller = distiller
        self.accelerator = accelerator
        self.leads = accelerator.is_main_process
        self.sharded = accelerator.distributed_type == DistributedType.FSDP
        self.quiet = quiet or not self.leads
        self.folder = RunFolder(out, leads=self.leads)
        if distiller is not None:
            add_projector(learner.model, distiller.width)
        objective = Objective.of(config, learner.model)
        self.belongs_to = {
            "family": learner.model.family.name,
            "recipe": config.name,
            "trained tensors": str(sum(p.requires_grad for p in objective.parameters())),
            "trained parameters": str(sum(p.numel() for p in objective.parameters() if p.requires_grad)),
        }
        if distiller is not None:
            self.belongs_to["teacher"] = distiller.identity
        if config.published is None:  # what weights of the same shapes would read differently
            self.belongs_to["input"] = f"{config.data.width}x{config.data.height}"
            self.belongs_to["number digits"] = str(config.number_digits)
            if config.named_letters:
                self.belongs_to["named points"] = "letters"
            read = {
                "clips": config.model.clips,
                "pointers": config.model.pointers,
                "their depth": config.model.deep_pointers,
                "matches": config.model.matcher is not None,
                "digits": config.model.told_digits,
                "copies": config.model.copied_digits,
            }
            if any(read.values()):
                self.belongs_to["prompts"] = " and ".join(name for name, has in read.items() if has)
        else:
            self.belongs_to |= adapting.identity(learner.model)
        optimizers = build_optimizers(learner.model, config)
        self.objective, self.optimizers = placed(accelerator, objective, learner.model, optimizers)
        self.progress = Progress()
        self.trained = {
            name.removeprefix(_PREFIX): p
            for name, p in accelerator.unwrap_model(self.objective).named_parameters()
            if p.requires_grad
        }
        if config.ema and self.sharded:
            raise SpatialError(
                ErrorCode.NOT_READY, "averaged weights are not kept under FSDP: use a recipe with ema = 0"
            )
        if config.model.deep_pointers and self.sharded:
            raise SpatialError(
                ErrorCode.NOT_READY,
                "deep pointers read images twice where questions point, which processes of sharded weights cannot "
                "do each for itself: use a recipe without",
            )
        self.average = WeightAverage(self.trained, config.ema if self.leads else 0.0)
        self._resume()

    # -- the course of a run ----------------------------------------------------------------------

    def train(
        self,
        sources: dict[str, SampleSource],
        weights: list[float],
        held_out: SampleSource | None,
        *,
        began_with: Mapping[str, Any] = MappingProxyType({}),
    ) -> dict[str, Any]:
        config, progress = self.config, self.progress
        learner, accelerator = self.learner, self.accelerator
        teacher = {} if self.distiller is None else {"teacher": self.distiller.identity}
        changed = self.folder.begin(
            config,
            {**digests(sources), **teacher},
            subtasks=subtasks(sources),
            processes=accelerator.num_processes,
            device=str(accelerator.device),
            began_with=began_with,
        )
        if changed:
            self._say(changed)
        if self.leads:
            tokens = learner.tokenizer.to_str().encode()
            write_atomically(self.folder.path / TOKENIZER, tokens, replace=True)
        validation = self._validation(held_out)
        loader = iter(
            batches(
                Mix(list(sources.values()), weights, config.seed),
                self._collate,
                start=progress.samples,
                batch=config.batch,
                rank=accelerator.process_index,
                world=accelerator.num_processes,
                workers=config.workers,
                pin=accelerator.device.type == "cuda",
            )
        )
        self.objective.train()
        log = StepLog(self.folder, progress, every=config.log_steps, total=config.steps, quiet=self.quiet)
        began = time.monotonic() - progress.elapsed_s
        saved_s = validated_s = progress.elapsed_s
        while True:
            progress.elapsed_s = self._same_clock(time.monotonic() - began)
            share = self._share()
            if share >= 1.0:
                break
            log.note(self._step(loader, share, log))
            if self._due(validated_s, config.validate_steps, config.validate_minutes):
                validated_s = progress.elapsed_s
                found = self._validate(validation)
                self.folder.log(progress.step, {f"held_out/{k}": v for k, v in found.items()})
                self._say_held_out(found)
            if self._due(saved_s, config.checkpoint_steps, config.checkpoint_minutes):
                saved_s = progress.elapsed_s
                self._save()
        del loader
        log.close()
        self._save()
        return self._finish(validation)

    def _share(self) -> float:
        """Part of the budget that has passed."""
        if self.config.steps is not None:
            return self.progress.step / self.config.steps
        return self.progress.elapsed_s / (self.config.minutes * 60.0)

    def _due(self, last_s: float, steps: int | None, minutes: float) -> bool:
        if steps is not None:
            return self.progress.step % steps == 0  # the same steps after a restart
        return self.progress.elapsed_s - last_s > minutes * 60.0

    def _same_clock(self, elapsed_s: float) -> float:
        """The mean of all processes' clocks, so that all validate, save and stop at the same step."""
        if self.accelerator.num_processes == 1:
            return elapsed_s
        clock = torch.tensor([elapsed_s], dtype=torch.float32, device=self.accelerator.device)
        return float(self.accelerator.reduce(clock, "mean"))

    # -- a step -----------------------------------------------------------------------------------

    def _step(self, loader: Any, share: float, log: StepLog) -> dict[str, float]:
        config, accelerator, progress = self.config, self.accelerator, self.progress
        set_rates(self.optimizers, schedule(config, share))
        # what is drawn inside the model (dropout of cameras) follows from the step alone
        torch.manual_seed(hash((config.seed, progress.step, accelerator.process_index)) & 0x7FFFFFFF)
        sums: dict[str, float] = {}
        for _ in range(config.accumulate):
            with log.waiting():
                batch = next(loader)
            self._look_at_problems(batch)
            assert isinstance(batch, Batch)
            on_device = self._taught(batch.to(accelerator.device))
            with accelerator.accumulate(self.objective):
                with accelerator.autocast():  # sharded, nobody else opens it
                    losses = self.objective(on_device)
                if not torch.isfinite(losses["loss"]):
                    self._stop(on_device, float(losses["loss"].detach()))
                accelerator.backward(losses["loss"])
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(self.objective.parameters(), config.clip)
                for optimizer in self.optimizers:
                    optimizer.step()
                for optimizer in self.optimizers:
                    optimizer.zero_grad(set_to_none=True)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / config.accumulate
        progress.step += 1
        progress.samples += config.batch * config.accumulate * accelerator.num_processes
        self.average.update(progress.step)
        return sums

    def _taught(self, batch: Batch) -> Batch:
        if self.distiller is None:
            return batch
        with self.accelerator.autocast():
            return self.distiller.taught(batch)

    def _look_at_problems(self, drawn: Batch | tuple[str, ...]) -> None:
        problems = drawn.problems if isinstance(drawn, Batch) else drawn
        if not isinstance(drawn, Batch):
            why = problems[0] if problems else "no draw of the augmentation can be shown"
            raise StoppedError(ErrorCode.NO_FRAME, f"no sample of a whole batch can be used, first: {why}")
        if not problems:
            return
        if self.strict:
            raise StoppedError(ErrorCode.NO_FRAME, problems[0])
        if not self.progress.skipped:
            self._say(f"left out: {problems[0]} (further ones are counted)")
        self.progress.skipped += len(problems)

    def _stop(self, batch: Batch, loss: float) -> None:
        step = self.progress.step
        path = self.folder.path / f"bad_batch_{step:08d}_{self.accelerator.process_index}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        batch.save(path, step=str(step), loss=str(loss))
        raise StoppedError(
            ErrorCode.INVALID_OUTPUT,
            f"the loss is {loss} at step {step}; the batch ({', '.join(batch.names[:4])}) is in '{path}', "
            "the last checkpoint is untouched",
        )

    # -- what is said and kept ----------------------------------------------------------------------

    def _validation(self, held_out: SampleSource | None) -> list[Batch]:
        if held_out is None or not (self.leads or self.sharded):
            return []
        return [
            self._collate([held_out.sample(8 * n + i) for i in range(8)])
            for n in range(self.config.validate_batches)
        ]

    def _validate(self, validation: list[Batch]) -> dict[str, float]:
        if not validation:
            return {}
        # shards are gathered by all processes together; whole models are looked at by one alone
        objective = self.objective if self.sharded else self.accelerator.unwrap_model(self.objective)
        device = self.accelerator.device
        with self.accelerator.autocast():
            return figures(objective, [batch.to(device) for batch in validation])

    def _say_held_out(self, found: dict[str, float]) -> None:
        if not found:
            return
        self._say(
            f"step {self.progress.step} held-out " + "  ".join(f"{k} {v:.3f}" for k, v in found.items())
        )

    def _finish(self, validation: list[Batch]) -> dict[str, Any]:
        """Figures of the averaged weights, where there are such."""
        self.average.copy_to_trained()
        found = self._validate(validation)
        self._say_held_out(found)
        final = {
            "step": self.progress.step,
            "samples": self.progress.samples,
            "skipped": self.progress.skipped,
            "minutes": self.progress.elapsed_s / 60,
            "held_out": found,
        }
        self.folder.finish(final)
        return final

    def _save(self) -> None:
        weights, optimizer = get_state_dict(self.objective, self._plain_optimizers(), options=STATE_OPTIONS)
        if not self.leads:
            return
        named = {name.removeprefix(_PREFIX): value for name, value in weights.items()}
        checkpoints.write(
            self.folder.path,
            self.progress,
            belongs_to=self.belongs_to,
            weights={name: named[name].contiguous() for name in self.trained},
            average={name: value.cpu().contiguous() for name, value in self.average.values.items()},
            optimizer=optimizer,
            keep=self.config.keep_checkpoints,
        )

    def _resume(self) -> None:
        found = checkpoints.latest(self.folder.path, self._say)
        if found is None:
            self.folder.rewind(-1)
            return
        checkpoints.check(found, self.belongs_to)
        set_state_dict(
            self.objective,
            self._plain_optimizers(),
            model_state_dict={_PREFIX + name: value for name, value in found.weights().items()},
            optim_state_dict=found.optimizer(),
            options=STATE_OPTIONS,
        )
        self.average.restore(found.average())
        self.progress = found.progress
        self.folder.rewind(found.progress.step)
        self._say(f"resumed at step {found.progress.step}, {found.progress.elapsed_s / 60:.1f} min")

    def _plain_optimizers(self) -> list[torch.optim.Optimizer]:
        return [optimizer.optimizer for optimizer in self.optimizers]

    def _collate(self, samples: Any) -> Batch:
        return collated(samples, self.config, self.learner)

    def _say(self, sentence: str) -> None:
        if self.leads:
            tqdm.write(sentence)
