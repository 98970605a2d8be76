"""What a recipe needs of a card, computed on tensors without memory; `train --plan` prints it.

    weights      2 B per frozen parameter in bf16 (4 B in fp32), 4 B per trained one
    gradients    4 B per trained parameter
    optimizer    8 B per trained parameter (AdamW's two moments; Muon keeps one: 4 B per matrix)
    average      4 B per trained parameter where a recipe averages
    activations  an estimate, per sequence token T, layer L, widths D and F, heads h of d, k of them for keys:
                 kept      2 B x T x D x (L + 1)                      inputs of the layers, with checkpointing
                 a layer   2 B x T x (8 D + 3 F + 2 (h + k) d)        once with checkpointing, else times L
                 mask      3 B x B x S^2                              bool, and as a bias of the attention
                 answers   10 B x A x V                               logits in bf16 and fp32, and their gradient
                 heads     4 B x cells x 12 x features                per head and image, at 8 x 8 cells per token
                 vision    2 B x patches x (8 D_v + 3 F_v)            one layer; the frozen tower keeps none
                 matches   16 B x pairs x cells^2                     logits of both ways and their gradients

Fragmentation and the allocator's reserve come on top: a tenth is added in `advised`. Sharded over n cards
(`training/accelerate/fsdp.yaml`), weights, gradients and optimizer are a part of 1/n, but on every card stand
whole what is outside of the decoder's layers, with its gradients, and two layers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.data.tokenizer import build_tokenizer
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.model.families import FAMILIES
from spatial_mllm_training.recipes.config import TrainConfig
from spatial_mllm_training.recipes.published_sizes import stock_config
from spatial_mllm_training.training_loop import adapting
from spatial_mllm_training.training_loop.optimizers import build_optimizers
from spatial_mllm_training.training_loop.setup import heads_of
from spatial_mllm_training.training_loop.small_model import build_model

_GIB = 2**30


@dataclass(frozen=True)
class SampleShape:
    """What a sample is taken to be: images of a size, words around them, and answer tokens."""

    images: int = 2
    width: int = 640
    height: int = 480
    text_tokens: int = 900
    answer_tokens: int = 150


@dataclass(frozen=True)
class Plan:
    """Parameters by part and bytes by use; `bytes` has the keys of the module's table.

    Attributes:
        gathered: bytes that stand whole on every card where the rest is sharded.
        tokens: of a sample.
    """

    trained: dict[str, int]
    frozen: dict[str, int]
    bytes: dict[str, int]
    gathered: int
    tokens: int

    @property
    def advised_gib(self) -> float:
        """Of the one card that holds everything."""
        return 1.1 * sum(self.bytes.values()) / _GIB

    def sharded_gib(self, cards: int) -> float:
        """Advised for each of several cards."""
        activations = self.bytes["activations"]
        shard = (sum(self.bytes.values()) - activations) / cards
        return 1.1 * (shard + self.gathered + activations) / _GIB

    def text(self) -> str:
        table = [("part", "trained", "frozen")]
        table += [
            (part, f"{self.trained.get(part, 0):,}", f"{self.frozen.get(part, 0):,}")
            for part in sorted(self.trained.keys() | self.frozen.keys())
        ]
        table.append(("all", f"{sum(self.trained.values()):,}", f"{sum(self.frozen.values()):,}"))
        lines = [f"{part:<18} {trained:>14} {frozen:>14}" for part, trained, frozen in table]
        lines += [f"{name:<18} {size / _GIB:>10.2f} GiB" for name, size in self.bytes.items()]
        advised = f"{self.advised_gib:>10.1f} GiB on one card, {self.tokens} tokens a sample"
        lines.append(f"{'with a tenth more':<18} {advised}")
        lines += [f"{f'sharded over {n}':<18} {self.sharded_gib(n):>10.1f} GiB on each" for n in (2, 8)]
        return "\n".join(lines + ["", *(__doc__ or "").splitlines()[2:]])


def plan(config: TrainConfig, shape: SampleShape | None = None, checkpoint: Path | None = None) -> Plan:
    """Plan one process of a recipe; no weight is read or made.

    Raises:
        SpatialError: MODEL_MISSING for a published model whose sizes are not known here.
    """
    shape = shape or SampleShape()
    model = _on_meta(config, checkpoint)
    trained, frozen = _by_part(model, trained=True), _by_part(model, trained=False)
    sizes = parameter_bytes(model, config)
    activations, tokens = _activations(model, config, shape)
    return Plan(trained, frozen, {**sizes, "activations": activations}, _gathered(model), tokens)


def parameter_bytes(model: CameraAwareVLM, config: TrainConfig) -> dict[str, int]:
    """Bytes of weights, gradients, optimiser and average, from the parameters as they are."""
    parameters = list(model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    moments = 0
    for optimizer in build_optimizers(model, config):
        each = 1 if isinstance(optimizer, torch.optim.Muon) else 2
        moments += each * sum(_size(p) for group in optimizer.param_groups for p in group["params"])
    return {
        "weights": sum(_size(p) for p in parameters),
        "gradients": sum(_size(p) for p in trained),
        "optimizer": moments,
        "average": sum(_size(p) for p in trained) if config.ema else 0,
    }


def _gathered(model: CameraAwareVLM) -> int:
    """Bytes of what no card shards while it computes: see `training_loop.placing`."""
    layers = list(model.family.decoder(model.hf).layers)
    sharded = {id(p) for layer in layers for p in layer.parameters()}
    whole = [p for p in model.parameters() if id(p) not in sharded]
    two_layers = 2 * sum(_size(p) for p in layers[0].parameters())
    return sum(_size(p) * (2 if p.requires_grad else 1) for p in whole) + two_layers


def _size(parameter: torch.Tensor) -> int:
    return parameter.numel() * parameter.element_size()


def _on_meta(config: TrainConfig, checkpoint: Path | None) -> CameraAwareVLM:
    if config.published is None:
        return build_model(config.model, build_tokenizer(), heads=heads_of(config))
    stock = _stock_config(config.published.checkpoint, checkpoint)
    family = FAMILIES[config.published.family]
    with torch.device("meta"):
        hf = family.stock_class()(stock)
        if config.precision == "bf16":
            hf = hf.to(torch.bfloat16)
        model = CameraAwareVLM(hf, family=family.name, heads=heads_of(config))
        adapting.adapt(model, config.published)
    return model


def _stock_config(name: str, checkpoint: Path | None) -> Any:
    if checkpoint is not None:
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(checkpoint)
        except (OSError, ValueError) as error:
            raise SpatialError(
                ErrorCode.MODEL_MISSING, f"no configuration of a model at '{checkpoint}': {error}"
            ) from None
    try:
        return stock_config(name)
    except KeyError:
        raise SpatialError(
            ErrorCode.MODEL_MISSING, f"the sizes of '{name}' are not known here: give --checkpoint FOLDER"
        ) from None


def _by_part(model: CameraAwareVLM, *, trained: bool) -> dict[str, int]:
    """Parameters by part of the model, each counted once."""
    owners = {
        "projector": model.family.projector(model.hf),
        "vision": model.family.vision(model.hf),
        "decoder": model.family.decoder(model.hf),
    }
    of = {}
    for part, module in owners.items():
        for p in module.parameters():
            of.setdefault(id(p), part)
    counts: Counter[str] = Counter()
    for name, p in model.named_parameters():
        if p.requires_grad == trained:
            part = "LoRA" if ".lora_" in name else of.get(id(p)) or name.removeprefix("hf.").split(".")[0]
            counts[part] += p.numel()
    return dict(counts)


def _activations(model: CameraAwareVLM, config: TrainConfig, shape: SampleShape) -> tuple[int, int]:
    """(bytes, tokens of a sample) by the module's formula."""
    if config.published is None:
        width, height = config.data.width, config.data.height
    else:
        width, height = config.rows.size or (shape.width, shape.height)
    framing = model.framing(width, height)
    grid = framing.grid_width * framing.grid_height
    decoder, vision = model.decoder_config, model.hf.config.vision_config
    tokens = shape.images * framing.token_count + shape.text_tokens
    batch, all_tokens = config.batch, config.batch * tokens
    head = decoder.hidden_size // decoder.num_attention_heads
    heads = 2 * (decoder.num_attention_heads + decoder.num_key_value_heads) * head
    layer = 2 * all_tokens * (8 * decoder.hidden_size + 3 * decoder.intermediate_size + heads)
    kept = 2 * all_tokens * decoder.hidden_size * (decoder.num_hidden_layers + 1)
    decoding = kept + layer if config.checkpointing else kept + layer * decoder.num_hidden_layers
    patch = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
    patches = batch * shape.images * framing.input_width * framing.input_height // patch**2
    seeing = 2 * patches * (8 * vision.hidden_size + 3 * vision.intermediate_size)
    if config.published is None:  # a tower that is trained keeps every layer
        seeing *= config.model.vision_layers
    outputs = len(config.spatial.tasks) if config.spatial else 0
    cells = batch * shape.images * grid * 64
    dense = 4 * cells * 12 * model.head_features * (outputs + bool(config.depth_weight))
    answers = 10 * batch * shape.answer_tokens * decoder.vocab_size
    matches = 0
    if config.match_weight and config.model.matcher:
        rows, columns = config.model.matcher.grid(height, width)
        matches = 16 * min(batch, config.match_pairs or batch) * (rows * columns) ** 2
    return decoding + 3 * batch * tokens**2 + answers + dense + seeing + matches, tokens
