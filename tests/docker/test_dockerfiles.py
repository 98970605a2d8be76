"""The container files without Docker: lint, and every name in them against the repository."""

from __future__ import annotations

import ast
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

REPOSITORY = Path(__file__).parents[2]
DOCKER = REPOSITORY / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
ROS_DOCKERFILES = [path for path in DOCKERFILES if path.name != "training.Dockerfile"]
SCRIPTS = [DOCKER / "entrypoint.sh", *sorted((DOCKER / "scripts").glob("*.sh"))]
OTHER_SCRIPTS = [REPOSITORY / "requirements" / "check.sh", REPOSITORY / ".ci" / "run"]
LAUNCH_FILE = REPOSITORY / "ros2_ws/src/spatial_mllm/launch/bringup.launch.py"


def name_of(path: Path) -> str:
    return path.name


def tool(name: str) -> str:
    """A linter beside this interpreter or on PATH; the test is skipped where it is not."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed (requirements/test.txt has it)")
    return found


def instructions(path: Path) -> list[tuple[str, str]]:
    """(keyword, words) of a Dockerfile, comments dropped and continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    found = (line.strip().partition(" ") for line in text.splitlines() if line.strip())
    return [(keyword.upper(), re.sub(r"\s+", " ", words.strip())) for keyword, _, words in found]


def words_of(path: Path, keyword: str) -> list[str]:
    return [words for found, words in instructions(path) if found == keyword]


def copies(path: Path) -> list[tuple[str, list[str]]]:
    """(stage or "", sources) of each COPY."""
    found = []
    for words in words_of(path, "COPY"):
        parts = words.split()
        stage = "".join(p.removeprefix("--from=") for p in parts if p.startswith("--from="))
        paths = [p for p in parts if not p.startswith("--")]
        found.append((stage, paths[:-1]))
    return found


def reaches_the_build(source: str) -> bool:
    """Whether .dockerignore lets a path through: the last pattern that fits it or a parent decides."""
    path = Path(source)
    names = [str(path), *(str(parent) for parent in path.parents if str(parent) != ".")]
    let_through = True
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        wanted = pattern.removeprefix("!").removeprefix("**/")
        against = [Path(name).name for name in names] if "**/" in pattern else names
        if any(fnmatch.fnmatch(name, wanted) for name in against):
            let_through = pattern.startswith("!")
    return let_through


