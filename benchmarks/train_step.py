"""A training step against the plain transformers Trainer's, what the 3D losses cost, how long a step waits for data.

    python train_step.py --recipe tiny_cpu --steps 12 --rounds 3 --scenes ../data/workspace

Same model, same prompts (one question per pair of images, so that packing gives no advantage), AdamW,
bf16 autocast, the linear patch embedding in both. Variants take turns, so that what else runs on the
machine falls on all of them. Prints one line of JSON: ms per step and ratios, larger is faster than the Trainer.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from spatial_mllm_training.data.packing import IGNORE, Sample
from spatial_mllm_training.data.pairs import PairBuilder
from spatial_mllm_training.model.preprocess import normalised
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.recipes.config import MixConfig, SpatialConfig, TrainConfig
from spatial_mllm_training.scenes.split import scene_files
from spatial_mllm_training.training_loop.loop import TrainingRun
from spatial_mllm_training.training_loop.pair_source import PairSource
from spatial_mllm_training.training_loop.setup import Learner, build_learner, pair_builder

WARM_UP = 3
SCENES = Path(__file__).parents[1] / "tests" / "fixtures" / "simulated"


class Clocked:
    """A few samples again and again; notes when the first of each batch is asked for."""

    def __init__(self, samples: list[Sample], batch: int) -> None:
        self.samples, self.batch = samples, batch
        self.times: list[float] = []

    def sample(self, number: int) -> Sample:
        if number % self.batch == 0:
            self.times.append(time.perf_counter())
        return self.samples[number % len(self.samples)]

    def digest(self) -> str:
        return "benchmark"

    def subtasks(self) -> frozenset[str]:
        return frozenset()


class Clock(TrainerCallback):
    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())


def ms(times: list[float]) -> float:
    """Median step after the warm-up."""
    steps = [1e3 * (b - a) for a, b in itertools.pairwise(times)]
    return statistics.median(steps[WARM_UP:])


def ours(config: TrainConfig, samples: list[Sample], steps: int) -> tuple[float, float]:
    """(ms per step, loss of the first step) of the loop as it is."""
    source = Clocked(samples, config.batch)
    metrics = train(dataclasses.replace(config, steps=steps, workers=0), source)
    return ms(source.times), metrics[0]["answer_loss"]


def train(config: TrainConfig, source: Any) -> list[dict[str, float]]:
    """Run without checkpoints on the way; the lines of its log."""
    quiet = dataclasses.replace(
        config, checkpoint_steps=1 << 30, validate_steps=1 << 30, log_steps=1, ema=0.0, optimizer="adamw"
    )
    accelerator = Accelerator(mixed_precision="bf16" if config.precision == "bf16" else "no")
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(quiet, Path(folder), accelerator, build_learner(quiet), strict=True, quiet=True)
        run.train({"fixed": source}, [1.0], None)
        accelerator.end_training()
        AcceleratorState._reset_state(True)
        return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def theirs(config: TrainConfig, samples: list[Sample], steps: int) -> tuple[float, float]:
    """(ms per step, loss of the first step) of the stock model under the Trainer."""
    learner = build_learner(config)
    hf = learner.model.hf
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=hf,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=config.batch,
                max_steps=steps,
                learning_rate=config.learning_rate,
                lr_scheduler_type="cosine",
                warmup_steps=1,
                use_cpu=not torch.cuda.is_available(),
                bf16=config.precision == "bf16",
                report_to="none",
                save_strategy="no",
                logging_steps=1,
                disable_tqdm=True,
                remove_unused_columns=False,
            ),
            train_dataset=[samples[i % len(samples)] for i in range(steps * config.batch)],
            data_collator=lambda drawn: stock_batch(learner, drawn),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer._get_train_sampler = lambda *_: None  # in order, as ours
        trainer.train()
        first = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    AcceleratorState._reset_state(True)
    return ms(clock.times), float(first)


def stock_batch(learner: Learner, samples: list[Sample]) -> dict[str, Any]:
    """The same prompts as keyword arguments of the stock class, which shifts labels itself."""
    length = max(len(s.ids) for s in samples) + 1
    ids = torch.full((len(samples), length), learner.pad_id)
    labels = torch.full((len(samples), length), IGNORE)
    attention = torch.zeros((len(samples), length), dtype=torch.long)
    for b, s in enumerate(samples):
        n = len(s.ids)
        ids[b, :n] = torch.from_numpy(s.ids)
        attention[b, :n] = 1
        labels[b, 1 : n + 1] = torch.from_numpy(s.labels)
        ids[b, n] = s.labels[-1]
    family, config = learner.model.family, learner.model.hf.config
    pixels = torch.stack([torch.from_numpy(i.pixels).permute(2, 0, 1) for s in samples for i in s.images])
    images = list(normalised(learner.model.processing, pixels))
    return {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": attention,
        **family.pixel_inputs(config, images),
        **family.prompt_inputs(config, ids),
    }


def data_wait(config: TrainConfig, scenes: list[Path], steps: int) -> float:
    """Mean share of a step that waits for samples drawn from scene files by the recipe's workers."""
    learner = build_learner(config)
    builder = pair_builder(config, learner)(scenes, config=config.data)
    lines = train(dataclasses.replace(config, steps=steps), PairSource(builder, 0))
    return statistics.mean(line["data_wait"] for line in lines[WARM_UP:])


