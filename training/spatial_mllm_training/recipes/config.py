"""The training configuration: model, data, optimiser, budget; to JSON and back. Knows no paths."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from spatial_mllm_core.model.digits import DIGITS
from spatial_mllm_training.augment import AugmentConfig
from spatial_mllm_training.data.pair_config import PairConfig
from spatial_mllm_training.data.rows_config import RowsConfig
from spatial_mllm_training.model.matcher import MatcherSize
from spatial_mllm_training.supervision import LossConfig
from spatial_mllm_training.supervision.dpt import SMALL_SIZE, DPTSize

NUMBERS = {"number_digits": DIGITS, "digit_weights": (1.0, 1.0, 0.3, 0.1)}
"""How small models write numbers: up to 99,999. An answer is right within 20 %, so its first two digits count."""


def rows_beside_pairs(size: tuple[int, int], max_tokens: int) -> RowsConfig:
    """Rows of a small model that learns from pairs, too: seen by other cameras, asked mostly as the runtime asks."""
    return RowsConfig(
        questions=6,
        max_tokens=max_tokens,
        size=size,
        served_words=0.75,
        augment=AugmentConfig(output_size=size),
    )


@dataclass(frozen=True)
class ModelConfig:
    """A small configuration of transformers' Qwen2.5-VL classes.

    Attributes:
        rope_theta: base of the decoder's rotary positions. mRoPE gives the lowest frequencies to
            the columns; with the usual 10^4 to 10^6 they turn by less than 0.04 rad over a 12-token
            row, so that a small decoder cannot tell columns apart. With 10 they turn by 1.3 to 2.8 rad.
        coordinate_code: amplitude of the places of visual tokens, see `model.coordinate_code`; 0 = none.
        clips: a later image is read together with the first one of its prompt, as the last frame of a clip
            of Qwen2.5-VL, whose patches hold two frames: its tokens see what changed.
        pointers: the coordinates of a question carry what its images show there
            (`spatial_mllm_core.model.pointing`).
        deep_pointers: and how far that is, by the model's own depth head.
        matcher: questions about several images are told how the camera moved, and what became of their coordinates
            (`spatial_mllm_core.two_view`), by matches of cells and that depth; None: they are not.
        told_digits: all this is told in the digits of answers, too (`spatial_mllm_core.model.digits`).
        copied_digits: and may be copied (`model.copy_gate`).
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
    coordinate_code: float = 0.0
    clips: bool = False
    pointers: bool = False
    deep_pointers: bool = False
    matcher: MatcherSize | None = None
    told_digits: bool = False
    copied_digits: bool = False

    def __post_init__(self) -> None:
        if self.deep_pointers and not self.pointers:
            raise ValueError("deep pointers are pointers: both are set")
        if self.matcher and not self.deep_pointers:
            raise ValueError(
                "what is matched is told with its depth: a model with a matcher has deep pointers"
            )
        if self.told_digits and not self.deep_pointers:
            raise ValueError("digits are of what is told: a model that is told digits has deep pointers")
        if self.copied_digits and not self.told_digits:
            raise ValueError("digits that are copied are told: both are set")


@dataclass(frozen=True)
class PublishedConfig:
    """A published checkpoint that is adapted; the vision tower is frozen as in all the papers.

    Attributes:
        checkpoint: name on the hub; a folder can be given on the command line instead.
        lora_rank: adapters on the decoder's projections (MultiSPA: 16); 0 trains the decoder whole.
        lora_alpha: the adapters' output is scaled by lora_alpha / lora_rank.
    """

    checkpoint: str
    family: str
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0


@dataclass(frozen=True)
class SpatialConfig:
    """Task-oriented 3D supervision (SpatialSV): which heads, how heavy, which loss.

    Attributes:
        tasks: of depth, rays, points.
        size: of each of their decoders; 8 cells per token and axis, as the truth is sampled.
        shared_projector: one projector for the four tapped layers.
    """

    tasks: tuple[str, ...] = ("depth", "rays", "points")
    weight: float = 1.0
    size: DPTSize = SMALL_SIZE
    shared_projector: bool = False
    loss: LossConfig = field(default_factory=LossConfig)


@dataclass(frozen=True)
class DistillationConfig:
    """A teacher's features as a second target: SpatialSV's L_distill (facts 3.1), as in 3DRS (3.5).

    weight * (1 - mean cos(phi(v), avgpool(f))): v are the decoder's last hidden states at the visual
    tokens, f the teacher's last features of the same image, phi a projector that only training has. The
    served model never meets the teacher. CA-MLLM's "geometry prior" is something else (facts 1.2): there
    the features of a frozen depth network are added to the visual tokens, also when the model is used.

    Attributes:
        teacher: of `teachers.TEACHERS`; where its weights lie is said beside the recipe.
        fills_truth: rows without any true depth learn the teacher's depth, rays and points.
    """

    teacher: str = "specialist"
    weight: float = 1.0
    fills_truth: bool = False

    def __post_init__(self) -> None:
        if self.weight < 0 or (self.weight == 0 and not self.fills_truth):
            raise ValueError(f"a teacher's features weigh more than 0, found {self.weight:g}")


@dataclass(frozen=True)
class MixConfig:
    """Relative number of samples of each source: pairs of scene files, rows, conversations, drills."""

    pairs: float = 1.0
    rows: float = 0.0
    general: float = 0.0
    drills: float = 0.0

    def __post_init__(self) -> None:
        each = (self.pairs, self.rows, self.general, self.drills)
        if min(each) < 0 or sum(each) <= 0:
            raise ValueError("the weights of a mix are not negative, and one is positive")


