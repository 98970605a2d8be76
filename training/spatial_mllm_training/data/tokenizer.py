"""The small bundle's tokenizer: byte-level BPE learned from the task templates.

Question coordinates `[ x , y ]` become one token per number, so that a location is one
embedding; every other digit stands alone, so that an answer is spelled coarse to fine.
Any other text still encodes, byte by byte.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from spatial_mllm_core import tasks
from spatial_mllm_training.data.pairs import TASKS

SPECIAL = (
    "<|pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|assistant|>",
    "<|end|>",
)
_PIECES = (
    r"(?<=\[ )\d{1,3}(?= , )|(?<= , )\d{1,3}(?= \])"  # numbers of a coordinate, whole
    r"| ?\[ | , | \]|, |\d| ?[A-Za-z]+|\s|."
)


def build_tokenizer() -> Tokenizer:
    """The tokenizer, the same at every call (fixed corpus, no randomness)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [f"[ {a} , {b} ]" for a in range(1000) for b in (0, a)] * 4
    for name in TASKS:
        task = tasks.get(name)
        points = ((512, 340), (87, 9))[: task.point_count]
        for i in range(len(task.questions)):
            corpus += [task.question(points, template=i)] * 50
        for answer in task.answers:
            corpus += [answer.format(value="[120, -35, 4]")] * 50
        corpus += [f"`{label}`" for label in task.labels] * 50
    corpus += [f"Image-{i}: \n" for i in range(1, 6)] * 50
    trainer = trainers.BpeTrainer(
        vocab_size=2560,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(t, normalized=False, special=True) for t in SPECIAL],
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def number_tokens(tokenizer: Tokenizer) -> dict[int, int]:
    """Token id of every whole-number token 0..999."""
    return {n: i for n in range(1000) if (i := tokenizer.token_to_id(str(n))) is not None}


def sinusoid_rows(values: NDArray[np.float64], width: int, scale: float) -> NDArray[np.float32]:
    """(len(values), width) smooth features of numbers in [0, 1000): neighbours start out alike."""
    half = width // 2
    frequencies = np.exp(np.linspace(np.log(0.5), np.log(60.0), half)) * np.pi / 1000.0
    angles = values[:, None] * frequencies
    rows = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return (scale * rows).astype(np.float32)
