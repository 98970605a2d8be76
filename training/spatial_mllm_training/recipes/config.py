"""The training configuration: sizes of a small Qwen2.5-VL, data, optimiser, time budget."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from spatial_mllm_training.data.pairs import PairConfig


@dataclass(frozen=True)
class ModelConfig:
    """A small configuration of transformers' Qwen2.5-VL classes.

    Attributes:
        rope_theta: base of the decoder's rotary positions. mRoPE gives the lowest frequencies to
            the columns; with the usual 10^4 to 10^6 they turn by less than 0.04 rad over a 12-token
            row, so that a small decoder cannot tell columns apart. With 10 they turn by 1.3 to 2.8 rad.
    """

    family: str = "qwen2_5_vl"
    hidden: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 768
    vision_hidden: int = 256
    vision_layers: int = 4
    vision_heads: int = 4
    vision_mlp: int = 768
    patch: int = 16
    merge: int = 1
    tap_layers: tuple[int, int, int, int] = (2, 3, 4, 5)
    head_features: int = 64
    rope_theta: float = 10.0


@dataclass(frozen=True)
class TrainConfig:
    """One training run; the learning rate follows the share of `minutes` that has passed."""

    name: str
    model: ModelConfig = field(default_factory=ModelConfig)
    data: PairConfig = field(default_factory=PairConfig)
    minutes: float = 90.0
    batch: int = 4
    learning_rate: float = 1.0e-3
    matrix_learning_rate: float = 3.0e-3
    warmup_share: float = 0.03
    weight_decay: float = 0.05
    clip: float = 1.0
    depth_weight: float = 1.0
    text_weight: float = 1.0
    ema: float = 0.999
    seed: int = 0
    checkpoint_minutes: float = 4.0
    validate_minutes: float = 10.0

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @staticmethod
    def from_json(text: str) -> TrainConfig:
        raw: dict[str, Any] = json.loads(text)
        raw["model"]["tap_layers"] = tuple(raw["model"]["tap_layers"])
        return TrainConfig(**{**raw, "model": ModelConfig(**raw["model"]), "data": PairConfig(**raw["data"])})