@dataclass(frozen=True)
class TrainConfig:
    """One training run; the learning rate follows the share of the budget that has passed.

    Attributes:
        model: sizes of a small model; not looked at when `published` is given.
        steps: the budget in optimiser steps; None: `minutes` of wall time, which no run repeats exactly.
        batch: samples per process and forward pass.  accumulate: passes per optimiser step.
        optimizer: "muon" (matrices; AdamW for the rest) or "adamw".
        learning_rate: AdamW's; of everything but the decoder where `decoder_learning_rate` is given.
        matrix_learning_rate: Muon's.
        frozen_vision: of a small model, whose tower and projector then stay as they are.
        match_weight: of what the matcher learns.  match_pairs: of a batch that it learns from; None: all. It stays as
            it is where the weight is 0.
        precision: "bf16" (autocast) or "fp32".
        checkpointing: keep only the inputs of decoder layers and compute the rest twice.
        ema: decay of averaged weights, which are validated and exported; 0 = none.
        log_steps: losses are averaged over so many steps for the log.
        checkpoint_steps: instead of `checkpoint_minutes`.  validate_steps: likewise.
        keep_checkpoints: how many are left on disk.
        workers: processes that prepare samples.
        number_digits: of the metric numbers of a small model's answers, which its runtime then reads as medians
            (`spatial_mllm_core.model.numbers`); 0: numbers as published.
        digit_weights: of digits in the loss, from the first one on that is not 0; the last weight is that of all that
            follow, which are noise that no model foretells, and most of the loss; (): 1 each.
        named_letters: a point that the question names is answered by its letter, which a small model learns in a tenth
            of the questions that copying its coordinate takes.
        choice_weight: in the loss, of the token that tells an answer from the others that could be chosen (letters,
            directions, named points): one of many tokens whose others are copied.
    """

    name: str
    model: ModelConfig = field(default_factory=ModelConfig)
    published: PublishedConfig | None = None
    data: PairConfig = field(default_factory=PairConfig)
    rows: RowsConfig = field(default_factory=RowsConfig)
    mix: MixConfig = field(default_factory=MixConfig)
    spatial: SpatialConfig | None = None
    distillation: DistillationConfig | None = None
    minutes: float = 90.0
    steps: int | None = None
    batch: int = 4
    accumulate: int = 1
    optimizer: str = "muon"
    learning_rate: float = 1.0e-3
    decoder_learning_rate: float | None = None
    matrix_learning_rate: float = 3.0e-3
    warmup_share: float = 0.03
    final_share: float = 0.02
    weight_decay: float = 0.05
    clip: float = 1.0
    depth_weight: float = 1.0
    text_weight: float = 1.0
    frozen_vision: bool = False
    match_weight: float = 0.0
    match_pairs: int | None = None
    model_camera_dropout: float = 0.0
    ema: float = 0.999
    precision: str = "bf16"
    checkpointing: bool = False
    seed: int = 0
    log_steps: int = 50
    checkpoint_minutes: float = 4.0
    checkpoint_steps: int | None = None
    validate_minutes: float = 10.0
    validate_steps: int | None = None
    validate_batches: int = 8
    keep_checkpoints: int = 2
    workers: int = 1
    number_digits: int = 0
    digit_weights: tuple[float, ...] = ()
    named_letters: bool = False
    choice_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.precision not in ("bf16", "fp32"):
            raise ValueError(f"precision is bf16 or fp32, found '{self.precision}'")
        if self.number_digits and self.published is not None:
            raise ValueError("a published checkpoint spells numbers as published: number_digits is 0")
        if self.published is not None and (self.named_letters or self.choice_weight != 1.0):
            raise ValueError(
                "a published checkpoint answers as published: no named_letters, choice_weight is 1"
            )
        if len(self.digit_weights) > self.number_digits:
            raise ValueError(
                f"{self.number_digits} digits have no {len(self.digit_weights)} weights: number_digits or fewer"
            )
        if self.model.told_digits and self.number_digits != DIGITS:
            raise ValueError(f"digits that are told are of numbers of {DIGITS}: number_digits is {DIGITS}")
        if self.model.deep_pointers and self.published is None and self.text_weight and not self.depth_weight:
            raise ValueError("deep pointers tell what the depth head says: its weight is more than 0")
        if self.data.told_questions and (self.published is not None or self.model.matcher is None):
            raise ValueError("what is told of two images is read by a small model with a matcher alone")
        if self.match_weight and (self.published is not None or self.model.matcher is None):
            raise ValueError("only a small model with a matcher learns to match: match_weight is 0")
        if self.mix.drills and not self.model.deep_pointers:
            raise ValueError("drills tell depths at pointers: the model has deep pointers")
        if self.optimizer not in ("muon", "adamw"):
            raise ValueError(f"the optimizer is muon or adamw, found '{self.optimizer}'")

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @staticmethod
    def from_json(text: str) -> TrainConfig:
        """Inverse of `to_json`; values that a file lacks are the defaults."""
        return _read(TrainConfig, json.loads(text))


def _read(wanted: Any, value: Any) -> Any:
    """`value` from JSON as the type `wanted`: nested dataclasses, tuples and None."""
    if get_origin(wanted) in (Union, UnionType):
        if value is None:
            return None
        (wanted,) = (a for a in get_args(wanted) if a is not NoneType)
    if is_dataclass(wanted):
        types = get_type_hints(wanted)
        known = {f.name for f in fields(wanted)}
        return wanted(**{k: _read(types[k], v) for k, v in value.items() if k in known})
    if get_origin(wanted) is tuple:
        inner = get_args(wanted)
        each = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_read(t, v) for t, v in zip(each, value, strict=True))
    return value
