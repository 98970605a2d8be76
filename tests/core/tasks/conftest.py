"""Random poses for geometry that is checked against scipy and OpenCV."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

Poses = Callable[[int], tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="session")
def poses() -> Poses:
    """Two random world_from_camera matrices of a seed."""

    def of_seed(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        out = []
        for _ in range(2):
            pose = np.eye(4)
            pose[:3, :3] = Rotation.random(random_state=rng).as_matrix()
            pose[:3, 3] = rng.normal(size=3)
            out.append(pose)
        return out[0], out[1]

    return of_seed
