"""The data themselves as the teacher: measured or rendered depth, calibrated cameras, recorded poses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spatial_mllm_training.supervision.targets import nearest_depth
from spatial_mllm_training.teachers.base import TeacherOutput, View, known_poses


class GroundTruth:
    """Depth, camera and pose of the views as they are; a view without depth has NaN everywhere."""

    name = "ground_truth"
    version = "1"

    def weights_hash(self) -> str:
        return ""

    def predict(self, views: Sequence[View]) -> TeacherOutput:
        depth = []
        for view in views:
            if view.depth_m is None:
                depth.append(np.full(view.image.shape[:2], np.nan, np.float32))
            else:
                h, w = view.depth_m.shape
                depth.append(nearest_depth(view.depth_m, grid_h=h, grid_w=w))
        return TeacherOutput(tuple(depth), tuple(v.camera for v in views), known_poses(views))
