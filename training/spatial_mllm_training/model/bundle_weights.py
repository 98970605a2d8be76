"""The weights in the graph files of a bundle: stored small, and under their names, so that training can go on.

Exporters rename and transpose weights; here each is marked, written with fewer bits, and found again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from spatial_mllm_core.errors import ErrorCode, SpatialError, one_line
from spatial_mllm_core.model import embedding
from spatial_mllm_core.model.bundle import MATCHER, Bundle
from spatial_mllm_training.model import small_weights

GRAPHS = ("vision.onnx", "decoder.onnx", "lift.onnx", MATCHER)
PRECISION = f"float32 arithmetic, weights stored with {small_weights.BITS} bits and the word table with 8"
"""Of what `store_small` writes."""
_TRANSPOSED = "^T"
_HALF = "_half"
"""Ends the names of tensors with 16 bits."""
_OLDER = ("_planes", "_int8")
"""End the names of weights in bundles before 0.6, which are read no more."""
_SMALLEST_HALVED, _SMALLEST_QUANTISED = 1024, 4096


def mark_weights(path: Path, graph: nn.Module, model: nn.Module) -> None:
    """Give the initialisers of an exported graph the names that their weights have in the model.

    Equal tensors, which the exporter merges, and zeros, which it leaves out, stand there again under their own names.

    Args:
        graph: the module that was exported; its parameters are some of the model's own.
    """
    exported = onnx.load(str(path))
    name_of = {id(p): name for name, p in model.named_parameters()}
    known = {
        name: name_of[id(p)] for name, p in graph.named_parameters(remove_duplicate=False) if id(p) in name_of
    }
    values: dict[tuple[tuple[int, ...], bytes], list[str]] = defaultdict(list)
    for p in graph.parameters():
        if id(p) in name_of and p.ndim == 2:
            values[_shaped(p.detach().numpy().T)].append(name_of[id(p)] + _TRANSPOSED)
    renamed = {}
    for tensor in exported.graph.initializer:
        new = known.get(tensor.name)
        if new is None and tensor.data_type == TensorProto.FLOAT:
            equal = values.get(_shaped(numpy_helper.to_array(tensor)))
            new = equal.pop(0) if equal else None
        if new is not None:
            renamed[tensor.name] = tensor.name = new
    for node in exported.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
    marked = {name.removesuffix(_TRANSPOSED) for name in renamed.values()}
    arrays = map(numpy_helper.to_array, exported.graph.initializer)
    there = {shaped for array in arrays for shaped in (_shaped(array), _shaped(array.T))}
    layers = {name.rpartition(".")[0] for name in marked}
    for p in graph.parameters():
        name, array = name_of.get(id(p)), p.detach().numpy()
        if name is None or name in marked:
            continue
        # merged with an equal one, or left out as the zeros of a layer that is there; others have no part in the graph
        if _shaped(array) in there or name.rpartition(".")[0] in layers:
            exported.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(exported, str(path))


def _shaped(array: NDArray) -> tuple[tuple[int, ...], bytes]:
    """What equal arrays have in common."""
    return array.shape, array.tobytes()


def store_small(path: Path, names: Collection[str]) -> None:
    """Store weights that are matrices or kernels with few bits (`small_weights`), other large tensors as float16.

    A graph file takes a sixth of the bytes. What decodes them is folded by the runtime at load, so that speed and
    arithmetic stay those of float32.

    Args:
        names: of the model's weights, as `mark_weights` gave them; other tables are what training computes exactly.
    """
    model = onnx.load(str(path))
    graph = model.graph
    decoding: list[onnx.NodeProto] = []
    small: list[onnx.TensorProto] = []
    kept: list[onnx.TensorProto] = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor) if tensor.data_type == TensorProto.FLOAT else None
        if values is None or values.size < _SMALLEST_HALVED or np.abs(values).max() > 6e4:
            kept.append(tensor)
            continue
        name = tensor.name
        is_weight = name.removesuffix(_TRANSPOSED) in names and values.ndim >= 2
        if is_weight and values.size >= _SMALLEST_QUANTISED and small_weights.fits(values):
            small += small_weights.tensors(name, values)
            decoding += small_weights.decoding(name)
        else:
            kept.append(numpy_helper.from_array(values.astype(np.float16), name + _HALF))
            decoding.append(helper.make_node("Cast", [name + _HALF], [name], to=TensorProto.FLOAT))
    if small:
        small += small_weights.shared_tensors()
    del graph.initializer[:]
    graph.initializer.extend([*kept, *small])
    nodes = [*decoding, *graph.node]
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


def small_table(table: NDArray[np.float32]) -> dict[str, NDArray]:
    """Tensors of a word table (V, D) with 8 bits and a scale per word, as `load_embedding` reads them."""
    largest = np.abs(table).max(axis=1, keepdims=True)
    scale = np.where(largest > 0, largest / np.float32(127), np.float32(1))
    return {embedding.SMALL: np.rint(table / scale).astype(np.int8), embedding.SCALE: scale}


def read_weights(bundle: Bundle) -> dict[str, Tensor]:
    """Float32 weights of a bundle by their names in `CameraAwareVLM`, as exact as they are stored.

    Raises:
        SpatialError: MODEL_SIGNATURE for a bundle whose graphs do not name them, or are none.
    """
    found: dict[str, NDArray] = {}
    for file in (name for name in GRAPHS if name in bundle.manifest.files):
        try:
            graph = onnx.load(str(bundle.path(file))).graph
        except Exception as error:  # the library raises protobuf's own classes
            raise SpatialError(
                ErrorCode.MODEL_SIGNATURE,
                f"'{bundle.path(file)}' is not an ONNX graph: {one_line(str(error))}",
            ) from None
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for full, array in stored.items():
            if full.endswith((small_weights.SCALE, small_weights.SHAPE)) or full in small_weights.SHARED:
                continue
            name = full.removesuffix(_HALF)
            if full.endswith(small_weights.PACKED):
                name = full.removesuffix(small_weights.PACKED)
                shape = stored[name + small_weights.SHAPE]
                array = small_weights.unpacked(array, stored[name + small_weights.SCALE], shape)
            if name.endswith(_TRANSPOSED):
                name, array = name.removesuffix(_TRANSPOSED), array.T
            found[name] = array
    found["hf.model.language_model.embed_tokens.weight"] = embedding.load_embedding(bundle)
    if "hf.model.language_model.norm.weight" not in found or any(name.endswith(_OLDER) for name in found):
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE,
            f"the graphs of '{bundle.folder}' do not name their weights, or store them as earlier versions did: export "
            "the run again, or begin with the run itself or a newer bundle",
        )
    return {name: torch.from_numpy(np.array(array, np.float32, order="C")) for name, array in found.items()}
