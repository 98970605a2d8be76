"""What is minimised: answers, the served depth head, the 3D heads, a teacher's features and matches, where asked.

A module, so that data-parallel wrappers see one forward pass. Knows no data files and no optimiser.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from spatial_mllm_core.tasks.base import COORDINATE_TOLERANCE
from spatial_mllm_training.data.packing import IGNORE
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.model.dpt import depth_from_logits
from spatial_mllm_training.model.heads import served_depth
from spatial_mllm_training.model.losses import answer_loss, depth_loss
from spatial_mllm_training.model.matcher import matching_loss
from spatial_mllm_training.model.preprocess import normalised
from spatial_mllm_training.recipes.config import TrainConfig
from spatial_mllm_training.supervision import LossConfig, SpatialHeads, dense_losses
from spatial_mllm_training.supervision.terms import distillation_term
from spatial_mllm_training.training_loop.batch import Batch
from spatial_mllm_training.training_loop.prompts import by_group, decoder_positions, embedded


@dataclass(frozen=True)
class Prediction:
    """What the model says about a batch.

    Attributes:
        logits, targets, weights: (M, V), (M,) and (M,) at the answer tokens.
        taps: per group of images four (n, N, D).
        depths: per group (log z-depth, confidence), each (n, h, w); () where no depth head is trained.
        last: per group (n, N, D), the last hidden states; () where no teacher is followed.
        matched: (M,) bool, of the cells that a later image shows again, which are matched rightly; None without truth.
    """

    logits: Tensor
    targets: Tensor
    weights: Tensor
    taps: tuple[list[Tensor], ...]
    depths: tuple[tuple[Tensor, Tensor], ...]
    last: tuple[Tensor, ...] = ()
    matched: Tensor | None = None


class Objective(nn.Module):
    """Losses of a batch.

    Attributes:
        depth_weight, text_weight, spatial_weight, distillation_weight, match_weight: 0 leaves a part out, with its
            cost.
        match_pairs: of a batch, that matching is learnt from; None: all.
        spatial_heads: the 3D heads of the model, or None.
    """

    def __init__(
        self,
        model: CameraAwareVLM,
        *,
        depth_weight: float = 1.0,
        text_weight: float = 1.0,
        spatial_weight: float = 0.0,
        spatial_loss: LossConfig | None = None,
        distillation_weight: float = 0.0,
        match_weight: float = 0.0,
        match_pairs: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.depth_weight, self.text_weight = depth_weight, text_weight
        self.spatial_weight, self.distillation_weight = spatial_weight, distillation_weight
        self.spatial_loss = spatial_loss or LossConfig()
        self.match_weight, self.match_pairs = match_weight, match_pairs

    @classmethod
    def of(cls, config: TrainConfig, model: CameraAwareVLM) -> Objective:
        """What a recipe minimises."""
        spatial, distillation = config.spatial, config.distillation
        return cls(
            model,
            depth_weight=config.depth_weight,
            text_weight=config.text_weight,
            spatial_weight=spatial.weight if spatial else 0.0,
            spatial_loss=spatial.loss if spatial else None,
            distillation_weight=distillation.weight if distillation else 0.0,
            match_weight=config.match_weight,
            match_pairs=config.match_pairs,
        )

    @property
    def spatial_heads(self) -> SpatialHeads | None:
        heads = getattr(self.model, "spatial_heads", None)
        return heads if self.spatial_weight else None

    def predict(self, batch: Batch) -> Prediction:
        model = self.model
        (embeds, numbers), mask = embedded(model, batch), model.image_mask(batch.ids)
        hidden, taps = model.decode(embeds, decoder_positions(model, batch.positions), batch.mask)
        asked = batch.labels != IGNORE
        grouped = by_group([tap[mask] for tap in taps], batch.groups)
        return Prediction(
            logits=self._logits(hidden[asked], numbers[asked], batch.places[asked]),
            targets=batch.labels[asked],
            weights=batch.weights[asked],
            taps=tuple(grouped),
            depths=tuple(
                depth_from_logits(model.depth_head(t, *g.grid.tolist()))
                for t, g in zip(grouped, batch.groups, strict=True)
            )
            if self.depth_weight
            else (),
            last=tuple(group[0] for group in by_group([hidden[mask]], batch.groups))
            if self.distillation_weight
            else (),
        )

    def _logits(self, hidden_MD: Tensor, numbers_MC: Tensor, places_M: Tensor) -> Tensor:
        """(M, V) of the next token."""
        scores, gate = self.model.scores(hidden_MD), self.model.copy_gate
        return scores if gate is None else gate.words(scores, numbers_MC, places_M)

    def forward(self, batch: Batch, *, only_predict: bool = False) -> dict[str, Tensor] | Prediction:
        """The "loss" and its parts; a part that a batch has no truth for is 0. Or what `predict` gives.

        Both pass through here, because sharded weights are gathered around `forward` alone.
        """
        if only_predict:
            out = replace(self.predict(batch), matched=self._matched(batch))
            return out if out.depths else replace(out, depths=self._depths_of_3d_heads(out, batch))
        others = (self.text_weight, self.depth_weight, self.spatial_weight, self.distillation_weight)
        if not any(others):  # nothing is read
            matching = self.match_weight * self._matching(batch)
            return {"loss": matching, "match_loss": matching.detach()}
        out = self.predict(batch)
        nothing = out.logits.sum() * 0.0
        answer = answer_loss(out.logits, out.targets, out.weights) if len(out.targets) else nothing
        losses = {"answer_loss": answer}
        total = self.text_weight * answer
        if self.depth_weight:
            losses["depth_loss"] = self._depth(out, batch) + nothing
            total = total + self.depth_weight * losses["depth_loss"]
        if self.spatial_heads is not None:
            parts = self._spatial(out, batch)
            losses |= {f"spatial/{name}": value for name, value in parts.items()}
            total = total + self.spatial_weight * parts.get("total", nothing)
        if self.distillation_weight:
            losses["distillation_loss"] = self._distillation(out, batch) + nothing
            total = total + self.distillation_weight * losses["distillation_loss"]
        if self.match_weight:
            losses["match_loss"] = self._matching(batch)
            total = total + self.match_weight * losses["match_loss"]
        return {"loss": total, **{name: value.detach() for name, value in losses.items()}}

    def _depths_of_3d_heads(self, out: Prediction, batch: Batch) -> tuple[tuple[Tensor, Tensor], ...]:
        """As `Prediction.depths`, where only the 3D heads are trained to tell depth."""
        heads = self.spatial_heads
        if heads is None or "depth" not in heads.decoders:
            return ()
        served = [
            served_depth(heads, taps, *group.grid.tolist())
            for taps, group in zip(out.taps, batch.groups, strict=True)
        ]
        return tuple((torch.log(depth_m), confidence) for depth_m, confidence in served)

    def _depth(self, out: Prediction, batch: Batch) -> Tensor:
        total = out.logits.new_zeros((), dtype=torch.float32)
        images = sum(len(g.place) for g in batch.groups)
        for (log_depth, confidence), group in zip(out.depths, batch.groups, strict=True):
            # a logarithm of metres learns nothing from a depth that is known up to a factor
            known = torch.isfinite(group.depth) & group.is_metric[group.row][:, None, None]
            truth = torch.where(known, group.depth, 0.0)
            total = total + depth_loss(log_depth, confidence, truth) * (len(group.place) / images)
        return total

    def _spatial(self, out: Prediction, batch: Batch) -> dict[str, Tensor]:
        assert self.spatial_heads is not None
        sums: dict[str, Tensor] = {}
        images = sum(len(g.place) for g in batch.groups)
        for taps, group in zip(out.taps, batch.groups, strict=True):
            maps = self.spatial_heads(taps, *group.grid.tolist())
            share = len(group.place) / images
            for name, value in dense_losses(maps, group.targets(), self.spatial_loss).items():
                sums[name] = sums.get(name, 0.0) + share * value
        return sums

    def _matching(self, batch: Batch) -> Tensor:
        """`matching_loss`, each pair of images alike."""
        assert self.model.matcher is not None
        total = self.model.matcher.log_sharpness * 0.0
        found = list(self._pairs(batch, self.match_pairs))
        pairs = sum(len(truth) for *_, truth, _ in found)
        for first, later, truth, grid in found:
            total = total + matching_loss(first, later, truth, grid) * (len(truth) / pairs)
        return total

    def _matched(self, batch: Batch) -> Tensor | None:
        """As `Prediction.matched`: right is within 5 % of the image's width and height."""
        right = []
        for first, later, truth, (rows, columns) in self._pairs(batch, None):
            seen = truth.isfinite().all(-1)
            best = (first @ later.transpose(1, 2)).argmax(-1)[seen]
            x, y = (best % columns + 0.5) / columns, torch.div(best, columns, rounding_mode="floor")
            off = torch.stack([x, (y + 0.5) / rows], dim=-1) - truth[seen][:, :2]
            right.append(torch.linalg.vector_norm(off, dim=-1) <= COORDINATE_TOLERANCE)
        return torch.cat(right) if right else None

    def _pairs(
        self, batch: Batch, most: int | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, tuple[int, int]]]:
        """Per group: features of first images and of later ones, their `match_map` (n, N, 3), and the grid of cells."""
        model = self.model
        for group in batch.groups:
            if group.match_map is None or model.matcher is None:
                continue
            later = group.match_map.isfinite().all(-1).flatten(1).any(1).nonzero()[:, 0][:most]
            if not len(later):
                continue
            shown = torch.cat([group.pixels[group.first[later]], group.pixels[later]]).permute(0, 3, 1, 2)
            features = model.matcher(normalised(model.processing, shown))
            rows, columns = group.match_map.shape[1:3]
            yield (*features.chunk(2), group.match_map[later].flatten(1, 2), (rows, columns))
            most = None if most is None else most - len(later)

    def _distillation(self, out: Prediction, batch: Batch) -> Tensor:
        """1 - mean cosine over the images that a teacher looked at, each image alike; 0 without any."""
        assert self.model.feature_projector is not None
        total = out.logits.new_zeros((), dtype=torch.float32)
        taught = sum(g.is_taught.sum() for g in batch.groups if g.is_taught is not None)
        for last, group in zip(out.last, batch.groups, strict=True):
            if group.features is None or group.is_taught is None:
                continue
            student = self.model.feature_projector(last)
            grid = group.grid.tolist()
            term = 1.0 + distillation_term(student, group.features, *grid, has_teacher_B=group.is_taught)
            total = total + term * group.is_taught.sum() / taught.clamp(min=1)
        return total


