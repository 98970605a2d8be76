"""What all tests share: a ROS graph of their own, and nothing written into the source tree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
if os.environ.get("ROS_DISTRO") == "humble":
    os.environ["ROS_LOCALHOST_ONLY"] = "1"  # its name for the same
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
os.environ.setdefault(
    "HYPOTHESIS_STORAGE_DIRECTORY", os.path.join(os.path.sep, "tmp", "spatial_mllm_hypothesis")
)

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402  (its storage folder is set above)

settings.register_profile("house", deadline=None)  # a busy machine is not a defect
settings.load_profile("house")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def hololens_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve real frames of a room with depth and poses, as `sample_bags/make_hololens.py` makes a bag of them."""
    bag = tmp_path_factory.mktemp("real") / "hololens"
    script = [sys.executable, str(REPOSITORY / "sample_bags" / "make_hololens.py")]
    subprocess.run([*script, str(REPOSITORY / "tests" / "fixtures" / "hololens"), str(bag)], check=True)
    return bag
