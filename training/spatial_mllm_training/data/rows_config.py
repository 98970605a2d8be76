"""What becomes of MultiSPA rows in training; apart from their reader, so that a recipe needs no tables."""

from __future__ import annotations

from dataclasses import dataclass

from spatial_mllm_training.augment import AugmentConfig


@dataclass(frozen=True)
class RowsConfig:
    """How MultiSPA rows become samples.

    Attributes:
        questions: rows of one image tuple that are packed into one sample, at most.
        max_tokens: longer samples lose questions, then are left out.
        size: (width, height) every image is resampled to, K with it; None: the family's own framing.
        require_camera: a row without K is a fault; else it gets the null embedding.
        answers_share: share of the rows whose answers are used; the others train the 3D losses only.
        served_words: share of the questions that are put and answered in the runtime's words instead of the
            row's own, see `data.served_words`.
        augment: camera-aware augmentation, None = none.
    """

    questions: int = 6
    max_tokens: int = 4096
    size: tuple[int, int] | None = None
    require_camera: bool = True
    answers_share: float = 1.0
    served_words: float = 0.0
    augment: AugmentConfig | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.answers_share <= 1.0:
            raise ValueError(f"answers_share lies between 0 and 1, found {self.answers_share}")
        if not 0.0 <= self.served_words <= 1.0:
            raise ValueError(f"served_words lies between 0 and 1, found {self.served_words}")
        if self.questions < 1:
            raise ValueError(f"a sample asks at least one question, found {self.questions}")
