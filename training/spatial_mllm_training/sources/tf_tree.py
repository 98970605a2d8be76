"""A tree of timed transforms, as tf keeps it: who is where in whom, when; knows neither bags nor cameras."""

from __future__ import annotations

from array import array
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

_NORM = 0.01  # how far a quaternion's length may be from 1; drivers round, zeros mean "never set"


class MissingTransformError(LookupError):
    """A transform cannot be told; `sentence` says why, `edge` names the link at fault."""

    def __init__(self, edge: str, sentence: str) -> None:
        self.edge, self.sentence = edge, sentence
        super().__init__(sentence)


class TransformTree:
    """Transforms between named frames; between two stamps translation is linear and rotation slerp (as tf2).

    Unlike tf2, whose buffer holds ten seconds, a whole recording lies here, so that two stamps may be
    far apart: beyond `max_gap_s` nothing is made up between them.
    """

    def __init__(self, max_gap_s: float = 1.0) -> None:
        self._max_gap_ns = round(max_gap_s * 1e9)
        self._edges: dict[str, _Edge] = {}

    def add(
        self,
        parent: str,
        child: str,
        stamp_ns: int,
        translation_m: tuple[float, float, float],
        quaternion_xyzw: tuple[float, float, float, float],
        *,
        is_static: bool,
    ) -> None:
        """Add one sample of parent_from_child; numbers that are no rigid motion make its time unknown."""
        parent, child = parent.lstrip("/"), child.lstrip("/")
        self._edges.setdefault(child, _Edge(child)).add(
            parent, stamp_ns, (*translation_m, *quaternion_xyzw), is_static
        )

    def forget(self, child: str) -> None:
        """Drop what is known of a frame's pose in its parent."""
        self._edges.pop(child.lstrip("/"), None)

    def is_static(self, child: str) -> bool:
        """Whether a frame that has a parent keeps its place in it for ever."""
        return self._edges[child].is_static

    def chain(self, frame: str) -> list[str]:
        """Return the frame, its parent and so on to the root.

        Raises:
            MissingTransformError: a frame on the way has two parents, or is its own ancestor.
        """
        names = [frame.lstrip("/")]
        while names[-1] in self._edges:
            parent = self._edges[names[-1]].parent
            if parent in names:
                raise MissingTransformError(parent, f"the frames {', '.join(names)} form a loop")
            names.append(parent)
        return names

    def lookup(self, target: str, source: str, stamp_ns: int) -> NDArray[np.float64]:
        """Return target_from_source (4, 4) at a time.

        Raises:
            MissingTransformError: the frames are not connected, or not at that time.
        """
        from_target, from_source = self.chain(target), self.chain(source)
        common = next((name for name in from_source if name in from_target), None)
        if common is None:
            raise MissingTransformError(
                source,
                f"no transforms connect '{from_source[0]}' (below '{from_source[-1]}') with '{from_target[0]}' "
                f"(below '{from_target[-1]}')",
            )
        target_from_common = np.linalg.inv(self._up(from_target, common, stamp_ns))
        return np.asarray(target_from_common @ self._up(from_source, common, stamp_ns))

    def _up(self, names: list[str], ancestor: str, stamp_ns: int) -> NDArray[np.float64]:
        """Return ancestor_from_names[0]."""
        matrix = np.eye(4)
        for name in names[: names.index(ancestor)]:
            matrix = self._edges[name].at(stamp_ns, self._max_gap_ns) @ matrix
        return matrix


class _Edge:
    """The samples of one frame in its parent."""

    def __init__(self, child: str) -> None:
        self._child = child
        self._parents: dict[str, None] = {}
        self.is_static = True
        self._stamps = array("q")
        self._values = array("d")

    def add(self, parent: str, stamp_ns: int, values: tuple[float, ...], is_static: bool) -> None:
        self._parents[parent] = None
        if self.is_static and not is_static:  # what moves once is not static
            self._stamps, self._values = array("q"), array("d")
        if self.is_static or not is_static:
            self._stamps.append(stamp_ns)
            self._values.extend(values)
        self.is_static = self.is_static and is_static
        self.__dict__.pop("_sorted", None)

    @property
    def parent(self) -> str:
        if len(self._parents) > 1:
            raise MissingTransformError(
                self._child, f"the frame '{self._child}' has several parents: {', '.join(self._parents)}"
            )
        return next(iter(self._parents))

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Stamps (n,) rising, and translation with quaternion (n, 7), NaN where they are no rigid motion."""
        stamps, values = np.array(self._stamps), np.array(self._values).reshape(-1, 7)
        with np.errstate(over="ignore"):
            values[~(np.abs(np.linalg.norm(values[:, 3:], axis=1) - 1) <= _NORM)] = np.nan
        order = np.argsort(stamps, kind="stable")
        stamps, values = stamps[order], values[order]
        last = np.append(stamps[1:] != stamps[:-1], True)  # of equal stamps the latest sample
        return stamps[last], values[last]

    def at(self, stamp_ns: int, max_gap_ns: int) -> NDArray[np.float64]:
        stamps, values = self._sorted
        if self.is_static:
            return self._matrix(values[-1:], np.zeros(1))
        after = int(np.searchsorted(stamps, stamp_ns))
        if after < len(stamps) and stamps[after] == stamp_ns:
            return self._matrix(values[after : after + 1], np.zeros(1))
        if after in (0, len(stamps)):
            raise self._missing(
                f"is not known at {_seconds(stamp_ns)}, only from {_seconds(stamps[0])} to {_seconds(stamps[-1])}"
            )
        start, end = int(stamps[after - 1]), int(stamps[after])
        if end - start > max_gap_ns:
            raise self._missing(
                f"is not known at {_seconds(stamp_ns)}, between two samples {(end - start) / 1e9:.1f} s apart"
            )
        return self._matrix(values[after - 1 : after + 1], np.array([(stamp_ns - start) / (end - start)]))

    def _matrix(self, values: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
        if not np.isfinite(values).all():
            raise self._missing("holds NaN, infinity or a quaternion of another length than 1")
        rotations = Rotation.from_quat(values[:, 3:])
        matrix = np.eye(4)
        if len(values) == 1:
            matrix[:3, :3], matrix[:3, 3] = rotations[0].as_matrix(), values[0, :3]
        else:
            matrix[:3, :3] = Slerp([0.0, 1.0], rotations)(share).as_matrix()[0]
            matrix[:3, 3] = (1 - share) * values[0, :3] + share * values[1, :3]
        return matrix

    def _missing(self, what: str) -> MissingTransformError:
        return MissingTransformError(
            self._child, f"the transform of '{self._child}' in '{', '.join(self._parents)}' {what}"
        )


def _seconds(stamp_ns: int) -> str:
    return f"{int(stamp_ns) / 1e9:.3f} s"
