"""ONNX Runtime engine: CPU by default, CUDA or TensorRT providers where they are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.model.bundle import DOTS, FIRST_IMAGE, MATCHER, Bundle, Manifest
from spatial_mllm_core.model.digits import COUNT
from spatial_mllm_core.model.engine import DecoderOutput, Float32, KVCache

PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
CPU_THREADS = 2


class OrtEngine:
    """The sessions of a bundle, one per graph.

    Raises:
        SpatialError: BACKEND_UNAVAILABLE, MODEL_SIGNATURE.
    """

    def __init__(self, bundle: Bundle, *, backend: str = "cpu", threads: int | None = None) -> None:
        if backend not in PROVIDERS:
            raise SpatialError(
                ErrorCode.BACKEND_UNAVAILABLE,
                f"backend '{backend}' is unknown; there are {', '.join(PROVIDERS)}",
            )
        wanted = PROVIDERS[backend]
        if wanted[0] not in ort.get_available_providers():
            raise SpatialError(
                ErrorCode.BACKEND_UNAVAILABLE,
                f"backend '{backend}' needs ONNX Runtime's {wanted[0]}, which this installation lacks "
                f"(it has {', '.join(ort.get_available_providers())}); install the 'gpu' extra or use backend cpu",
            )
        self.manifest = bundle.manifest
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or CPU_THREADS
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._vision = _session(bundle.path("vision.onnx"), options, wanted, _vision_signature(self.manifest))
        self._decoder = _session(
            bundle.path("decoder.onnx"), options, wanted, _decoder_signature(self.manifest)
        )
        _check_logits(self._decoder, self.manifest)
        self._lift = _session(bundle.path("lift.onnx"), options, wanted, _lift_signature(self.manifest))
        m = self.manifest
        self._matcher = self._dots = None
        if m.matching:
            shape = {"image": (1, m.height, m.width, 3)}
            self._matcher = _session(bundle.path(MATCHER), options, wanted, shape)
        if m.dots_w:
            self._dots = _session(bundle.path(DOTS), options, wanted, {"image": (1, m.dots_h, m.dots_w, 3)})
        self._empty = [np.zeros((1, m.kv_heads, 0, m.head_dim), np.float32) for _ in range(2 * m.layers)]
        self._past_names = [f"past_{kind}_{i}" for i in range(m.layers) for kind in ("key", "value")]

    def vision(
        self, image_rgb: NDArray[np.uint8], rays: Float32, has_camera: bool, first_rgb: NDArray[np.uint8]
    ) -> Float32:
        feeds = {"image": image_rgb[None], "rays": rays[None], "has_camera": np.asarray([has_camera])}
        if self.manifest.clips:
            feeds[FIRST_IMAGE] = first_rgb[None]
        (tokens,) = self._vision.run(None, feeds)
        return np.asarray(tokens[0], np.float32)

    def decode(
        self, embeddings: Float32, positions: NDArray[np.int64], cache: KVCache | None
    ) -> DecoderOutput:
        past = self._empty if cache is None else cache.handle
        feeds: dict[str, Any] = dict(zip(self._past_names, past, strict=True))
        feeds["embeddings"] = embeddings[None]
        feeds["positions"] = positions[:, None]
        logits, taps, *present = self._decoder.run(None, feeds)
        length = (0 if cache is None else cache.length) + embeddings.shape[0]
        return DecoderOutput(logits[0], taps[:, 0], KVCache(length, present))

    def features(self, image_rgb: NDArray[np.uint8]) -> Float32:
        if self._matcher is None:
            raise SpatialError(ErrorCode.MODEL_SIGNATURE, f"{self.manifest.label} has no {MATCHER}")
        (features,) = self._matcher.run(None, {"image": image_rgb[None]})
        return np.asarray(features[0], np.float32)

    def dots(self, image_rgb: NDArray[np.uint8]) -> Float32:
        if self._dots is None:
            raise SpatialError(ErrorCode.MODEL_SIGNATURE, f"{self.manifest.label} has no {DOTS}")
        (scores,) = self._dots.run(None, {"image": image_rgb[None]})
        return np.asarray(scores[0], np.float32)

    def lift(self, taps: Float32) -> tuple[Float32, Float32]:
        depth, confidence = self._lift.run(None, {"taps": taps[:, None]})
        return depth[0], confidence[0]


def _vision_signature(m: Manifest) -> dict[str, tuple[Any, ...]]:
    image = (1, m.height, m.width, 3)
    first = {FIRST_IMAGE: image} if m.clips else {}
    return {"image": image, "rays": (1, m.grid_h * m.grid_w, 4), "has_camera": (1,), **first}


def _decoder_signature(m: Manifest) -> dict[str, tuple[Any, ...]]:
    past = {
        f"past_{kind}_{i}": (1, m.kv_heads, None, m.head_dim)
        for i in range(m.layers)
        for kind in ("key", "value")
    }
    return {"embeddings": (1, None, m.hidden), "positions": (3, 1, None), **past}


def _check_logits(decoder: ort.InferenceSession, m: Manifest) -> None:
    """Refuse a decoder whose logits are of another width than the manifest says, where the graph says it."""
    expected = m.vocabulary + (COUNT if m.copied_digits else 0)
    found = decoder.get_outputs()[0].shape[-1]
    if isinstance(found, int) and found != expected:
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE,
            f"the logits of decoder.onnx should be {expected} wide, they are {found}",
        )


def _lift_signature(m: Manifest) -> dict[str, tuple[Any, ...]]:
    return {"taps": (4, 1, m.grid_h * m.grid_w, m.hidden)}


def _session(
    path: Path, options: ort.SessionOptions, providers: tuple[str, ...], signature: dict[str, tuple[Any, ...]]
) -> ort.InferenceSession:
    try:
        session = ort.InferenceSession(str(path), options, providers=list(providers))
    except Exception as fault:  # onnxruntime raises its own classes, which differ between versions
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE, f"ONNX Runtime cannot load {path.name}: {fault}"
        ) from None
    found = {i.name: tuple(i.shape) for i in session.get_inputs()}
    for name, expected in signature.items():
        if name not in found:
            raise SpatialError(
                ErrorCode.MODEL_SIGNATURE,
                f"{path.name} should have an input '{name}' of shape {expected}, it has {found}",
            )
        fits = len(found[name]) == len(expected) and all(
            e is None or not isinstance(f, int) or e == f for e, f in zip(expected, found[name], strict=True)
        )
        if not fits:
            raise SpatialError(
                ErrorCode.MODEL_SIGNATURE,
                f"input '{name}' of {path.name} should have shape {expected}, it has {found[name]}",
            )
    return session
