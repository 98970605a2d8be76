#!/bin/sh
# The documented recipe beside an apt ROS 2: an environment that sees ROS, the core in it, colcon build.
# Leaves $SPATIAL_MLLM_HOME/venv and $SPATIAL_MLLM_HOME/ros2_ws/install. ROS scripts forbid `set -u`.
set -e

cd "${SPATIAL_MLLM_HOME:?not set}"
# Ours in place of a list of the base image: cv_bridge of Humble and Jazzy needs numpy 1 and OpenCV 4.
export PIP_CONSTRAINT="$PWD/requirements/apt-ros.txt"

python3 -m venv --system-site-packages venv
touch venv/COLCON_IGNORE
venv/bin/python -m pip install --no-cache-dir .

# shellcheck source=/dev/null
. "/opt/ros/${ROS_DISTRO:?not set}/setup.sh"
PATH="$PWD/venv/bin:$PATH"
cd ros2_ws
python -m colcon build --cmake-args -DBUILD_TESTING=OFF -DCMAKE_BUILD_TYPE=Release
rm -rf build log
