"""The launch file and the files beside it: arguments, parameters that exist, and a real launch."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

PACKAGE = Path(__file__).resolve().parents[2] / "ros2_ws/src/spatial_mllm"
LAUNCH_FILE = PACKAGE / "launch/bringup.launch.py"
ARGUMENTS = [
    "image",
    "camera_info",
    "image_transport",
    "model",
    "backend",
    "namespace",
    "params_file",
    "use_sim_time",
    "autostart",
    "log_level",
]


def declared_arguments() -> dict[str, tuple[str, str]]:
    """Name to (default, description), read from the source: `launch` need not be installed."""
    tree = ast.parse(LAUNCH_FILE.read_text(), str(LAUNCH_FILE))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ARGUMENTS":
            return {name: (default, words) for name, default, words, _ in ast.literal_eval(node.value)}
    raise AssertionError("no ARGUMENTS in the launch file")


def test_the_arguments_are_those_promised_and_all_are_described():
    declared = declared_arguments()
    assert list(declared) == ARGUMENTS
    assert all(len(words) > 10 for _, words in declared.values())


def test_the_link_at_the_top_leads_to_the_launch_files():
    link = PACKAGE.parents[2] / "launch"
    assert link.is_symlink()
    assert (link / "bringup.launch.py").samefile(LAUNCH_FILE)


@pytest.mark.timeout(60)
def test_every_parameter_of_the_shipped_file_exists_and_has_its_default(start):
    """A name that the node ignores is a bug of the file."""
    from rcl_interfaces.srv import GetParameters, ListParameters
    from rclpy.parameter import parameter_value_to_python

    shipped = yaml.safe_load((PACKAGE / "config/bringup.yaml").read_text())
    rig = start(double=True, image_topic="image", image_qos="sensor_data", image_queue_depth=5, wait=False)
    for key, content in shipped.items():
        node = key.rpartition("/")[2]
        wanted = dict(flat(content["ros__parameters"]))
        base = f"{rig.namespace}/{node}"
        there = rig.call(ListParameters, f"{base}/list_parameters", ListParameters.Request()).result.names
        assert set(wanted) <= set(there)
        unlisted = {
            n for n in there if n not in wanted and not n.startswith("qos_overrides") and n != "use_sim_time"
        } - {"start_type_description_service"}
        assert unlisted == set()
        values = rig.call(
            GetParameters, f"{base}/get_parameters", GetParameters.Request(names=list(wanted))
        ).values
        assert {n: parameter_value_to_python(v) for n, v in zip(wanted, values, strict=True)} == wanted


def flat(tree: dict, prefix: str = ""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_the_shared_memory_profile_holds_what_it_promises():
    names = {"p": "http://www.eprosima.com"}
    root = ElementTree.parse(PACKAGE / "config/fastdds_shm.xml").getroot()
    assert root.findtext(".//p:segment_size", namespaces=names) == str(32 << 20)
    assert root.findtext(".//p:maxMessageSize", namespaces=names) == str(8 << 20)


@pytest.mark.timeout(60)
def test_the_profile_is_really_read(start, monkeypatch):
    """A profile with a mistake would be ignored with a line in the log, and images would get lost again."""
    for variable in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        monkeypatch.setenv(variable, str(PACKAGE / "config/fastdds_shm.xml"))
    rig = start(double=True)
    rig.publish_good()
    rig.wait("the frame", lambda: rig.values("perception: inference").get("images served") == "1")
    assert "XMLPARSER" not in rig.bringup.output
    assert "RTPS_TRANSPORT" not in rig.bringup.output


@pytest.mark.timeout(120)
@pytest.mark.skipif(shutil.which("ros2") is None, reason="needs the `ros2` command of an apt ROS 2")
def test_ros2_launch_brings_it_up_and_ctrl_c_takes_it_down(bundle, tmp_path):
    environment = {**os.environ, "ROS_LOG_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    output = tmp_path / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            [
                "ros2",
                "launch",
                "spatial_mllm",
                "bringup.launch.py",
                "image:=/camera/image_raw",
                "namespace:=launched",
                f"model:={bundle}",
            ],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            end = time.monotonic() + 60
            while "looks at /camera/image_raw" not in output.read_text():
                assert process.poll() is None, output.read_text()
                assert time.monotonic() < end, output.read_text()
                time.sleep(0.2)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to launch and to the nodes
            process.wait(15)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    text = output.read_text()
    assert "launched.perception" in text
    assert "process has finished cleanly" in text, text
    assert "Traceback" not in text
