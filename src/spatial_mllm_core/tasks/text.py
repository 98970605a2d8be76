"""Numbers and coordinates as MultiSPA text: the only place where metres become millimetres.

Published conventions (papers.md 2.2, 2.3): lengths are whole millimetres and angles whole degrees,
coordinates are `[ x , y ]` on a 0-1000 scale with spaces inside the brackets, vectors are
`[x, y, z]` in millimetres without them. Every number is rounded to the nearest integer, as the
paper says of lengths; the published code truncates camera numbers, which would shorten every
angle by half a degree in the mean and turn 1.9 degrees into an answer that its own 20 % rule
refuses. What the text loses stays in the row's `spatial` record. How answers are read back is
`reading`'s business.
"""

from __future__ import annotations

import re

COORDINATE_SCALE = 1000


def whole(number: float) -> int:
    """The nearest integer."""
    return round(number)


def whole_mm(length_m: float) -> int:
    """Whole millimetres of a length in metres."""
    return whole(length_m * 1000.0)


def pixel_to_coordinate(pixel: tuple[float, float], width: int, height: int) -> tuple[int, int]:
    """Pixel to the 0-1000 scale: round(x / W * 1000), kept in [0, 999] (papers.md 2.6)."""
    u, v = pixel
    return whole_coordinate((u / width * COORDINATE_SCALE, v / height * COORDINATE_SCALE))


def whole_coordinate(coordinate: tuple[float, float]) -> tuple[int, int]:
    """The nearest coordinate of whole numbers in [0, 999]."""
    top = COORDINATE_SCALE - 1
    x, y = coordinate
    return min(max(whole(x), 0), top), min(max(whole(y), 0), top)


def coordinate_to_pixel(coordinate: tuple[float, float], width: int, height: int) -> tuple[float, float]:
    """Inverse of `pixel_to_coordinate` up to its rounding."""
    return coordinate[0] * width / COORDINATE_SCALE, coordinate[1] * height / COORDINATE_SCALE


def format_coordinate(coordinate: tuple[int, int]) -> str:
    """`[ x , y ]`, the published spelling."""
    return f"[ {coordinate[0]} , {coordinate[1]} ]"


# -- numbers of one width -----------------------------------------------------------------------------

_QUOTED = re.compile(r"`([^`]*)`")
_INTEGER = re.compile(r"([-+]?)(\d+)")
_COORDINATE = re.compile(r"\[ \d+ , \d+ \]")


def widened(answer: str, digits: int) -> str:
    """An answer whose metric numbers all have `digits` digits, and a sign inside a vector.

    So spelled, the order of texts is the order of numbers, which lets a decoder find the median
    (`model.numbers`). A number with more digits becomes the largest one; the coordinates of `[ x , y ]`
    stay as they are. Readers take either spelling.
    """

    def wide(number: re.Match[str], sign: str) -> str:
        value = min(int(number.group(2)), 10**digits - 1)
        return f"{sign}{value:0{digits}d}"

    def span(quoted: re.Match[str]) -> str:
        inside = quoted.group(1)
        if inside.startswith("[ "):
            return quoted.group()
        signed = inside.startswith("[")
        return "`" + _INTEGER.sub(lambda n: wide(n, (n.group(1) or "+") if signed else ""), inside) + "`"

    return _QUOTED.sub(span, answer)


def narrowed(answer: str) -> str:
    """The published spelling of a `widened` answer."""

    def span(quoted: re.Match[str]) -> str:
        return "`" + _INTEGER.sub(lambda n: str(int(n.group())), quoted.group(1)) + "`"

    return _QUOTED.sub(span, answer)


def lettered(choices: tuple[str, ...]) -> tuple[str, ...]:
    """Answers that name a point, with the letters A, B, .. in place of its coordinate; other answers as they are.

    A decoder tells the first or the second of two named points long before it can spell out either.
    """
    if not choices or not all(_COORDINATE.search(choice) for choice in choices):
        return choices
    letters = (chr(ord("A") + place) for place in range(len(choices)))
    return tuple(_COORDINATE.sub(letter, choice) for letter, choice in zip(letters, choices, strict=True))
