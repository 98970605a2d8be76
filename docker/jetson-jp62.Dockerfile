# syntax=docker/dockerfile:1
# Jetson Orin with JetPack 6.2 (Jetson Linux r36.4): Ubuntu 22.04, ROS 2 Humble, CUDA 12.6,
# TensorRT 10.3. Build on the Jetson, from the top of the repository:
#   docker build --file docker/jetson-jp62.Dockerfile --tag spatial-mllm:jetson-jp62 .

# r36.4.0 is the newest tag of this image; JetPack 6.2 (r36.4.3) has the same CUDA and TensorRT.
ARG BASE_IMAGE=nvcr.io/nvidia/l4t-jetpack:r36.4.0

FROM ${BASE_IMAGE} AS ros
ARG DEBIAN_FRONTEND=noninteractive
ENV LANG=C.UTF-8 \
    ROS_DISTRO=humble \
    RMW_IMPLEMENTATION=rmw_fastrtps_cpp \
    SPATIAL_MLLM_HOME=/opt/spatial_mllm \
    PYTHONDONTWRITEBYTECODE=1
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/*
COPY docker/scripts/add_ros_apt_source.sh /tmp/
RUN /tmp/add_ros_apt_source.sh && rm /tmp/add_ros_apt_source.sh
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        python3 \
        ros-humble-rmw-fastrtps-cpp \
        ros-humble-ros-base \
    && rm -rf /var/lib/apt/lists/*

FROM ros AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        build-essential \
        cmake \
        python3-colcon-common-extensions \
        python3-dev \
        python3-pip \
        python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR ${SPATIAL_MLLM_HOME}
COPY pyproject.toml ./
COPY requirements/apt-ros.txt requirements/
COPY src/ src/
COPY ros2_ws/src/ ros2_ws/src/
COPY docker/scripts/build_workspace.sh /tmp/
RUN /tmp/build_workspace.sh

FROM ros AS runtime
ARG USER_ID=1000
ARG GROUP_ID=1000
COPY docker/scripts/add_user.sh /tmp/
RUN /tmp/add_user.sh "${USER_ID}" "${GROUP_ID}" && rm /tmp/add_user.sh
WORKDIR ${SPATIAL_MLLM_HOME}
COPY LICENSE ./
COPY models/ models/
COPY docker/entrypoint.sh ./
COPY --from=build ${SPATIAL_MLLM_HOME}/venv/ venv/
COPY --from=build ${SPATIAL_MLLM_HOME}/ros2_ws/install/ ros2_ws/install/
USER ${USER_ID}
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5m --timeout=60s --start-period=30s --retries=2 \
    CMD ["/opt/spatial_mllm/entrypoint.sh", "spatial-mllm", "doctor"]
ENTRYPOINT ["/opt/spatial_mllm/entrypoint.sh"]
CMD ["ros2", "launch", "spatial_mllm", "bringup.launch.py"]
