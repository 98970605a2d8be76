"""Which readers there are and which options each takes; imports none before it is asked for."""

from __future__ import annotations

import importlib
import inspect
import math
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.sources.base import SceneRef

#: Kind of source -> module with `find_scenes(path, *, ...) -> list[SceneRef]`.
READERS: dict[str, str] = {
    kind: f"spatial_mllm_training.sources.{kind}"
    for kind in (
        "scannet",
        "tum",
        "seven_scenes",
        "posed_rgbd",
        "tapvid3d",
        "object_motion",
        "rosbag",
        "simulated",
    )
}
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def find_scenes(kind: str, path: Path, **options: object) -> list[SceneRef]:
    """Return the scenes that a reader finds at `path`.

    Args:
        options: of that reader; text is turned into the type that the option has ("0,1,0" into
            three numbers), as a command line needs it.

    Raises:
        SpatialError: UNKNOWN_TASK for a kind or an option that there is not, BAD_NUMBER for text of
            another type. SceneProblem: nothing there.
    """
    module = _module(kind)
    types = _option_types(module)
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in types:
            known = ", ".join(types) or "none"
            raise SpatialError(
                ErrorCode.UNKNOWN_TASK,
                f"sources of kind '{kind}' have no option '{name}'; they have: {known}",
            )
        values[name] = _parsed(f"{kind}.{name}", value, types[name]) if isinstance(value, str) else value
    found: list[SceneRef] = module.find_scenes(path, **values)
    return found


def option_names(kind: str) -> tuple[str, ...]:
    """The options of a kind. Raises SpatialError UNKNOWN_TASK."""
    return tuple(_option_types(_module(kind)))


def _module(kind: str) -> ModuleType:
    if kind not in READERS:
        raise SpatialError(
            ErrorCode.UNKNOWN_TASK, f"there are no sources of kind '{kind}'; there are: {', '.join(READERS)}"
        )
    return importlib.import_module(READERS[kind])


def _option_types(module: ModuleType) -> dict[str, Any]:
    """Types of the keyword-only arguments of `find_scenes`."""
    parameters = inspect.signature(module.find_scenes).parameters.values()
    hints = get_type_hints(module.find_scenes)
    return {p.name: hints[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}


def _parsed(name: str, text: str, wanted: Any) -> Any:
    try:
        return _value(text, wanted)
    except ValueError as error:
        raise SpatialError(ErrorCode.BAD_NUMBER, f"option {name} should be {error}, found '{text}'") from None


def _value(text: str, wanted: Any) -> Any:
    """`text` as the type `wanted`; ValueError says in words what was expected."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        (wanted,) = (a for a in arguments if a is not NoneType)  # an option that is None is left out
        return _value(text, wanted)
    if origin is Literal:
        if text not in arguments:
            raise ValueError(f"one of {', '.join(arguments)}")
        return text
    if origin is tuple:
        return _numbers(text, arguments)
    if wanted is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError("true or false")
        return _BOOLEANS[text.lower()]
    if wanted in (int, float):
        try:
            return _number(text, wanted)
        except ValueError:
            raise ValueError("a whole number" if wanted is int else "a number") from None
    return wanted(text)  # str, Path


def _numbers(text: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """A tuple of numbers separated by commas; `arguments` as of tuple[float, float] or tuple[float, ...]."""
    words = text.split(",")
    count = None if arguments[-1] is Ellipsis else len(arguments)
    expected = f"{'' if count is None else f'{count} '}numbers separated by commas"
    if count is not None and len(words) != count:
        raise ValueError(expected)
    try:
        return tuple(_number(word, arguments[0]) for word in words)
    except ValueError:
        raise ValueError(expected) from None


def _number(text: str, wanted: Any) -> Any:
    number = wanted(text)
    if not math.isfinite(number):
        raise ValueError
    return number
