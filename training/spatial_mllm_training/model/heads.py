"""Which heads read the taps of a wrapper, and which of them tells the served depth; knows no decoder.

Two kinds: the single depth head of the first bundle (log depth, `model.dpt`), and the decoupled heads
of `supervision` for depth, rays and points. Beside them may stand the projector of the distillation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor

from spatial_mllm_training.model.dpt import DPTHead, depth_from_logits
from spatial_mllm_training.supervision.dpt import SMALL_SIZE, DPTSize
from spatial_mllm_training.supervision.heads import FeatureProjector, SpatialHeads, check_heads

SMALLEST_DEPTH_M = 1e-3
"""What is served where a head with linear output says nothing, or less than nothing."""


@dataclass(frozen=True)
class HeadsConfig:
    """What is built on the taps.

    Attributes:
        depth_features: channels of the single depth head; None = no such head. It is the one whose
            depth is served where there are both.
        tasks: decoupled heads, of depth, rays, points; () = none.
        size: of each of their decoders.
        shared_projector: one projector for the four tapped layers, else one each.
        point_activation: "inv_log" (VGGT) or "linear".
        depth_activation: "exp" (VGGT) or "linear" (metres as they come out).
        teacher_width: channels of the features that are distilled; None = no such projector.
    """

    depth_features: int | None = None
    tasks: tuple[str, ...] = ()
    size: DPTSize = SMALL_SIZE
    shared_projector: bool = False
    point_activation: str = "inv_log"
    depth_activation: str = "exp"
    teacher_width: int | None = None

    def __post_init__(self) -> None:
        check_heads(self.tasks, self.point_activation, self.depth_activation)
        for name in ("depth_features", "teacher_width"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, found {getattr(self, name)}")

    @property
    def has_depth(self) -> bool:
        """Whether a depth can be served."""
        return self.depth_features is not None or "depth" in self.tasks

    @property
    def upsampling(self) -> int:
        """Cells of the served depth per visual token and axis."""
        return DPTHead.UPSAMPLING if self.depth_features is not None else self.size.upsampling

    def single_head(self, hidden_size: int) -> DPTHead | None:
        if self.depth_features is None:
            return None
        return DPTHead(hidden_size, features=self.depth_features)

    def spatial_heads(self, hidden_size: int) -> SpatialHeads | None:
        if not self.tasks:
            return None
        return SpatialHeads(
            hidden_size,
            tasks=self.tasks,
            size=self.size,
            shared_projector=self.shared_projector,
            point_activation=self.point_activation,
            depth_activation=self.depth_activation,
        )

    def feature_projector(self, hidden_size: int) -> FeatureProjector | None:
        return None if self.teacher_width is None else FeatureProjector(hidden_size, self.teacher_width)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> HeadsConfig:
        """Inverse of `to_json`.

        Raises:
            ValueError: what is missing, unknown or of another kind.
        """
        raw = json.loads(text)
        if not isinstance(raw, dict) or not isinstance(raw.get("size"), dict):
            raise ValueError("heads are an object that holds a size")
        for kind, found in ((HeadsConfig, raw), (DPTSize, raw["size"])):
            other = {f.name for f in fields(kind)} ^ found.keys()
            if other:
                raise ValueError(f"heads lack or do not know {sorted(other)[0]!r}")
        try:
            size = DPTSize(**{**raw["size"], "channels": tuple(raw["size"]["channels"])})
            return HeadsConfig(**{**raw, "tasks": tuple(raw["tasks"]), "size": size})
        except TypeError as error:
            raise ValueError(f"heads of another kind: {error}") from None

    def apart_from(self, other: HeadsConfig) -> tuple[str, str]:
        """Where the two differ, in words of this one and of the other; two empty texts where they do not."""
        mine, yours = _flat(self), _flat(other)
        names = [name for name in mine if mine[name] != yours[name]]
        return (
            ", ".join(f"{name} {mine[name]}" for name in names),
            ", ".join(f"{name} {yours[name]}" for name in names),
        )


def served_depth(
    head: DPTHead | SpatialHeads, taps_BND: Sequence[Tensor], grid_h: int, grid_w: int
) -> tuple[Tensor, Tensor]:
    """(z-depth in metres, confidence from 1 upward) of either kind, each (B, H, W) float32."""
    if isinstance(head, SpatialHeads):
        dense = head(taps_BND, grid_h, grid_w, tasks=("depth",))["depth"]
        return dense.value[..., 0].clamp(min=SMALLEST_DEPTH_M), dense.confidence
    log_depth, confidence = depth_from_logits(head(list(taps_BND), grid_h, grid_w))
    return torch.exp(log_depth), confidence


def _flat(config: HeadsConfig) -> dict[str, object]:
    found = asdict(config)
    size = found.pop("size")
    return {**found, **{f"size.{name}": value for name, value in size.items()}}
