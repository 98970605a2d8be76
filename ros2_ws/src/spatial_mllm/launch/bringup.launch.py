"""Start everything: `ros2 launch spatial_mllm bringup.launch.py image:=/camera/image_raw`."""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

ARGUMENTS = (
    ("image", "image", "topic of the images, without /compressed", None),
    ("camera_info", "", "topic of their CameraInfo; empty = camera_info beside the image topic", None),
    (
        "image_transport",
        "raw",
        "raw (sensor_msgs/Image) or compressed (CompressedImage on <image>/compressed)",
        ["raw", "compressed"],
    ),
    ("model", "", "model bundle: a folder or a name; empty = the shipped one", None),
    ("backend", "cpu", "where the model runs: cpu, cuda or tensorrt", None),
    ("namespace", "spatial_mllm", "namespace of the nodes and of all their topics", None),
    ("params_file", "", "parameters in a YAML file; empty = config/bringup.yaml of this package", None),
    ("use_sim_time", "false", "take the time from /clock (bags, simulators)", ["true", "false"]),
    ("autostart", "true", "configure and activate at once; false = wait for transitions", ["true", "false"]),
    ("log_level", "info", "debug, info, warn, error or fatal", ["debug", "info", "warn", "error", "fatal"]),
)

# Launch arguments that are parameters of the same meaning. Text is given as text: a topic
# or a model named `1` must not become a number.
TEXT_PARAMETERS = (
    ("image", "image_topic"),
    ("camera_info", "camera_info_topic"),
    ("image_transport", "image_transport"),
    ("model", "model"),
    ("backend", "backend"),
)
SWITCHES = ("use_sim_time", "autostart")


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=words, choices=choices)
        for name, default, words, choices in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_bringup)])


def _bringup(context: LaunchContext) -> list[Node]:
    """The one process; an argument that is empty or left at its default does not hide the file's value."""

    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    defaults = {name: default for name, default, _, _ in ARGUMENTS}
    shipped = PathJoinSubstitution([FindPackageShare("spatial_mllm"), "config", "bringup.yaml"])
    parameters = {target: given(name) for name, target in TEXT_PARAMETERS if given(name) != defaults[name]}
    parameters.update({name: given(name) == "true" for name in SWITCHES if given(name) != defaults[name]})
    return [
        Node(
            package="spatial_mllm",
            executable="bringup",
            namespace=given("namespace"),
            parameters=[given("params_file") or shipped, parameters]
            if parameters
            else [given("params_file") or shipped],
            arguments=["--ros-args", "--log-level", given("log_level")],
            output="screen",
            emulate_tty=True,
        )
    ]
