# syntax=docker/dockerfile:1
# Scenes, training and export with an NVIDIA GPU (x86_64); no ROS in it.
# Build from the top of the repository:
#   docker build --file docker/training.Dockerfile --tag spatial-mllm:training .

# The release of torch that requirements/training.txt pins.
ARG BASE_IMAGE=docker.io/pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime

FROM ${BASE_IMAGE}
ARG DEBIAN_FRONTEND=noninteractive
ENV LANG=C.UTF-8 \
    SPATIAL_MLLM_HOME=/opt/spatial_mllm \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics
# MuJoCo draws without a screen: EGL beside a GPU, OSMesa on the CPU.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        libegl1 \
        libgl1 \
        libosmesa6 \
        python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR ${SPATIAL_MLLM_HOME}
COPY LICENSE pyproject.toml ./
COPY requirements/training.txt requirements/
COPY src/ src/
COPY ros2_ws/src/spatial_mllm_msgs/ ros2_ws/src/spatial_mllm_msgs/
COPY training/ training/
# torch comes from the base image: the environment sees its packages.
RUN python3 -m venv --system-site-packages venv \
    && venv/bin/python -m pip install --no-cache-dir \
        --requirement requirements/training.txt '.[training]' ./training
ENV PATH=${SPATIAL_MLLM_HOME}/venv/bin:${PATH}

ARG USER_ID=1000
ARG GROUP_ID=1000
COPY docker/scripts/add_user.sh /tmp/
RUN /tmp/add_user.sh "${USER_ID}" "${GROUP_ID}" && rm /tmp/add_user.sh
USER ${USER_ID}
WORKDIR /repository
HEALTHCHECK NONE
CMD ["python", "-m", "spatial_mllm_training.train", "--help"]
