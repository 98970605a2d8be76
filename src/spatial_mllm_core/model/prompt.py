"""The visual-first prompt and its positions; knows text and grids, not weights.

    Image-1: <vision_start>[visual tokens]<vision_end>\\nImage-2: ...\\n{question}<assistant>{answer}<end>

Everything up to a frame's `<vision_end>\\n` is independent of the question, so its KV cache
is a prefix that any number of questions share.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PromptFormat:
    """The literal pieces of the prompt; stored in the bundle's manifest.

    Attributes:
        frame_prefix: text before a frame's visual tokens; `{index}` counts from 1.
        frame_suffix: text after them.
        question_suffix: text between the question and the answer.
        stop: the token that ends an answer.
        number_digits: digits of every metric number of an answer, which is then read as a median
            (`model.numbers`); 0: numbers as published, the likeliest digits.
        named_letters: a point that the question names is answered by its letter (`tasks.text.lettered`).
    """

    frame_prefix: str = "Image-{index}: <|vision_start|>"
    frame_suffix: str = "<|vision_end|>\n"
    question_suffix: str = "<|assistant|>"
    stop: str = "<|end|>"
    number_digits: int = 0
    named_letters: bool = False

    def to_json(self) -> dict[str, Any]:
        raw = asdict(self)
        if not self.named_letters:
            del raw["named_letters"]  # software of before knows no such thing
        return raw


def text_positions(count: int, start: int) -> NDArray[np.int64]:
    """(3, count) multimodal rotary positions of text that begins at `start`: equal on all axes."""
    return np.broadcast_to(np.arange(start, start + count, dtype=np.int64), (3, count)).copy()


def visual_positions(grid_h: int, grid_w: int, start: int) -> NDArray[np.int64]:
    """(3, grid_h * grid_w) positions (time, row, column) of one image, raster order (Qwen2.5-VL mRoPE)."""
    rows, columns = np.divmod(np.arange(grid_h * grid_w, dtype=np.int64), grid_w)
    return start + np.stack([np.zeros_like(rows), rows, columns])


def position_after_visual(grid_h: int, grid_w: int, start: int) -> int:
    """First text position after an image that began at `start` (largest position plus one)."""
    return start + max(grid_h, grid_w)
