# syntax=docker/dockerfile:1
# Desktop with an NVIDIA GPU (x86_64): Ubuntu 24.04, ROS 2 Jazzy, CUDA 13.2, TensorRT 10.16.
# Build from the top of the repository:
#   docker build --file docker/desktop.Dockerfile --tag spatial-mllm:desktop .

# 26.05 is the last release of this image with TensorRT 10, which ONNX Runtime's provider links to.
ARG BASE_IMAGE=nvcr.io/nvidia/tensorrt:26.05-py3

FROM ${BASE_IMAGE} AS ros
ARG DEBIAN_FRONTEND=noninteractive
ENV LANG=C.UTF-8 \
    ROS_DISTRO=jazzy \
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
        ros-jazzy-rmw-fastrtps-cpp \
        ros-jazzy-ros-base \
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
# The GPU package holds the same module `onnxruntime` (with the CPU in it), so the other one goes.
ARG ONNXRUNTIME_GPU=1.31.1
RUN venv/bin/python -m pip uninstall --yes onnxruntime \
    && venv/bin/python -m pip install --no-cache-dir --constraint requirements/apt-ros.txt \
        "onnxruntime-gpu==${ONNXRUNTIME_GPU}"

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
