"""spatial_mllm_core: metric spatial answers, depth and rewards from calibrated cameras, without ROS or torch."""

__version__ = "0.1.0"
