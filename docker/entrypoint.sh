#!/bin/sh
# Start of every ROS image: ROS, the workspace, the environment, the Fast DDS profile, then the command.
# The ROS scripts read unset variables, so this one cannot use `set -u`.
set -e

home=${SPATIAL_MLLM_HOME:-/opt/spatial_mllm}
ros=${ROS_ROOT:-/opt/ros/${ROS_DISTRO:?not set: the image must name its ROS 2 distribution}}

# shellcheck source=/dev/null
. "$ros/setup.sh"
# shellcheck source=/dev/null
. "$home/ros2_ws/install/setup.sh"
PATH="$home/venv/bin:$PATH"
export PATH

# Images between processes without loss. Humble and Jazzy read the first name, later ones the second;
# a profile given from outside wins.
profile="$home/ros2_ws/install/spatial_mllm/share/spatial_mllm/config/fastdds_shm.xml"
: "${FASTRTPS_DEFAULT_PROFILES_FILE:=$profile}"
: "${FASTDDS_DEFAULT_PROFILES_FILE:=$profile}"
export FASTRTPS_DEFAULT_PROFILES_FILE FASTDDS_DEFAULT_PROFILES_FILE

exec "$@"
