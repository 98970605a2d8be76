"""Joins what a model answered with how well it lifted the images of each question; draws no curve."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spatial_mllm_core.files import write_atomically
from spatial_mllm_training.benchmark.data import Predictions
from spatial_mllm_training.benchmark.judging import WRONG, judge
from spatial_mllm_training.multispa.rows import Row
from spatial_mllm_training.probe.errors import ImageError
from spatial_mllm_training.probe.problems import ProbeProblem
from spatial_mllm_training.probe.relation import Quarter, Slope, logistic_slope, quarters
from spatial_mllm_training.sources.posed_images import Place

MEASURES = ("rmse_m", "abs_rel", "matched_rmse_m")


@dataclass(frozen=True)
class Quality:
    """QA accuracy against lifting quality.

    Attributes:
        measure: which lifting error.
        plain: quarters of all questions, as in the paper.
        within: quarters cut within each type of question.
        questions: used; `without_lifting`: no image of theirs was lifted; `unserved`: of subtasks that
            the model was not asked.
    """

    model: str
    measure: str
    plain: tuple[Quarter, ...]
    within: tuple[Quarter, ...]
    slope: Slope
    questions: int
    without_lifting: int
    unserved: int

    def to_json(self) -> dict[str, Any]:
        return _without_nan(asdict(self))


def relate(
    rows: Sequence[Row],
    predictions: Predictions,
    lifting: Mapping[tuple[str, str], Mapping[str, float]],
    *,
    measure: str = "rmse_m",
) -> Quality:
    """Judge the answers and hold them against the mean lifting error of the question's images.

    Args:
        lifting: (scene, frame) -> errors, as `read_lifting` gives them.

    Raises:
        ProbeProblem: fewer than four questions have a lifted image.
    """
    errors, right, types, scenes = [], [], [], []
    without = unserved = 0
    for row in rows:
        if predictions.served is not None and row.question_type not in predictions.served:
            unserved += 1
            continue
        keys = [(row.spatial.scene, frame) for frame in row.spatial.frames]
        found = [lifting[key][measure] for key in keys if key in lifting]
        if not found:
            without += 1
            continue
        text = predictions.texts.get(row.id)
        errors.append(math.fsum(found) / len(found))
        right.append((WRONG if text is None else judge(row, text)).is_right)
        types.append(row.question_type)
        scenes.append(row.spatial.scene)
    if len(errors) < 4:
        raise ProbeProblem(
            f"only {len(errors)} of {len(rows)} questions have a lifted image; lift the frames of the data "
            "with --data, and look at whether its scenes are the ones that were lifted"
        )
    return Quality(
        predictions.model,
        measure,
        tuple(quarters(errors, right, scenes)),
        tuple(quarters(errors, right, scenes, within=types)),
        logistic_slope(errors, right, types, scenes),
        len(errors),
        without,
        unserved,
    )


def write_lifting(
    file: Path, places: Sequence[Place], errors: Sequence[ImageError], matched: Sequence[ImageError]
) -> None:
    """JSON lines, one per image. Raises SpatialError NOT_WRITABLE."""
    lines = [
        json.dumps({**asdict(place), **asdict(error), "matched_rmse_m": best.rmse_m})
        for place, error, best in zip(places, errors, matched, strict=True)
    ]
    write_atomically(file, "".join(f"{line}\n" for line in lines).encode(), replace=True)


def read_lifting(file: Path) -> dict[tuple[str, str], dict[str, float]]:
    """(scene, frame) -> its errors, from `write_lifting`.

    Raises:
        ProbeProblem: naming the line that is no such record, or holds a number that is not finite.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ProbeProblem(f"cannot read the lifted images '{file}': {error}") from None
    found: dict[tuple[str, str], dict[str, float]] = {}
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            key = (str(record["scene"]), str(record["frame"]))
            values = {measure: float(record[measure]) for measure in MEASURES}
        except (ValueError, KeyError, TypeError):
            raise ProbeProblem(
                f"{file}, line {number}: not the record of a lifted image with {', '.join(MEASURES)}"
            ) from None
        if not all(math.isfinite(value) for value in values.values()):
            raise ProbeProblem(f"{file}, line {number}: an error that is not finite")
        if key in found:
            raise ProbeProblem(f"{file}, line {number}: the image {key[0]}/{key[1]} for the second time")
        found[key] = values
    if not found:
        raise ProbeProblem(f"'{file}' holds no lifted image")
    return found


def checkpoint_figures(lifting: Path, score: Path) -> tuple[float, float]:
    """(lifting RMSE in metres, QA accuracy in per cent) of a checkpoint, from the JSON of `depth` or
    `lift` and of `benchmark score`.

    Raises:
        ProbeProblem: a file that does not hold its figure.
    """
    return (
        _figure(lifting, ("rmse_m",), "the JSON of `probe depth` or `probe lift`"),
        _figure(score, ("group_mean", "robust", "percent"), "the JSON of `benchmark score`"),
    )


def _figure(file: Path, path: tuple[str, ...], words: str) -> float:
    try:
        value: Any = json.loads(file.read_text(encoding="utf-8"))
        for name in path:
            value = value[name]
        number = float(value)
    except OSError as error:
        raise ProbeProblem(f"cannot read '{file}': {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError):
        raise ProbeProblem(f"'{file}' has no {'.'.join(path)}; it should be {words}") from None
    if not math.isfinite(number):
        raise ProbeProblem(f"'{file}': {'.'.join(path)} is not finite")
    return number


def table(quality: Quality) -> str:
    """The result in lines for a person."""
    unit = " m" if quality.measure.endswith("_m") else ""
    lines = [
        f"{quality.model}: {quality.questions} questions by lifting error ({quality.measure}), worst lifted first",
        f"{'bin':<5}{'error':>20}{'n':>7}{'accuracy':>11}{'±':>6}{'± by scene':>12}{'within types':>15}{'±':>6}",
    ]
    same_mixture = {q.number: q.accuracy for q in quality.within}
    for one in quality.plain:
        a, b = one.accuracy, same_mixture.get(one.number)
        span = f"{one.error_low:.3f} to {one.error_high:.3f}{unit}"
        lines.append(
            f"{one.number:<5}{span:>20}{a.n:>7}{a.percent:>9.1f} %{a.standard_error:>6.1f}{a.scene_error:>12.1f}"
            + (f"{b.percent:>13.1f} %{b.standard_error:>6.1f}" if b else "")
        )
    s = quality.slope
    if math.isfinite(s.per_unit):
        lines.append(
            f"log odds of a right answer per{unit or ' unit'} of error, types held apart: {s.per_unit:+.3f} "
            f"± {s.standard_error:.3f} (± {s.scene_error:.3f} by scene), {s.n} questions; "
            f"{s.per_deviation:+.2f} per standard deviation"
        )
    else:
        lines.append("the answers do not bound a slope: too few, or right and wrong are separated")
    if s.left_out:
        lines.append(f"all right or all wrong, so without a say in the slope: {', '.join(s.left_out)}")
    if quality.without_lifting or quality.unserved:
        lines.append(
            f"not used: {quality.without_lifting} questions without a lifted image, "
            f"{quality.unserved} of subtasks the model was not asked"
        )
    return "\n".join(lines)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
