"""Task-oriented 3D supervision: heads on tapped decoder layers, their targets and losses (SpatialSV)."""

from spatial_mllm_training.supervision.heads import DenseMap, SpatialHeads
from spatial_mllm_training.supervision.losses import LossConfig, dense_losses
from spatial_mllm_training.supervision.targets import DenseTargets, RowTargets, row_targets, stack_rows

__all__ = [
    "DenseMap",
    "DenseTargets",
    "LossConfig",
    "RowTargets",
    "SpatialHeads",
    "dense_losses",
    "row_targets",
    "stack_rows",
]
