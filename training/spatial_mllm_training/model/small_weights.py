"""Weights with five bits each: packed for a graph file, the graph nodes that decode them, and decoded again.

Of a block of 64 weights the largest sets the scale. Their four low bits stand two in a byte, the fifth ones eight in a
byte. Plain operators of the graph decode them, which a runtime folds when it loads; bytes stay bytes as long as they
can, because a runtime keeps what every folded node gives until all of them are.
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
_LOW_BYTES, _FIFTH_BYTES = BLOCK // 2, BLOCK // 8

PACKED, SCALE, SHAPE = "_packed", "_scale", "_shape"
"""End the names of what stands in a graph for one weight."""
SHARED = {
    "small_parts": np.array([_LOW_BYTES, _FIFTH_BYTES], np.int64),
    "small_last_axis": np.array([-1], np.int64),
    "small_low_shifts": np.array([0, 4], np.uint8),
    "small_low": np.array([15], np.uint8),
    "small_fifth_shifts": np.arange(8, dtype=np.uint8),
    "small_four": np.array([4], np.uint8),
    "small_fifth": np.array([16], np.uint8),
    "small_pairs": np.array([-1, _LOW_BYTES, 2], np.int64),
    "small_middle": np.array([_MIDDLE], np.float32),
}


def fits(values: NDArray) -> bool:
    """Whether an array is cut into whole blocks."""
    return values.size % BLOCK == 0


def packed(values: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """(n / BLOCK, 40) bytes, low bits and then fifth ones, and (n / BLOCK, 1, 1) scales of n weights."""
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
    codes = (whole + _MIDDLE).astype(np.uint8)
    low = codes[:, 0::2] & 15 | codes[:, 1::2] << 4
    fifth = np.packbits(codes >> 4, axis=1, bitorder="little")
    return np.concatenate([low, fifth], axis=1), scale[..., None]


def unpacked(
    stored: NDArray[np.uint8], scale: NDArray[np.float16], shape: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Inverse of `packed`, to what the graph computes with."""
    low, fifth = stored[:, :_LOW_BYTES], stored[:, _LOW_BYTES:]
    codes = np.stack([low & 15, low >> 4], axis=-1).reshape(-1, BLOCK)
    codes |= np.unpackbits(fifth, axis=1, bitorder="little") << 4
    return ((codes.astype(np.float32) - _MIDDLE) * scale[..., 0].astype(np.float32)).reshape(shape)


def tensors(name: str, values: NDArray[np.float32]) -> list[onnx.TensorProto]:
    """What stands in a graph for the weight `name`."""
    stored, scale = packed(values)
    return [
        numpy_helper.from_array(stored, name + PACKED),
        numpy_helper.from_array(scale, name + SCALE),
        numpy_helper.from_array(np.array(values.shape, np.int64), name + SHAPE),
    ]


def shared_tensors() -> list[onnx.TensorProto]:
    """What `decoding` needs once in a graph."""
    return [numpy_helper.from_array(array, name) for name, array in SHARED.items()]


def decoding(name: str) -> list[onnx.NodeProto]:
    """Nodes that make the float32 weight `name` out of its `tensors`."""
    steps = [
        ("Split", [name + PACKED, "small_parts"], ["low", "fifth"], {"axis": 1}),
        ("Unsqueeze", ["low", "small_last_axis"], ["low1"], {}),
        ("BitShift", ["low1", "small_low_shifts"], ["low2"], {"direction": "RIGHT"}),
        ("BitwiseAnd", ["low2", "small_low"], ["low3"], {}),
        ("Unsqueeze", ["fifth", "small_last_axis"], ["fifth1"], {}),
        ("BitShift", ["fifth1", "small_fifth_shifts"], ["fifth2"], {"direction": "RIGHT"}),
        ("BitShift", ["fifth2", "small_four"], ["fifth3"], {"direction": "LEFT"}),
        ("BitwiseAnd", ["fifth3", "small_fifth"], ["fifth4"], {}),
        ("Reshape", ["fifth4", "small_pairs"], ["fifth5"], {}),
        ("BitwiseOr", ["low3", "fifth5"], ["codes"], {}),
        ("Cast", ["codes"], ["codes32"], {"to": TensorProto.FLOAT}),
        ("Sub", ["codes32", "small_middle"], ["whole"], {}),
        ("Cast", [name + SCALE], ["scale32"], {"to": TensorProto.FLOAT}),
        ("Mul", ["whole", "scale32"], ["weights"], {}),
        ("Reshape", ["weights", name + SHAPE], [""], {}),
    ]
    made = {after: f"{name}_{after}" if after else name for _, _, outputs, _ in steps for after in outputs}
    return [
        helper.make_node(operator, [made.get(i, i) for i in inputs], [made[o] for o in outputs], **attributes)
        for operator, inputs, outputs, attributes in steps
    ]
