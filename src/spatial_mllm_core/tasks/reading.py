"""Reads numbers, coordinates and words out of what models really write; knows no task.

A reading is accepted when it is the only one: what stands in backticks (once) wins over all other
text, then what stands behind "answer is"; units are converted; names of images ("Image-1"),
repetitions of the question's coordinates and what an answer is compared with are no answers. Two
different numbers, a negated word or an article taken for the letter A are refused, never guessed.
`strictly_*` take the published form alone: the last span in backticks, exactly as the templates
write it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.tasks.text import COORDINATE_SCALE

# divisors rather than factors: 1150 / 1000 is the float 1.15, 1150 * 0.001 is not
_PER_METRE = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 1e2),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1.0),
    **dict.fromkeys(("km", "kilometer", "kilometers", "kilometre", "kilometres"), 1e-3),
    **dict.fromkeys(("inch", "inches"), 1 / 0.0254),
    **dict.fromkeys(("ft", "foot", "feet"), 1 / 0.3048),
}
_PER_DEGREE = {
    **dict.fromkeys(("°", "deg", "degs", "degree", "degrees"), 1.0),
    **dict.fromkeys(("rad", "rads", "radian", "radians"), math.radians(1.0)),
}
_SAME_IN_ANOTHER_UNIT = 0.02
_UNSIGNED = r"(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBER = rf"(?:(?<![\w.])[-+])?(?<![\w.,]){_UNSIGNED}"
_ENDS = r"(?![A-Za-z\d]|[.,]\d)"
_QUOTED = re.compile(r"`([^`]+)`")
_CUE = re.compile(r"\banswer(?:\s+is|\s*[:=])\s*(?=[^\s.])", re.I)
_IMAGE_NAME = re.compile(r"\b(?:image|frame|view|picture|photo)s?[\s#_-]*\d+\b", re.I)
_JOINTS = {"", "-", "–", "—", "~", "/", "to", "or", "and", "+/-", "±"}
_SQUARE = re.compile(r"\[([^\[\]]*)\]")
_ROUND = re.compile(r"\(([^()]*)\)")
_REPEATS_QUESTION = re.compile(r"(?:\b(?:than|of|for|compared (?:to|with)|not)|,? ?\b(?:and|or))\s*$", re.I)
_JOINED_WITH_NEXT = re.compile(r",? ?\b(?:and|or)\b[^.;\[(]{0,20}[\[(]", re.I)
_IS_ANOTHER = re.compile(
    r"(?:\b(?:not|never|neither|nor|than|instead of|opposed to|compared (?:to|with))|n't)"
    r"(?: (?!but\b|instead\b|rather\b)[\w'-]+){0,4} $",
    re.I,
)
_REASON = re.compile(r"\b(?:because|since|whereas|while|although)\b", re.I)
_VERBS = (
    "is was has lies looks seems appears matches corresponds marks shows and or because since in on at for with as "
    "which than"
)


def _unparsable(expected: str, answer: str) -> SpatialError:
    return SpatialError(
        ErrorCode.UNPARSABLE_ANSWER, f"expected {expected} in the model's answer, found '{answer[:80]}'"
    )


def _plain(answer: str) -> str:
    """Typographic and LaTeX spellings of one thing as one."""
    plain = re.sub(r"\\(?:text|mathrm|mathbf|boxed)\s*\{([^{}]*)\}", r" \1 ", answer)
    plain = re.sub(r"\^\s*\{?\\circ\}?", "°", plain)
    plain = re.sub(r"\\[,;: ]|[\u00a0\u202f\u2009]", " ", plain)
    return plain.replace("−", "-").replace("\\", " ").replace("*", "").replace("$", " ")


def _decisive(answer: str, units: str = "") -> tuple[str, str]:
    """The part of an answer that decides and why: "quoted" (a unit behind the backticks is kept), "cued" or "free"."""
    plain = _plain(answer)
    quoted = list(_QUOTED.finditer(plain))
    if len({q.group(1).strip() for q in quoted}) == 1:
        unit = re.match(rf"\s*({units})(?![A-Za-z])", plain[quoted[-1].end() :], re.I) if units else None
        return f"{quoted[-1].group(1)} {unit.group(1) if unit else ''}".strip(), "quoted"
    plain = plain.replace("`", "")
    cues = list(_CUE.finditer(plain))
    return (plain[cues[-1].end() :].split("\n")[0], "cued") if cues else (plain, "free")


def _alternatives(units: Mapping[str, float]) -> str:
    return "|".join(re.escape(u) for u in sorted(units, key=len, reverse=True))


def _value(token: str) -> float:
    return float(token.replace(",", ""))


def _quantity(answer: str, units: Mapping[str, float], default: str, expected: str) -> float:
    """The one number of an answer in base units; in free text numbers with a unit win over bare ones."""
    alternatives = _alternatives(units)
    source, why = _decisive(answer, alternatives)
    if why != "quoted":
        source = _SQUARE.sub(" , ", _IMAGE_NAME.sub(" , ", source))
    found = list(re.finditer(rf"({_NUMBER})\s*({alternatives})?{_ENDS}", source, re.I))
    kept = {i for i, m in enumerate(found) if m.group(2)}
    if why == "quoted" or not kept:
        kept = set(range(len(found)))
    for i in range(len(found) - 1):  # "10 to 20 mm" are two numbers, though one has no unit
        if source[found[i].end() : found[i + 1].start()].strip().lower() in _JOINTS:
            kept |= {i, i + 1}
    scales = [units[(found[i].group(2) or default).lower()] for i in sorted(kept)]
    values = [_value(found[i].group(1)) / scale for i, scale in zip(sorted(kept), scales, strict=True)]
    if not values or not all(
        math.isclose(v, values[0], rel_tol=1e-9 if scale == scales[0] else _SAME_IN_ANOTHER_UNIT)
        for v, scale in zip(values, scales, strict=True)
    ):
        raise _unparsable(expected, answer)
    return _finite((values[0],), expected, answer)[0]


def _finite(values: tuple[float, ...], expected: str, answer: str) -> tuple[float, ...]:
    if not all(math.isfinite(v) for v in values):
        raise _unparsable(f"{expected}, finite,", answer)
    return values


def length_m(answer: str) -> float:
    """Metres of an answer such as "`1150`", "1150 mm" or "1.15 m"; no unit means millimetres.

    Raises:
        SpatialError: UNPARSABLE_ANSWER when no number, or two different ones, stand there.
    """
    return _quantity(answer, _PER_METRE, "mm", "one length in millimetres")


def angle_deg(answer: str) -> float:
    """Degrees of an answer such as "`12`", "12°" or "0.21 rad"; no unit means degrees.

    Raises:
        SpatialError: UNPARSABLE_ANSWER when no number, or two different ones, stand there.
    """
    return _quantity(answer, _PER_DEGREE, "deg", "one angle in degrees")


def _tuples(source: str, count: int, units: str) -> list[tuple[re.Match[str], tuple[tuple[float, str], ...]]]:
    """(where, ((number, unit), ...)) of every bracket of `count` numbers; a unit behind it holds for all."""
    unit_behind = re.compile(rf"\s*({units})(?![A-Za-z])", re.I)
    part = re.compile(rf"(?:[xyz]\s*[:=]\s*)?({_NUMBER})\s*({units})?", re.I)
    for bracket in (_SQUARE, _ROUND):
        tuples = []
        for match in bracket.finditer(source):
            pieces = re.split(r"[,;]", match.group(1))
            pieces = match.group(1).split() if len(pieces) == 1 else [p.strip() for p in pieces]
            read = [part.fullmatch(p) for p in pieces]
            behind = unit_behind.match(source, match.end())
            unit = behind.group(1) if behind else next((r.group(2) for r in read if r and r.group(2)), "")
            numbers = tuple((_value(r.group(1)), (r.group(2) or unit).lower()) for r in read if r)
            if len(pieces) == len(numbers) == count:
                tuples.append((match, numbers))
        if tuples:
            return tuples
    # without brackets: named axes, or nothing but the numbers
    axes = r"[\s,;]+(?:and\s+)?".join(
        rf"{axis}\s*(?:[:=]|is)\s*({_NUMBER})\s*({units})?" for axis in "xyz"[:count]
    )
    bare = r"\s*,\s*".join(rf"({_NUMBER})\s*({units})?" for _ in range(count))
    named = list(re.finditer(rf"\b{axes}{_ENDS}", source, re.I))
    only = named[-1] if named else re.fullmatch(rf"\s*{bare}[\s.]*", source, re.I)
    if only is None:
        return []
    groups = only.groups()
    unit = next((u for u in reversed(groups[1::2]) if u), "")
    return [
        (
            only,
            tuple((_value(n), (u or unit).lower()) for n, u in zip(groups[::2], groups[1::2], strict=True)),
        )
    ]


def vector_m(answer: str) -> tuple[float, float, float]:
    """Metres of `[x, y, z]`; no unit means millimetres.

    Raises:
        SpatialError: UNPARSABLE_ANSWER when no vector, or two different ones, stand there.
    """
    expected = "a vector [x, y, z] in millimetres"
    units = _alternatives(_PER_METRE)
    source, _ = _decisive(answer, units)
    vectors = {
        tuple(number / _PER_METRE[unit or "mm"] for number, unit in numbers)
        for _, numbers in _tuples(source, 3, units)
    }
    if len(vectors) != 1:
        raise _unparsable(expected, answer)
    x, y, z = _finite(vectors.pop(), expected, answer)
    return x, y, z


def coordinate(answer: str, *, is_choice: bool = False) -> tuple[float, float]:
    """`[ x , y ]` of an answer, on the 0-1000 scale.

    Coordinates behind "of", "for", "than" repeat the question. Of several that are left the last
    one counts, as in "[ 512 , 340 ] corresponds to [ 363 , 70 ]".

    Args:
        is_choice: the answer is one of the question's own coordinates, so that two different
            ones have no single reading.

    Raises:
        SpatialError: UNPARSABLE_ANSWER.
    """
    expected = "a coordinate [ x , y ]"
    source, _ = _decisive(answer)
    found = _tuples(source, 2, "px|pixels?")
    own = [
        numbers
        for at, numbers in found
        if not _REPEATS_QUESTION.search(source[max(at.start() - 40, 0) : at.start()])
        and not _JOINED_WITH_NEXT.match(source, at.end())
    ]
    chosen = own or [numbers for _, numbers in found]
    points = [tuple(number for number, _ in numbers) for numbers in chosen]
    if not points or (is_choice and len(set(points)) > 1):
        raise _unparsable(expected, answer)
    x, y = points[-1]
    if not (0 <= x <= COORDINATE_SCALE and 0 <= y <= COORDINATE_SCALE):
        raise _unparsable("a coordinate between 0 and 1000", answer)
    return x, y


def word(answer: str, words: tuple[str, ...]) -> str:
    """The one of `words` that an answer gives; letters are read as letters ("a" is an article, "(B)" is not).

    Raises:
        SpatialError: UNPARSABLE_ANSWER when none, or more than one, is given.
    """
    source, why = _decisive(answer)
    source = re.sub(r"\s+", " ", source.replace("’", "'"))
    are_letters = all(len(w) == 1 for w in words)
    alone = source.strip(" .,:;!?()[]{}<>\"'").upper()
    if are_letters and alone in words:
        return alone
    pattern = _letter_pattern(words) if are_letters else _word_pattern(words)
    listing = re.compile(
        rf"{pattern}(?:(?:\s*[,/]\s*(?:and |or )?| and | or )(?:the )?(?:point |dot |option |label )?{pattern})+",
        0 if are_letters else re.I,
    )
    # "Of A, B, C and D, ..." repeats the question and a reason speaks of the others, unless nothing else is said
    unlisted = listing.sub(" , ", source)
    texts = [_REASON.split(unlisted)[0], unlisted, source]
    if why == "cued":  # "The answer is B. A lies on the wall."
        texts.insert(0, re.split(r"[.;]", source)[0])
    for text in texts:
        found = {
            next(w for w in words if m.group().lower().startswith(w.lower()))
            for m in re.finditer(pattern, text, 0 if are_letters else re.I)
            if not _IS_ANOTHER.search(text[max(m.start() - 80, 0) : m.start()])
        }
        if found:
            break
    if len(found) != 1:
        raise _unparsable(f"one of {', '.join(words)}", answer)
    return found.pop()


def _letter_pattern(words: tuple[str, ...]) -> str:
    """Capital letters that stand alone; an A before a noun ("A chair") is an article."""
    verbs = "|".join(_VERBS.split())
    letters = "".join(words)
    return rf"(?<![\w'-])(?!A (?!(?:{verbs})\b)[a-z])[{letters}](?![\w'-])"


def _word_pattern(words: tuple[str, ...]) -> str:
    """Whole words, also as "upwards" or "leftward"."""
    return rf"\b(?:{'|'.join(map(re.escape, words))})(?:wards?|(?<=ward)s)?\b"


# -- the published extraction -------------------------------------------------------------------------

_INTEGER = r"([-+]?\d{1,15})"  # a number repeated for ever is no answer, and no float


def _strictly(answer: str, form: str, expected: str) -> tuple[str, ...]:
    spans = _QUOTED.findall(answer)
    match = re.fullmatch(form, spans[-1].strip()) if spans else None
    if match is None:
        raise _unparsable(f"{expected} in backticks", answer)
    return match.groups()


def strictly_whole(answer: str) -> int:
    """The integer in the last backticks."""
    return int(_strictly(answer, _INTEGER, "a whole number")[0])


def strictly_integers(answer: str, count: int) -> tuple[int, ...]:
    """The bracket of `count` integers in the last backticks."""
    form = r"\[\s*" + r"\s*,\s*".join([_INTEGER] * count) + r"\s*\]"
    return tuple(int(n) for n in _strictly(answer, form, f"a bracket of {count} whole numbers"))


def strictly_word(answer: str, words: tuple[str, ...]) -> str:
    """The word in the last backticks, letter by letter."""
    form = f"({'|'.join(map(re.escape, words))})"
    return _strictly(answer, form, f"one of {', '.join(words)}")[0]
