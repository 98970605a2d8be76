"""General instruction data in the published LLaVA conversation JSON; images have no camera.

    [{"id": "1", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is this?"},
                                                     {"from": "gpt", "value": "A mug."}]}, ...]

`image` is a path, a list of paths, or absent.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.data.packing import Format, PackedQuestion, Sample, pack
from spatial_mllm_training.data.pictures import Viewer, read_image

_IMAGE_MARK = re.compile(r"<image>\n?|\n?<image>")


class GeneralSource:
    """Every conversation once per epoch, in an order that follows from the seed."""

    def __init__(
        self, file: Path, images: Path, form: Format, viewer: Viewer, seed: int, *, max_tokens: int
    ) -> None:
        self.form, self.viewer, self.seed, self.max_tokens = form, viewer, seed, max_tokens
        self._file, self._images = file, images
        try:
            data = file.read_bytes()
            self._entries = json.loads(data)
        except OSError as error:
            raise SpatialError(ErrorCode.NO_FRAME, f"'{file}' cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise SpatialError(ErrorCode.NO_FRAME, f"'{file}' is not JSON: {error}") from None
        if not isinstance(self._entries, list) or not self._entries:
            raise SpatialError(ErrorCode.NO_FRAME, f"'{file}' holds no list of conversations")
        self._digest = hashlib.sha256(data).hexdigest()
        self._epoch = lru_cache(maxsize=2)(self._order)

    def digest(self) -> str:
        """sha256 of the file."""
        return self._digest

    def subtasks(self) -> frozenset[str]:
        """None: conversations are not of MultiSPA."""
        return frozenset()

    def sample(self, number: int) -> Sample:
        """Sample `number`; raises SpatialError naming the entry."""
        epoch, place = divmod(number, len(self._entries))
        index = int(self._epoch(epoch)[place])
        try:
            return self._packed(index, self._entries[index])
        except SpatialError as error:
            raise SpatialError(error.code, f"entry {index} of '{self._file}': {error.sentence}") from None
        except ValueError as error:
            raise SpatialError(
                ErrorCode.QUESTION_TOO_LONG, f"entry {index} of '{self._file}': {error}"
            ) from None

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, 13, epoch]).permutation(len(self._entries))

    def _packed(self, index: int, entry: Any) -> Sample:
        names, turns = _read(entry)
        shown = [self.viewer.show(read_image(self._images / name), None) for name in names]
        question = PackedQuestion(turns, len(shown))
        return pack(f"general {index}", shown, [question], self.form, max_tokens=self.max_tokens)


def _read(entry: Any) -> tuple[list[str], tuple[tuple[str, str], ...]]:
    """Image names and turns of an entry."""
    try:
        image = entry.get("image", [])
        names = [image] if isinstance(image, str) else [str(name) for name in image]
        speakers = [turn["from"] for turn in entry["conversations"]]
        words = [str(turn["value"]) for turn in entry["conversations"]]
    except (AttributeError, KeyError, TypeError):
        raise SpatialError(ErrorCode.EMPTY_QUESTION, "it is not a LLaVA conversation") from None
    if not words or speakers != ["human", "gpt"] * (len(words) // 2):
        raise SpatialError(ErrorCode.EMPTY_QUESTION, "its turns do not alternate between human and gpt")
    marks = sum(text.count("<image>") for text in words)
    if marks != len(names):
        raise SpatialError(
            ErrorCode.WRONG_FRAME_COUNT, f"it names {len(names)} image(s) but shows {marks} in its words"
        )
    asked = [_IMAGE_MARK.sub("", text) for text in words[::2]]
    return names, tuple(zip(asked, words[1::2], strict=True))
