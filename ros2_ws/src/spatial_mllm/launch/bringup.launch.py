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
    given: set[str] = set()

    def note_given(context: LaunchContext) -> None:
        """What stands on the command line wins over the file; a default does not."""
        given.update(context.launch_configurations)

    def bringup(context: LaunchContext) -> list[Node]:
        return [_bringup(context, given)]

    declared = [
        DeclareLaunchArgument(name, default_value=default, description=words, choices=choices)
        for name, default, words, choices in ARGUMENTS
    ]
    return LaunchDescription(
        [OpaqueFunction(function=note_given), *declared, OpaqueFunction(function=bringup)]
    )


def _bringup(context: LaunchContext, given: set[str]) -> Node:
    """The one process, with the parameters of the file and those given as arguments."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    shipped = PathJoinSubstitution([FindPackageShare("spatial_mllm"), "config", "bringup.yaml"])
    parameters: list = [value("params_file") or shipped]
    arguments = {target: value(name) for name, target in TEXT_PARAMETERS if name in given}
    arguments.update({name: value(name) == "true" for name in SWITCHES if name in given})
    if arguments:
        parameters.append(arguments)
    return Node(
        package="spatial_mllm",
        executable="bringup",
        namespace=value("namespace"),
        parameters=parameters,
        arguments=["--ros-args", "--log-level", value("log_level")],
        output="screen",
        emulate_tty=True,
    )
