"""The token embedding table of a bundle, read from its safetensors file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.model.bundle import Bundle

TENSOR = "embedding"
SMALL, SCALE = "embedding_int8", "embedding_scale"
"""The table with 8 bits, and (V, 1) what its rows are multiplied with; instead of `TENSOR`."""


def load_embedding(bundle: Bundle) -> NDArray[np.float32]:
    """(V, D) float32 table.

    Raises:
        SpatialError: MODEL_SIGNATURE when the file does not hold that table.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    m = bundle.manifest
    path = bundle.path("embedding.safetensors")
    try:
        tensors = load_file(str(path))
    except (SafetensorError, OSError, ValueError) as fault:
        raise SpatialError(ErrorCode.MODEL_SIGNATURE, f"cannot read {path.name}: {fault}") from None
    table = tensors.get(TENSOR)
    if SMALL in tensors and tensors.get(SCALE, np.empty(0)).shape == (m.vocabulary, 1):
        table = tensors[SMALL] * tensors[SCALE].astype(np.float32)
    if table is None or table.shape != (m.vocabulary, m.hidden):
        found = {k: v.shape for k, v in tensors.items()}
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE,
            f"{path.name} should hold '{TENSOR}' of shape {(m.vocabulary, m.hidden)}, it holds {found}",
        )
    return np.asarray(table, np.float32)
