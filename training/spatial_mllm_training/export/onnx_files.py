"""Write the graphs of a bundle as ONNX; knows graphs, not training."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from spatial_mllm_core.model.bundle import FIRST_IMAGE, MATCHER
from spatial_mllm_training.export.graphs import DecoderGraph, LiftGraph, MatcherGraph, VisionGraph
from spatial_mllm_training.model.bundle_weights import GRAPHS, mark_weights, store_small
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.model.dot_finder import HEIGHT, WIDTH, DotFinder

OPSET = 18


def _export(model: nn.Module, module: nn.Module, args: tuple, path: Path, **options: object) -> None:
    """Write a part of a model as a graph whose weights keep their names."""
    module.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            args,
            str(path),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
            **options,
        )
    mark_weights(path, module, model)


def export_graphs(
    model: CameraAwareVLM, folder: Path, *, height: int, width: int, small: bool = True
) -> None:
    """Write vision.onnx, decoder.onnx and lift.onnx of a model, and matcher.onnx if it has one, into `folder`.

    Args:
        small: weights are stored with fewer bits, see `bundle_weights.store_small`.
    """
    grid_h, grid_w = model.family.grid(model.hf, height, width)
    tokens = grid_h * grid_w
    config = model.decoder_config
    image = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    vision: dict[str, torch.Tensor] = {
        "image": image,
        "rays": torch.zeros(1, tokens, 4),
        "has_camera": torch.tensor([True]),
        **({FIRST_IMAGE: image.clone()} if model.clips else {}),
    }
    _export(
        model,
        VisionGraph(model, height, width),
        tuple(vision.values()),
        folder / "vision.onnx",
        input_names=list(vision),
        output_names=["visual_tokens"],
    )
    head_dim = config.hidden_size // config.num_attention_heads
    past = [
        torch.zeros(1, config.num_key_value_heads, 7, head_dim) for _ in range(2 * config.num_hidden_layers)
    ]
    names = [f"{kind}_{i}" for i in range(config.num_hidden_layers) for kind in ("key", "value")]
    new = torch.export.Dim("new", min=1, max=4096)
    cached = torch.export.Dim("cached", min=0, max=4096)
    _export(
        model,
        DecoderGraph(model),
        (torch.zeros(1, 5, config.hidden_size), torch.zeros(3, 1, 5, dtype=torch.int64), past),
        folder / "decoder.onnx",
        input_names=["embeddings", "positions", *[f"past_{n}" for n in names]],
        output_names=["logits", "taps", *[f"present_{n}" for n in names]],
        dynamic_shapes=({1: new}, {2: new}, [{2: cached} for _ in past]),
    )
    _export(
        model,
        LiftGraph(model, grid_h, grid_w),
        (torch.zeros(4, 1, tokens, config.hidden_size),),
        folder / "lift.onnx",
        input_names=["taps"],
        output_names=["depth_m", "confidence"],
    )
    if model.matcher is not None:
        _export(
            model,
            MatcherGraph(model.matcher, height, width),
            (image,),
            folder / MATCHER,
            input_names=["image"],
            output_names=["features"],
        )
    if small:
        names = {name for name, _ in model.named_parameters()}
        for file in GRAPHS:
            if (folder / file).exists():
                store_small(folder / file, names)


def export_dots(finder: DotFinder, path: Path) -> None:
    """Write the graph of a finder of dots, its weights with fewer bits."""
    image = torch.zeros(1, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    _export(finder, finder, (image,), path, input_names=["image"], output_names=["scores"])
    store_small(path, {name for name, _ in finder.named_parameters()})
