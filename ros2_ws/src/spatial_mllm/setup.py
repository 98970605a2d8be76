"""Builds the node package with colcon (ament_python) and with pip."""

from glob import glob

from setuptools import find_packages, setup

setup(
    name="spatial_mllm",
    version="0.1.0",
    description="ROS 2 nodes of spatial_mllm: depth, spatial answers and rewards from a calibrated camera",
    license="Apache-2.0",
    maintainer="spatial_mllm maintainers",
    maintainer_email="maintainers@spatial-mllm.example",
    packages=find_packages(include=["spatial_mllm", "spatial_mllm.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/spatial_mllm"]),
        ("share/spatial_mllm", ["package.xml"]),
        ("share/spatial_mllm/launch", glob("launch/*.launch.*")),
        ("share/spatial_mllm/config", glob("config/*")),
    ],
    install_requires=["setuptools"],
    python_requires=">=3.10",
    zip_safe=True,
    entry_points={
        "console_scripts": [
            "bringup = spatial_mllm.bringup:main",
            "perception = spatial_mllm.perception:main",
            "reward_annotator = spatial_mllm.reward_annotator:main",
        ],
    },
)
