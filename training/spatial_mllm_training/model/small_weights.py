"""Weights with five bits each: packed for a graph file, the graph nodes that decode them, and decoded again.

Of a block of 64 weights the largest sets the scale. Bits are stored as planes, eight weights a byte, and decoded by
plain operators of the graph, which a runtime folds when it loads.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

BITS = 5
BLOCK = 64
_MIDDLE = 2 ** (BITS - 1)
_CLIPPED = (1.0, 0.92, 0.85, 0.78)
"""Shares of the largest weight that are tried as the end of the scale: less leaves the others finer steps."""
_SMALLEST_SCALE = np.float32(6e-8)

PLANES, SCALE, SHAPE = "_planes", "_scale", "_shape"
"""End the names of what stands in a graph for one weight."""
SHARED = {
    "small_shifts": np.arange(8, dtype=np.uint8),
    "small_one": np.ones(1, np.uint8),
    "small_places": (2.0 ** np.arange(BITS, dtype=np.float32)).reshape(-1, 1, 1),
    "small_first_axis": np.zeros(1, np.int64),
    "small_blocks": np.array([-1, BLOCK], np.int64),
    "small_middle": np.array([_MIDDLE], np.float32),
}


def fits(values: NDArray) -> bool:
    """Whether an array is cut into whole blocks."""
    return values.size % BLOCK == 0


def packed(values: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """(BITS, n / 8, 1) planes of bits, the lowest one first, and (n / BLOCK, 1) scales of n weights."""
    blocks = values.reshape(-1, BLOCK)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    least = np.full((len(blocks), 1), np.inf)
    whole, scale = np.zeros(blocks.shape, np.int16), np.ones((len(blocks), 1), np.float16)
    for share in _CLIPPED:
        tried = np.where(largest > 0, np.maximum(share * largest / (_MIDDLE - 1), _SMALLEST_SCALE), 1.0)
        tried = tried.astype(np.float16)
        steps = np.clip(np.rint(blocks / tried.astype(np.float32)), -_MIDDLE, _MIDDLE - 1)
        error = np.square(steps * tried - blocks).sum(axis=1, keepdims=True, dtype=np.float64)
        better = error < least
        least = np.where(better, error, least)
        whole, scale = np.where(better, steps, whole).astype(np.int16), np.where(better, tried, scale)
    bits = (whole.reshape(-1) + _MIDDLE) >> np.arange(BITS)[:, None] & 1
    planes = np.packbits(bits.astype(np.uint8), axis=1, bitorder="little")
    return planes[..., None], scale


def unpacked(
    planes: NDArray[np.uint8], scale: NDArray[np.float16], shape: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Inverse of `packed`, to what the graph computes with."""
    bits = np.unpackbits(planes[..., 0], axis=1, bitorder="little")
    whole = (bits * (1 << np.arange(BITS))[:, None]).sum(axis=0) - _MIDDLE
    return (whole.reshape(-1, BLOCK).astype(np.float32) * scale.astype(np.float32)).reshape(shape)


def tensors(name: str, values: NDArray[np.float32]) -> list[onnx.TensorProto]:
    """What stands in a graph for the weight `name`."""
    planes, scale = packed(values)
    return [
        numpy_helper.from_array(planes, name + PLANES),
        numpy_helper.from_array(scale, name + SCALE),
        numpy_helper.from_array(np.array(values.shape, np.int64), name + SHAPE),
    ]


def shared_tensors() -> list[onnx.TensorProto]:
    """What `decoding` needs once in a graph."""
    return [numpy_helper.from_array(array, name) for name, array in SHARED.items()]


def decoding(name: str) -> list[onnx.NodeProto]:
    """Nodes that make the float32 weight `name` out of its `tensors`."""
    steps = [
        ("BitShift", [name + PLANES, "small_shifts"], {"direction": "RIGHT"}),
        ("BitwiseAnd", ["", "small_one"], {}),
        ("Cast", [""], {"to": TensorProto.FLOAT}),
        ("Mul", ["", "small_places"], {}),
        ("ReduceSum", ["", "small_first_axis"], {"keepdims": 0}),
        ("Reshape", ["", "small_blocks"], {}),
        ("Sub", ["", "small_middle"], {}),
        ("Mul", ["", name + "_scale32"], {}),
        ("Reshape", ["", name + SHAPE], {}),
    ]
    nodes = [helper.make_node("Cast", [name + SCALE], [name + "_scale32"], to=TensorProto.FLOAT)]
    before = ""
    for number, (operator, inputs, attributes) in enumerate(steps):
        after = name if number == len(steps) - 1 else f"{name}_small{number}"
        nodes.append(helper.make_node(operator, [i or before for i in inputs], [after], **attributes))
        before = after
    return nodes