def launch_arguments() -> set[str]:
    """Names in ARGUMENTS of the launch file, which cannot be imported without ROS's launch."""
    for node in ast.parse(LAUNCH_FILE.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ARGUMENTS":
            return {entry[0] for entry in ast.literal_eval(node.value)}
    raise AssertionError(f"no ARGUMENTS in {LAUNCH_FILE.name}")


def test_there_is_a_dockerfile_for_each_machine() -> None:
    assert [path.stem for path in DOCKERFILES] == ["desktop", "jetson-jp62", "jetson-jp72", "training"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=name_of)
def test_hadolint_finds_nothing(path: Path) -> None:
    done = subprocess.run(
        [tool("hadolint"), "--no-color", "--config", str(DOCKER / "hadolint.yaml"), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", [*SCRIPTS, *OTHER_SCRIPTS], ids=name_of)
def test_scripts_parse_and_shellcheck_finds_nothing(path: Path) -> None:
    assert os.access(path, os.X_OK) or path in OTHER_SCRIPTS, f"{path.name} is not executable"
    shell = "bash" if "bash" in path.read_text().splitlines()[0] else "sh"
    subprocess.run([shell, "-n", str(path)], check=True)
    done = subprocess.run([tool("shellcheck"), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=name_of)
def test_what_is_copied_exists_and_is_not_ignored(path: Path) -> None:
    stages: set[str] = set()
    for keyword, words in instructions(path):
        if keyword == "FROM" and " AS " in words:
            stages.add(words.split(" AS ")[1])
        elif keyword == "COPY" and "--from=" in words:
            assert re.search(r"--from=(\S+)", words)[1] in stages, words
    for stage, sources in copies(path):
        for source in sources if not stage else []:
            assert (REPOSITORY / source).exists(), f"{path.name} copies {source}, which is not there"
            assert reaches_the_build(source), f".dockerignore keeps {source} from {path.name}"


def test_dockerignore_keeps_the_rest_out() -> None:
    for name in (".git", ".venv", "data", "runs", "sample_bags", "tests", "src/x/__pycache__"):
        assert not reaches_the_build(name), name


@pytest.mark.parametrize("path", DOCKERFILES, ids=name_of)
def test_base_images_have_a_tag_and_stand_in_the_readme(path: Path) -> None:
    (base,) = (words for words in words_of(path, "ARG") if words.startswith("BASE_IMAGE="))
    image = base.removeprefix("BASE_IMAGE=")
    assert re.fullmatch(r"(nvcr|docker)\.io/[\w./-]+:(?!latest)[\w.-]+", image), image
    assert image in (DOCKER / "README.md").read_text()


@pytest.mark.parametrize("path", DOCKERFILES, ids=name_of)
def test_the_last_stage_runs_as_an_ordinary_user(path: Path) -> None:
    last_from = max(i for i, (keyword, _) in enumerate(instructions(path)) if keyword == "FROM")
    users = [words for keyword, words in instructions(path)[last_from:] if keyword == "USER"]
    assert users == ["${USER_ID}"]
    assert "USER_ID=1000" in words_of(path, "ARG")


@pytest.mark.parametrize("path", ROS_DOCKERFILES, ids=name_of)
def test_ros_images_start_and_check_through_the_entrypoint(path: Path) -> None:
    (health,) = words_of(path, "HEALTHCHECK")
    (entrypoint,) = words_of(path, "ENTRYPOINT")
    (script,) = json.loads(entrypoint)
    assert json.loads(health.partition("CMD ")[2]) == [script, "spatial-mllm", "doctor"]
    environment = " ".join(words_of(path, "ENV"))
    assert script == re.search(r"SPATIAL_MLLM_HOME=(\S+)", environment)[1] + "/entrypoint.sh"
    distribution = re.search(r"ROS_DISTRO=(\S+)", environment)[1]
    packages = re.findall(r"\bros-([a-z]+)-", " ".join(words_of(path, "RUN")))
    assert packages and set(packages) == {distribution}


def test_the_two_jetson_files_differ_from_each_other_only_where_the_releases_do() -> None:
    def common(name: str) -> str:
        text = "\n".join(f"{k} {w}" for k, w in instructions(DOCKER / name) if not w.startswith("BASE_IMAGE"))
        text = text.replace("rm -rf /usr/local/cuda/compat /usr/local/cuda/compat_orin && ", "")
        return text.replace("humble", "DISTRO").replace("jazzy", "DISTRO")

    assert common("jetson-jp62.Dockerfile") == common("jetson-jp72.Dockerfile")


def test_compose_names_what_exists() -> None:
    services = YAML(typ="safe").load(DOCKER / "compose.yaml")["services"]
    arguments = launch_arguments()
    assert {"image", "image_transport", "backend"} <= arguments
    assert set(services) == {path.stem for path in DOCKERFILES}
    for name, service in services.items():
        assert service["profiles"] == [name]
        path = DOCKER / service["build"]["context"] / service["build"]["dockerfile"]
        assert path.resolve() == DOCKER / f"{name}.Dockerfile"
        declared = {words.partition("=")[0] for words in words_of(path, "ARG")}
        assert set(service["build"]["args"]) <= declared
        assert ("runtime" in service) != ("deploy" in service), "one way to the GPU"
        if name != "training":
            assert (service["network_mode"], service["ipc"]) == ("host", "host")
            given = [word.partition(":=")[0] for word in service["command"] if ":=" in word]
            assert given and set(given) <= arguments


@pytest.fixture
def image_tree(tmp_path: Path) -> dict[str, str]:
    """The tree of an image with setup files that leave a trace; the environment to run in it."""
    ros, install = tmp_path / "ros", tmp_path / "home/ros2_ws/install"
    tool_path = tmp_path / "home/venv/bin/a-tool"
    for folder in (ros, install, tool_path.parent):
        folder.mkdir(parents=True)
    (ros / "setup.sh").write_text('TRACE="$UNSET_VARIABLE ros"; export TRACE\n')
    (install / "setup.sh").write_text('TRACE="$TRACE workspace"\n')
    tool_path.write_text(
        '#!/bin/sh\necho "$TRACE|$FASTRTPS_DEFAULT_PROFILES_FILE|$FASTDDS_DEFAULT_PROFILES_FILE"\n'
        'printf "<%s>" "$@"\nexit 7\n'
    )
    tool_path.chmod(0o755)
    return {
        "PATH": os.environ["PATH"],
        "ROS_DISTRO": "jazzy",
        "ROS_ROOT": str(ros),
        "SPATIAL_MLLM_HOME": str(tmp_path / "home"),
    }


def start(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(DOCKER / "entrypoint.sh"), "a-tool", "image:=/a b", "x"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_entrypoint_sources_ros_then_the_workspace_and_becomes_the_command(
    image_tree: dict[str, str],
) -> None:
    done = start(image_tree)
    first, rest = done.stdout.splitlines()
    profile = "ros2_ws/install/spatial_mllm/share/spatial_mllm/config/fastdds_shm.xml"
    expected = f"{image_tree['SPATIAL_MLLM_HOME']}/{profile}"
    assert first == f" ros workspace|{expected}|{expected}"
    assert rest == "<image:=/a b><x>"
    assert done.returncode == 7
    assert (REPOSITORY / "ros2_ws/src/spatial_mllm/config" / Path(profile).name).is_file()


def test_entrypoint_keeps_a_profile_given_from_outside(image_tree: dict[str, str]) -> None:
    done = start({**image_tree, "FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml"})
    fastrtps, fastdds = done.stdout.splitlines()[0].split("|")[1:]
    assert fastrtps.endswith("fastdds_shm.xml") and fastdds == "/mine.xml"


def test_entrypoint_stops_where_there_is_no_ros(image_tree: dict[str, str]) -> None:
    shutil.rmtree(image_tree["ROS_ROOT"])
    done = start(image_tree)
    assert done.returncode not in (0, 7) and "<" not in done.stdout
    del image_tree["ROS_DISTRO"], image_tree["ROS_ROOT"]
    assert "ROS_DISTRO" in start(image_tree).stderr
