"""Train a camera-aware model from a recipe, on scene files, within a time budget.

    python -m spatial_mllm_training.train --recipe tiny_cpu --scenes data/scenes --out runs/tiny

Writes config.json, metrics.jsonl and checkpoint.pt (atomically) into the run folder and goes on
from the checkpoint when it is started again.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from spatial_mllm_training.data.pairs import IGNORE, PairBuilder, PairSample
from spatial_mllm_training.data.tokenizer import build_tokenizer
from spatial_mllm_training.model.build import build_model
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.model.dpt import depth_from_logits
from spatial_mllm_training.model.families.qwen2_5_vl import IMAGE_MEAN, IMAGE_STD, use_linear_patch_embed
from spatial_mllm_training.model.losses import answer_loss, depth_loss
from spatial_mllm_training.peers import Peers
from spatial_mllm_training.recipes import RECIPES, TrainConfig
from spatial_mllm_training.scenes.split import FIRST_TEST_SEED, scene_files, seed_of


class Pairs(IterableDataset[PairSample]):
    """An endless stream of samples; each worker has its own seed."""

    REFRESH_EVERY = 2000

    def __init__(self, builder: PairBuilder, folder: Path, seed: int) -> None:
        self.builder = builder
        self.folder = folder
        self.seed = seed

    def __iter__(self) -> Any:
        worker = get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        for count in itertools.count(1):
            if count % self.REFRESH_EVERY == 0:
                self.builder.add_scenes(scene_files(self.folder, held_out=False))
            yield self.builder.sample(rng)


def collate(samples: list[PairSample], pad_id: int) -> dict[str, Tensor]:
    """Stack samples; tokens are padded to the longest row, a pad sees only itself."""
    length = max(len(s.ids) for s in samples)
    batch = len(samples)
    ids = np.full((batch, length), pad_id, np.int64)
    labels = np.full((batch, length), IGNORE, np.int64)
    positions = np.zeros((3, batch, length), np.int64)
    mask = np.zeros((batch, length, length), bool)
    mask[:, np.arange(length), np.arange(length)] = True
    causal = np.tril(np.ones((length, length), bool))
    for b, s in enumerate(samples):
        n = len(s.ids)
        ids[b, :n], labels[b, :n], positions[:, b, :n] = s.ids, s.labels, s.positions
        same = s.owner[:, None] == s.owner[None, :]
        prefix = (s.owner == 0)[None, :] | ((s.owner == 1)[None, :] & s.sees_second[:, None])
        mask[b, :n, :n] = causal[:n, :n] & (same | prefix)
    return {
        "images": torch.from_numpy(np.stack([s.images for s in samples])),
        "rays": torch.from_numpy(np.stack([s.rays for s in samples])),
        "has_camera": torch.tensor([s.has_camera for s in samples]),
        "depth_m": torch.from_numpy(np.stack([s.depth_m for s in samples])),
        "ids": torch.from_numpy(ids),
        "labels": torch.from_numpy(labels),
        "positions": torch.from_numpy(positions),
        "mask": torch.from_numpy(mask)[:, None],
    }


def forward(model: CameraAwareVLM, batch: dict[str, Tensor], grid: tuple[int, int]) -> dict[str, Tensor]:
    """Losses and predictions of a batch of pairs."""
    images = batch["images"].flatten(0, 1).permute(0, 3, 1, 2).float() / 255.0
    mean = torch.tensor(IMAGE_MEAN, device=images.device)[:, None, None]
    std = torch.tensor(IMAGE_STD, device=images.device)[:, None, None]
    rays = batch["rays"].flatten(0, 1)
    has_camera = batch["has_camera"].repeat_interleave(2)
    visual = model.embed_images((images - mean) / std, rays, has_camera)
    embeds = model.hf.get_input_embeddings()(batch["ids"])
    image_mask = batch["ids"] == model.hf.config.image_token_id
    embeds = embeds.to(visual.dtype).masked_scatter(image_mask[..., None], visual)
    hidden, taps = model.decode(embeds, batch["positions"], batch["mask"])
    pairs = len(batch["ids"])
    visual_taps = [t[image_mask].reshape(2 * pairs, -1, t.shape[-1]) for t in taps]
    log_depth, confidence = depth_from_logits(model.depth_head(visual_taps, *grid))
    targets = batch["labels"]
    asked = targets != IGNORE
    logits = model.hf.lm_head(hidden[asked])
    return {
        "depth_loss": depth_loss(log_depth, confidence, batch["depth_m"].flatten(0, 1)),
        "answer_loss": answer_loss(logits, targets[asked]),
        "log_depth": log_depth,
        "confidence": confidence,
        "logits": logits,
        "targets": targets[asked],
    }


@torch.no_grad()
def validate(
    model: CameraAwareVLM, batches: list[dict[str, Tensor]], grid: tuple[int, int]
) -> dict[str, float]:
    """Figures on held-out scenes: depth AbsRel and delta1, answer loss and token accuracy."""
    model.eval()
    sums: dict[str, list[float]] = {"abs_rel": [], "delta1": [], "answer_loss": [], "token_accuracy": []}
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16):
            out = forward(model, batch, grid)
        truth = batch["depth_m"].flatten(0, 1)
        valid = truth > 0
        ratio = torch.exp(out["log_depth"][valid]) / truth[valid]
        sums["abs_rel"].append(float((ratio - 1).abs().mean()))
        sums["delta1"].append(float((torch.maximum(ratio, 1 / ratio) < 1.25).float().mean()))
        sums["answer_loss"].append(float(out["answer_loss"]))
        sums["token_accuracy"].append(float((out["logits"].argmax(-1) == out["targets"]).float().mean()))
    model.train()
    return {k: float(np.mean(v)) for k, v in sums.items()}


def build_optimizers(model: CameraAwareVLM, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the network, AdamW for embeddings, convolutions and vectors."""
    table = model.hf.get_input_embeddings().weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not table]
    others = [p for p in model.parameters() if p.ndim != 2 or p is table]
    return [
        torch.optim.Muon(
            [{"params": matrices, "peak_lr": config.matrix_learning_rate}],
            lr=config.matrix_learning_rate,
            momentum=0.95,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            [{"params": others, "peak_lr": config.learning_rate}],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.0,
        ),
    ]


