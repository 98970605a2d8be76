"""ROS 2 nodes of spatial_mllm: thin shells that move messages between topics and the core."""
