"""Model families: one file each, behind the `ModelFamily` protocol."""

from spatial_mllm_training.model.families import internvl, llava_next_video, llava_onevision, qwen2_5_vl
from spatial_mllm_training.model.families.base import ModelFamily, tap_layers

FAMILIES: dict[str, ModelFamily] = {
    family.name: family for family in (qwen2_5_vl, internvl, llava_onevision, llava_next_video)
}

__all__ = ["FAMILIES", "ModelFamily", "tap_layers"]
