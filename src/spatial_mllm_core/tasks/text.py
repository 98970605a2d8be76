"""Numbers and coordinates as MultiSPA text: the only place where metres become millimetres.

Published conventions (papers.md 2.2, 2.3): lengths are whole millimetres in backticks,
coordinates are `[ x , y ]` on a 0-1000 scale with spaces inside the brackets, vectors are
`[x, y, z]` in millimetres without them. Parsing accepts what models really write
(no backticks, units, decimal points, thousands separators) and refuses what has no
single reading.
"""

from __future__ import annotations

import math
import re

from spatial_mllm_core.errors import ErrorCode, SpatialError

COORDINATE_SCALE = 1000
_NUMBER = r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?"
_LENGTH = re.compile(
    rf"({_NUMBER})\s*(mm|millimet(?:er|re)s?|cm|centimet(?:er|re)s?|m|met(?:er|re)s?)?\b", re.I
)
_BRACKET = re.compile(r"\[([^\[\]]*)\]")
_METRES_PER_UNIT = {"mm": 1e-3, "cm": 1e-2, "m": 1.0}


def _unparsable(expected: str, text: str) -> SpatialError:
    return SpatialError(
        ErrorCode.UNPARSABLE_ANSWER, f"expected {expected} in the model's answer, found '{text[:80]}'"
    )


def _number(token: str) -> float:
    return float(token.replace("−", "-").replace(",", ""))


def format_mm(length_m: float) -> str:
    """Whole millimetres of a length in metres."""
    return str(round(length_m * 1000.0))


def format_vector_mm(vector_m: tuple[float, float, float]) -> str:
    """`[x, y, z]` in whole millimetres of a vector in metres."""
    return "[" + ", ".join(format_mm(v) for v in vector_m) + "]"


def pixel_to_coordinate(pixel: tuple[float, float], width: int, height: int) -> tuple[int, int]:
    """Pixel to the 0-1000 scale: round(x / W * 1000), kept in [0, 999] (papers.md 2.6)."""
    u, v = pixel
    top = COORDINATE_SCALE - 1
    return (
        min(max(round(u / width * COORDINATE_SCALE), 0), top),
        min(max(round(v / height * COORDINATE_SCALE), 0), top),
    )


def coordinate_to_pixel(coordinate: tuple[float, float], width: int, height: int) -> tuple[float, float]:
    """Inverse of `pixel_to_coordinate` up to its rounding."""
    return coordinate[0] * width / COORDINATE_SCALE, coordinate[1] * height / COORDINATE_SCALE


def format_coordinate(coordinate: tuple[int, int]) -> str:
    """`[ x , y ]`, the published spelling."""
    return f"[ {coordinate[0]} , {coordinate[1]} ]"


def parse_length_m(text: str) -> float:
    """Metres from an answer such as "`1150`", "1150 mm" or "1.15 m"; no unit means millimetres.

    Raises:
        SpatialError: UNPARSABLE_ANSWER when no number, or two different ones, stand there.
    """
    quoted = re.findall(r"`([^`]*)`", text)
    source = quoted[-1] if quoted else text
    lengths: set[float] = set()
    for number, unit in _LENGTH.findall(source):
        key = unit.lower()
        name = "mm" if key.startswith("mil") or key in ("", "mm") else "cm" if key.startswith("c") else "m"
        lengths.add(_number(number) * _METRES_PER_UNIT[name])
    if len(lengths) != 1:
        raise _unparsable("one length in millimetres", text)
    value = lengths.pop()
    if not math.isfinite(value):
        raise _unparsable("a finite length", text)
    return value


def _parse_bracket(text: str, count: int, expected: str) -> tuple[float, ...]:
    brackets = _BRACKET.findall(text)
    if not brackets:
        raise _unparsable(expected, text)
    parts = [p.strip() for p in brackets[-1].split(",")]
    if len(parts) != count or not all(re.fullmatch(_NUMBER, p) for p in parts):
        raise _unparsable(expected, text)
    values = tuple(_number(p) for p in parts)
    if not all(math.isfinite(v) for v in values):
        raise _unparsable(expected, text)
    return values


def parse_vector_m(text: str) -> tuple[float, float, float]:
    """Metres from `[x, y, z]` in millimetres."""
    x, y, z = _parse_bracket(text, 3, "a vector [x, y, z] in millimetres")
    return x / 1000.0, y / 1000.0, z / 1000.0


def parse_coordinate(text: str) -> tuple[float, float]:
    """The last `[ x , y ]` of an answer, on the 0-1000 scale."""
    x, y = _parse_bracket(text, 2, "a coordinate [ x , y ]")
    if not (0 <= x <= COORDINATE_SCALE and 0 <= y <= COORDINATE_SCALE):
        raise _unparsable("a coordinate between 0 and 1000", text)
    return x, y


def parse_word(text: str, words: tuple[str, ...]) -> str:
    """The one of `words` that stands in the answer (in backticks, or alone)."""
    quoted = re.findall(r"`([^`]*)`", text)
    source = (quoted[-1] if quoted else text).lower()
    found = {w for w in words if re.search(rf"\b{re.escape(w)}\b", source)}
    if len(found) != 1:
        raise _unparsable(f"one of {', '.join(words)}", text)
    return found.pop()
