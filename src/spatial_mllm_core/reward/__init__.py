"""Rewards from displacement answers: tasks, potentials, the per-frame annotator."""

from spatial_mllm_core.reward.task import Reward, RewardGoal, RewardTask

__all__ = ["Reward", "RewardGoal", "RewardTask"]
