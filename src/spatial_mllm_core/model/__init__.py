"""Model bundles and how they run: manifest, engines, the visual-first prompt, depth and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spatial_mllm_core.model.spatial_model import Perception, SpatialModel

__all__ = ["Perception", "SpatialModel"]


def __getattr__(name: str) -> Any:
    """Import the heavy half (OpenCV, tokenizers, ONNX Runtime) only when it is used."""
    if name in __all__:
        from spatial_mllm_core.model import spatial_model

        return getattr(spatial_model, name)
    raise AttributeError(name)