@torch.no_grad()
def figures(objective: nn.Module, batches: list[Batch]) -> dict[str, float]:
    """Depth AbsRel and delta1, answer loss, token accuracy and matches, each the mean over batches that have it.

    Args:
        objective: an `Objective`, wrapped or not.
    """
    objective.eval()
    found: dict[str, list[float]] = {}

    def add(name: str, value: Tensor) -> None:
        found.setdefault(name, []).append(float(value))

    for batch in batches:
        out = objective(batch, only_predict=True)
        if len(out.targets):
            add("answer_loss", answer_loss(out.logits, out.targets))
            add("token_accuracy", (out.logits.argmax(-1) == out.targets).float().mean())
        if out.matched is not None:
            add("matched", out.matched.float().mean())
        ratios = []
        for (log_depth, _), group in zip(out.depths, batch.groups, strict=bool(out.depths)):
            valid = (
                torch.isfinite(group.depth) & (group.depth > 0) & group.is_metric[group.row][:, None, None]
            )
            ratios.append(torch.exp(log_depth[valid]) / group.depth[valid])
        if ratios and len(ratio := torch.cat(ratios)):
            add("abs_rel", (ratio - 1).abs().mean())
            add("delta1", (torch.maximum(ratio, 1 / ratio) < 1.25).float().mean())
    objective.train()
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}
