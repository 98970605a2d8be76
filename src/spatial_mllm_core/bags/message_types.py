"""Message types of bags: those of ROS 2 and ours; knows type definitions, no files of bags.

The .msg files of `spatial_mllm_msgs` are the only source of our types: `msg/` beside this module
is a link to them (a wheel carries the files themselves), and rclpy's generators read the same files.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatial_mllm_core.errors import ErrorCode, SpatialError

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

OUR_PACKAGE = "spatial_mllm_msgs"
MSG_DIRECTORY = Path(__file__).parent / "msg"


def our_definitions() -> dict[str, str]:
    """Type name -> text of the .msg file, for every message of `spatial_mllm_msgs`.

    Raises:
        SpatialError: NOT_READY when the installation lacks the files.
    """
    files = sorted(MSG_DIRECTORY.glob("*.msg"))
    if not files:
        raise SpatialError(
            ErrorCode.NOT_READY,
            f"no .msg files of {OUR_PACKAGE} in the installation; install spatial_mllm_core again",
        )
    return {f"{OUR_PACKAGE}/msg/{file.stem}": file.read_text(encoding="utf-8") for file in files}


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """ROS 2 Jazzy's messages plus ours; used for writing and for bags that carry no definitions.

    Humble's sensor_msgs, geometry_msgs, std_msgs and tf2_msgs have the same layout.
    """
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    ours: dict[str, Any] = {}
    for name, text in our_definitions().items():
        ours.update(get_types_from_msg(text, name))
    store.register(ours)
    return store


def make_message(type_name: str, **fields: Any) -> Any:
    """A message object of `type_name`; every field must be given (sequences of numbers as arrays).

    Raises:
        KeyError, TypeError: unknown type or field; both are programming errors.
    """
    return typestore().types[type_name](**fields)


def make_stamp(stamp_ns: int) -> Any:
    """builtin_interfaces/Time of nanoseconds since the epoch."""
    return make_message(
        "builtin_interfaces/msg/Time", sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000
    )


def make_header(stamp_ns: int, frame_id: str) -> Any:
    """std_msgs/Header."""
    return make_message("std_msgs/msg/Header", stamp=make_stamp(stamp_ns), frame_id=frame_id)


def stamp_ns_of(message: Any) -> int:
    """Nanoseconds of a message's `header.stamp` (ROS 2 names, and ROS 1's as rosbags maps them)."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