def schedule(config: TrainConfig, share: float) -> float:
    """Linear warm-up, then cosine to 2 % over the share of the time budget that has passed."""
    if share < config.warmup_share:
        return share / config.warmup_share
    done = min(1.0, (share - config.warmup_share) / (1.0 - config.warmup_share))
    return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * done))


def save_atomically(state: dict[str, Any], path: Path) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def train(config: TrainConfig, scenes: Path, out: Path, *, threads: int) -> None:
    """Run or resume a training."""
    peers = Peers()
    out.mkdir(parents=True, exist_ok=True)
    if peers.leads:
        (out / "config.json").write_text(config.to_json())
    torch.manual_seed(config.seed)
    torch.set_num_threads(threads)
    tokenizer = build_tokenizer()
    if peers.leads:
        tokenizer.save(str(out / "tokenizer.json"))
    pad_id = tokenizer.token_to_id("<|pad|>")
    model = build_model(config.model, tokenizer)
    use_linear_patch_embed(model.hf)
    model.depth_head.to(memory_format=torch.channels_last)
    average = {k: v.detach().clone() for k, v in model.state_dict().items() if v.is_floating_point()}
    optimizers = build_optimizers(model, config)
    step, elapsed_s = 0, 0.0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        average, step, elapsed_s = state["average"], state["step"], state["elapsed_s"]
        print(f"resumed at step {step}, {elapsed_s / 60:.1f} min", flush=True)
    train_files = scene_files(scenes, held_out=False)
    held_out = [f for f in scene_files(scenes, held_out=True) if seed_of(f) < FIRST_TEST_SEED]
    if not train_files or not held_out:
        raise SystemExit(
            f"{scenes} holds {len(train_files)} training and {len(held_out)} held-out scenes; run make_scenes first"
        )
    grid = config.data.grid
    fixed = PairBuilder(
        held_out, tokenizer, dataclasses.replace(config.data, camera_dropout=0.0), augment=False
    )
    rng = np.random.default_rng(1)
    val_batches = [collate([fixed.sample(rng) for _ in range(8)], pad_id) for _ in range(8 * peers.leads)]
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters / 1e6:.2f}M parameters, {len(train_files)} scenes, {threads} threads", flush=True)

    builder = PairBuilder(train_files, tokenizer, config.data)
    loader = DataLoader(
        Pairs(builder, scenes, config.seed + 1000 * (step + 1) + peers.rank),
        batch_size=config.batch,
        num_workers=1,
        collate_fn=lambda s: collate(s, pad_id),
        prefetch_factor=4,
    )
    budget_s = config.minutes * 60.0
    last_save = last_val = last_log = first_s = elapsed_s
    first_step = step
    running: list[tuple[float, float]] = []
    model.train()
    began = time.monotonic() - elapsed_s
    with open(out / "metrics.jsonl", "a") as metrics:
        for batch in loader:
            elapsed_s = peers.same_clock(time.monotonic() - began)
            if elapsed_s >= budget_s:
                break
            scale = schedule(config, elapsed_s / budget_s)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = scale * group["peak_lr"]
            with torch.autocast("cpu", torch.bfloat16):
                result = forward(model, batch, grid)
            loss = config.depth_weight * result["depth_loss"] + config.text_weight * result["answer_loss"]
            if not torch.isfinite(loss):
                torch.save(batch, out / "bad_batch.pt")
                raise SystemExit(
                    f"loss is {float(loss)} at step {step}; the batch is in {out / 'bad_batch.pt'}"
                )
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            peers.average_gradients(model)
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            for optimizer in optimizers:
                optimizer.step()
            step += 1
            if not peers.leads:
                continue  # all processes hold the same weights; one averages, logs, validates and saves
            keep = min(config.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                current = model.state_dict()
                torch._foreach_lerp_(list(average.values()), [current[k] for k in average], 1.0 - keep)
            running.append((float(result["depth_loss"].detach()), float(result["answer_loss"].detach())))
            if elapsed_s - last_log > 20:
                last_log = elapsed_s
                d, a = np.mean(running, axis=0)
                running.clear()
                rate = (step - first_step) * config.batch * peers.size / (elapsed_s - first_s)
                print(
                    f"{elapsed_s / 60:6.1f} min  step {step}  depth {d:.3f}  answer {a:.3f}  {rate:.1f} pairs/s",
                    flush=True,
                )
                metrics.write(
                    json.dumps({"minutes": elapsed_s / 60, "step": step, "depth_loss": d, "answer_loss": a})
                    + "\n"
                )
                metrics.flush()
            if elapsed_s - last_val > config.validate_minutes * 60:
                last_val = elapsed_s
                figures = validate(model, val_batches, grid)
                print("   held-out " + "  ".join(f"{k} {v:.3f}" for k, v in figures.items()), flush=True)
                metrics.write(
                    json.dumps({"minutes": elapsed_s / 60, "step": step, "held_out": figures}) + "\n"
                )
                metrics.flush()
            if elapsed_s - last_save > config.checkpoint_minutes * 60:
                last_save = elapsed_s
                save_atomically(_state(model, optimizers, average, step, elapsed_s), checkpoint)
    peers.close()
    if not peers.leads:
        return
    save_atomically(_state(model, optimizers, average, step, elapsed_s), checkpoint)
    model.load_state_dict({**model.state_dict(), **average})
    figures = validate(model, val_batches, grid)
    print("final (averaged weights) " + "  ".join(f"{k} {v:.3f}" for k, v in figures.items()), flush=True)
    (out / "final.json").write_text(
        json.dumps({"step": step, "minutes": elapsed_s / 60, "held_out": figures}, indent=2)
    )


def _state(
    model: CameraAwareVLM,
    optimizers: list[torch.optim.Optimizer],
    average: dict[str, Tensor],
    step: int,
    elapsed_s: float,
) -> dict[str, Any]:
    return {
        "model": model.state_dict(),
        "optimizers": [o.state_dict() for o in optimizers],
        "average": average,
        "step": step,
        "elapsed_s": elapsed_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="tiny_cpu")
    parser.add_argument("--scenes", type=Path, required=True, help="folder written by make_scenes")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an existing run is resumed")
    parser.add_argument("--minutes", type=float, help="time budget instead of the recipe's")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    config = RECIPES[args.recipe]()
    if args.minutes is not None:
        config = dataclasses.replace(config, minutes=args.minutes)
    train(config, args.scenes, args.out, threads=args.threads)


if __name__ == "__main__":
    main()