def without_additions(config: TrainConfig) -> TrainConfig:
    """A recipe without what the stock class cannot do."""
    model = dataclasses.replace(
        config.model,
        clips=False,
        pointers=False,
        deep_pointers=False,
        told_digits=False,
        copied_digits=False,
        matcher=None,
        coordinate_code=0.0,
    )
    return dataclasses.replace(
        config,
        model=model,
        data=dataclasses.replace(config.data, told_questions=0),
        mix=MixConfig(),
        match_weight=0.0,
        number_digits=0,
        digit_weights=(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--recipe", choices=[n for n, r in RECIPES.items() if r().published is None], default="tiny_cpu"
    )
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scenes", type=Path, default=SCENES, help="folder of make_scenes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = RECIPES[options.recipe]()
    scenes = scene_files(options.scenes, held_out=False) or scene_files(options.scenes, held_out=True)
    if not scenes:
        raise SystemExit(f"{options.scenes} holds no scene_*.npz; run make_scenes first")
    stock = without_additions(config)
    tokenizer = build_learner(stock).tokenizer
    one_question = dataclasses.replace(
        config.data, single_questions=0, pair_questions=1, size_questions=0, dotted=0.0, still_camera=1.0
    )
    source = PairSource(PairBuilder(scenes, tokenizer, one_question, augment=False, maps=True), 0)
    samples = [source.sample(n) for n in range(config.batch)]
    off = dataclasses.replace(stock, depth_weight=0.0, spatial=None)
    variants = {
        "answers": off,
        "answers_depth": dataclasses.replace(off, depth_weight=1.0),
        "answers_depth_3d": dataclasses.replace(off, depth_weight=1.0, spatial=SpatialConfig()),
    }
    found: dict[str, list[float]] = {"trainer": [], **{name: [] for name in variants}}
    losses: dict[str, float] = {}
    steps = options.steps + WARM_UP
    for _ in range(options.rounds):
        measured, losses["trainer"] = theirs(off, samples, steps)
        found["trainer"].append(measured)
        for name, variant in variants.items():
            measured, losses[name] = ours(variant, samples, steps)
            found[name].append(measured)
    medians = {name: statistics.median(values) for name, values in found.items()}
    ratios = [t / o for t, o in zip(found["trainer"], found["answers"], strict=True)]
    print(
        json.dumps(
            {
                "recipe": config.name,
                "device": "cuda" if torch.cuda.is_available() else "cpu",
                "ms_per_step": {name: round(value, 1) for name, value in medians.items()},
                "first_answer_loss": {name: round(value, 4) for name, value in losses.items()},
                "speed_over_trainer": round(statistics.median(ratios), 3),
                "speed_over_trainer_by_round": [round(r, 3) for r in ratios],
                "cost_of_depth": round(medians["answers_depth"] / medians["answers"], 3),
                "cost_of_depth_and_3d": round(medians["answers_depth_3d"] / medians["answers"], 3),
                "data_wait_share": round(data_wait(config, scenes, steps), 4),
            }
        )
    )


if __name__ == "__main__":
    main()
