"""What a training sample of scene files looks like; knows no files."""

from __future__ import annotations

from dataclasses import dataclass

from spatial_mllm_training.data.dot_questions import TASKS as DOT_TASKS
from spatial_mllm_training.data.pair_questions import SIZE_TASKS, TASKS


@dataclass(frozen=True)
class PairConfig:
    """What a training sample looks like.

    Attributes:
        width, height: model input, pixels.
        pitch: pixels per visual token and axis.
        single_questions, pair_questions: packed questions per sample.
        correspondences: points of the first image that are asked for in the second one, of another camera or window;
            more than one come on top of `pair_questions`.
        whole_camera: where the camera moved, everything is asked about that, on top, too.
        told_questions: drills about movements, on top, for a model of matching: what these are told is said, whatever
            the images show.
        size_questions: on top, too, about the size of things in the first image.
        dotted: share of samples whose images carry dots, with a question or two about them.
        served_template: probability of the template that the runtime serves.
        still_camera, same_time: shares of pairs with an unmoved camera, with an unmoved scene.
        far: share of pairs of a moved camera that see as little of each other as those of MultiSPA, where the scene has
            such cameras.
        smallest_crop, aspect: of the window of the source that an image shows, see `views.Crop.random`.
        own_crops: share of pairs whose images have a window each, as from two cameras; others share one.
        camera_dropout: share of samples that are shown without their cameras.
        apart: images are shown each by itself, for a model that learns to see before it learns to speak.
    """

    width: int = 192
    height: int = 144
    pitch: int = 16
    depth_cells_per_token: int = 8
    single_questions: int = 5
    pair_questions: int = 6
    correspondences: int = 1
    whole_camera: bool = False
    told_questions: int = 0
    size_questions: int = 0
    dotted: float = 0.0
    served_template: float = 0.75
    still_camera: float = 0.7
    same_time: float = 0.1
    far: float = 0.0
    smallest_crop: float = 0.75
    aspect: float = 1.15
    own_crops: float = 0.5
    camera_dropout: float = 0.05
    apart: bool = False

    def __post_init__(self) -> None:
        if self.apart and (self.subtasks or self.told_questions):
            raise ValueError("nothing can be asked about images that are shown apart")

    @property
    def grid(self) -> tuple[int, int]:
        return self.height // self.pitch, self.width // self.pitch

    @property
    def subtasks(self) -> frozenset[str]:
        """Names of the subtasks that samples ask, which a bundle trained on them claims."""
        return frozenset(
            (TASKS if self.single_questions or self.pair_questions else ())
            + (SIZE_TASKS if self.size_questions else ())
            + (DOT_TASKS if self.dotted else ())
        )
