"""Write the three graphs as ONNX with half-precision storage; knows graphs, not training."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from spatial_mllm_core.model.bundle import FIRST_IMAGE
from spatial_mllm_training.export.graphs import DecoderGraph, LiftGraph, VisionGraph
from spatial_mllm_training.model.camera_aware import CameraAwareVLM

OPSET = 18
_SMALLEST_HALVED = 1024


def _export(module: nn.Module, args: tuple, path: Path, **options: object) -> None:
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


def export_graphs(model: CameraAwareVLM, folder: Path, *, height: int, width: int, half: bool = True) -> None:
    """Write vision.onnx, decoder.onnx and lift.onnx of a model into `folder`."""
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
        DecoderGraph(model),
        (torch.zeros(1, 5, config.hidden_size), torch.zeros(3, 1, 5, dtype=torch.int64), past),
        folder / "decoder.onnx",
        input_names=["embeddings", "positions", *[f"past_{n}" for n in names]],
        output_names=["logits", "taps", *[f"present_{n}" for n in names]],
        dynamic_shapes=({1: new}, {2: new}, [{2: cached} for _ in past]),
    )
    _export(
        LiftGraph(model, grid_h, grid_w),
        (torch.zeros(4, 1, tokens, config.hidden_size),),
        folder / "lift.onnx",
        input_names=["taps"],
        output_names=["depth_m", "confidence"],
    )
    if half:
        for name in ("vision.onnx", "decoder.onnx", "lift.onnx"):
            store_half(folder / name)


def store_half(path: Path) -> None:
    """Store large float32 initialisers as float16 followed by a Cast.

    Halves the file; the runtime folds the Cast at load, so speed and arithmetic stay float32.
    """
    model = onnx.load(str(path))
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor) if tensor.data_type == TensorProto.FLOAT else None
        if values is None or values.size < _SMALLEST_HALVED or np.abs(values).max() > 6e4:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + "_half"))
        casts.append(helper.make_node("Cast", [name + "_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    model.doc_string = ""
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del model.metadata_props[:]
    del graph.metadata_props[:]
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
