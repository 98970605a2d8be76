"""All nodes in one process around one model: what `ros2 launch spatial_mllm bringup.launch.py` starts."""

from __future__ import annotations

import sys

from spatial_mllm.node import SpatialNode
from spatial_mllm.perception import Perception
from spatial_mllm.reward_annotator import RewardAnnotator
from spatial_mllm.running import run


def make_nodes() -> list[SpatialNode]:
    """Perception owns the model and feeds the frames; the reward annotator shares both."""
    perception = Perception()
    return [perception, RewardAnnotator(worker=perception.worker)]


def main(args: list[str] | None = None) -> int:
    """Entry point of `ros2 run spatial_mllm bringup`."""
    return run(make_nodes, args)


if __name__ == "__main__":
    sys.exit(main())
