"""From a source image to a model's input, and from a visual token back to the pixels it shows."""

from spatial_mllm_training.model.preprocess.framing import Framing, TokenRays, token_rays
from spatial_mllm_training.model.preprocess.pixels import Processing, normalised, reframed

__all__ = ["Framing", "Processing", "TokenRays", "normalised", "reframed", "token_rays"]
