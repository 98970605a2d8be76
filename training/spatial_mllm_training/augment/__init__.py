"""Camera-aware augmentation of MultiSPA rows: other lenses and directions of view, labels kept right."""

from spatial_mllm_training.augment.config import AugmentConfig
from spatial_mllm_training.augment.rows import AugmentedRow, augment_row
from spatial_mllm_training.augment.warp import CameraWarp

__all__ = ["AugmentConfig", "AugmentedRow", "CameraWarp", "augment_row"]
