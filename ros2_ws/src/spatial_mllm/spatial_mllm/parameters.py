"""Typed parameters: a frozen dataclass per node is the one list of names, defaults, ranges and words.

Fields marked live may change while the node runs (and are read through `Live`); all others are
read-only and are read once. Unknown values end in one sentence, never in a traceback.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterException,
)
from rclpy.node import Node

P = TypeVar("P")


class ParameterFault(Exception):
    """A parameter has a value that cannot be used; the text is one sentence for a person."""


def parameter(
    default: Any,
    words: str,
    *,
    name: str = "",
    choices: Sequence[str] = (),
    bounds: tuple[float, float] | None = None,
    live: bool = False,
) -> Any:
    """Declare one parameter as a dataclass field.

    Args:
        default: its default; also fixes its type.
        words: what it does, with the unit.
        name: ROS name; the field's name when empty.
        choices: allowed words of a string parameter.
        bounds: smallest and largest value of a number.
        live: may be changed while the node runs.
    """
    meta = {"words": words, "name": name, "choices": tuple(choices), "bounds": bounds, "live": live}
    return dataclasses.field(default=default, metadata=meta)


def declare(node: Node, kind: type[P]) -> P:
    """Declare all parameters of a dataclass on a node and read them.

    Raises:
        ParameterFault: an override has a wrong type or value.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        name = _name(field)
        try:
            values[field.name] = node.declare_parameter(name, field.default, _descriptor(field)).value
        except (InvalidParameterTypeException, InvalidParameterValueException, ParameterException) as fault:
            raise ParameterFault(
                f"parameter '{name}' of {node.get_fully_qualified_name()}: {_sentence(fault, field)}"
            ) from fault
        _check_choice(field, values[field.name])
    node.add_on_set_parameters_callback(lambda changes: _judge(kind, changes))
    return kind(**values)


class Live:
    """The live parameters of a node, read afresh at each access: `live.depth_encoding`."""

    def __init__(self, node: Node, kind: type[Any]) -> None:
        self._node = node
        self._names = {f.name: _name(f) for f in dataclasses.fields(kind) if f.metadata["live"]}

    def __getattr__(self, field: str) -> Any:
        try:
            return self._node.get_parameter(self._names[field]).value
        except KeyError:
            raise AttributeError(f"'{field}' is no live parameter") from None


def _name(field: dataclasses.Field[Any]) -> str:
    return field.metadata["name"] or field.name


def _descriptor(field: dataclasses.Field[Any]) -> ParameterDescriptor:
    meta = field.metadata
    descriptor = ParameterDescriptor(description=meta["words"], read_only=not meta["live"])
    if meta["choices"]:
        descriptor.additional_constraints = "one of: " + ", ".join(meta["choices"])
    if meta["bounds"] is not None:
        low, high = meta["bounds"]
        if isinstance(field.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    return descriptor


def _check_choice(field: dataclasses.Field[Any], value: Any) -> None:
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise ParameterFault(f"parameter '{_name(field)}' is '{value}', expected one of {', '.join(choices)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ParameterFault(f"parameter '{_name(field)}' is {value}, expected a finite number")


def _sentence(fault: Exception, field: dataclasses.Field[Any]) -> str:
    bounds = field.metadata["bounds"]
    expected = type(field.default).__name__
    if bounds is not None:
        expected += f" from {bounds[0]:g} to {bounds[1]:g}"
    return f"expected {expected}; {' '.join(str(fault).split())}"


def _judge(kind: type[Any], changes: Sequence[Any]) -> SetParametersResult:
    fields = {_name(f): f for f in dataclasses.fields(kind)}
    for change in changes:
        field = fields.get(change.name)
        if field is None:
            continue
        if not isinstance(change.value, type(field.default)):
            kind_name = type(field.default).__name__
            return SetParametersResult(successful=False, reason=f"'{change.name}' must be a {kind_name}")
        try:
            _check_choice(field, change.value)
        except ParameterFault as fault:
            return SetParametersResult(successful=False, reason=str(fault))
    return SetParametersResult(successful=True)
