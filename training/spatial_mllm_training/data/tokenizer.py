"""The small bundle's tokenizer: byte-level BPE learned from the templates of all subtasks; knows no rows.

Coordinates `[ x , y ]`, asked or answered, become one token per number, so that a location is one
embedding; every other digit stands alone, so that millimetres and degrees are spelled coarse to fine.
Every word of a template is one token. Any other text still encodes, by pieces or byte by byte.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from spatial_mllm_core import tasks
from spatial_mllm_core.tasks.object_size import MAX_IMAGES

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

CATEGORIES = (
    "ball", "bed", "bin", "block", "book", "bottle", "bowl", "box", "cabinet", "can", "chair", "chest",
    "cup", "door", "drawer", "fruit", "hammer", "jar", "lamp", "lid", "monitor", "plant", "shelf",
    "sofa", "stack", "stool", "table", "toy", "car",
)  # fmt: skip
"""Words of what the simulated scenes call their things; other categories are spelled by pieces."""

_LARGEST = 3072


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
    trainer = trainers.BpeTrainer(
        vocab_size=_LARGEST,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(t, normalized=False, special=True) for t in SPECIAL],
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return tokenizer


def _corpus() -> Iterator[str]:
    """Every wording twice and more, so that all its words are merged whole."""
    for number in range(1000):
        yield from (f"[ {number} , {number} ]", f"[ {number} , 0 ]") * 4
    yield from [f"Image-{i}: \n" for i in range(1, MAX_IMAGES + 1)] * 50
    for category in CATEGORIES:
        yield from (f"the {category} `{category}`",) * 4
    for name in tasks.names():
        yield from _wordings(tasks.get(name)) * 50


def _wordings(task: tasks.Task) -> list[str]:
    """What a subtask asks and answers, by the runtime's words and by those of the published rows."""
    points = ((512, 340), (87, 9))[: task.point_count]
    category = CATEGORIES[0]
    found = [f"`{label}`" for label in task.labels]
    for wording in task.wordings:
        found += [
            task.question(points, template=i, variant=wording.variant, category=category)
            for i in range(len(wording.questions))
        ]
        found += [a.format(value="[120, -35, 4]", category=category) for a in wording.answers]
    for i in range(len(task.descriptions)):
        turn = task.prompt(task.frame_count, points, templates=(i, 0), category=category)
        found.append(turn.rpartition("<image>\n")[2])
    return found


def number_tokens(tokenizer: Tokenizer) -> dict[int, int]:
    """Token id of every whole-number token 0..999."""
    return {n: i for n in range(1000) if (i := tokenizer.token_to_id(str(n))) is not None}
