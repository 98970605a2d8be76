"""What is compared: the arms of each experiment, as changes of one base recipe. Knows no files.

All arms of an experiment have the same model, batch, steps and seeds; they differ in what is trained,
on which images, and with which cameras.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.tasks import GROUPS
from spatial_mllm_training.augment import AugmentConfig
from spatial_mllm_training.recipes.config import DistillationConfig, MixConfig, SpatialConfig, TrainConfig
from spatial_mllm_training.supervision.heads import PUBLISHED_TASKS as DENSE_TASKS

EXPERIMENTS = ("camera", "supervision", "tasks", "semi")

CROPS = {"smallest_crop": 0.5, "aspect": 1.15}
"""Random crops of scene pairs: f of the model's input in pixels changes by up to 2."""
NO_CROPS = {"smallest_crop": 1.0, "aspect": 1.0}


@dataclass(frozen=True)
class Arm:
    """One column of an experiment.

    Attributes:
        name: in tables and of its folder.
        rays: K is told; else every image has the null embedding, in training and in tests.
        augmented: camera-aware augmentation.
        distilled: features of a teacher are learnt beside. The teacher is told K, whether the arm is or not.
        depth_head: the single depth head is trained (what depth is measured with).
        dense: tasks of the decoupled 3D heads.
        data: which data it is trained on: "all", "single" and "mixed" cameras, "half" of the rows,
            "balanced" groups of subtasks, or one of these groups.
        answers_share: of the rows whose answers are used.
        unpacked: one question a sample, so that arms with fewer rows an image ask as many.
        words: what it is, for a person.
    """

    name: str
    words: str
    rays: bool = True
    augmented: bool = True
    distilled: bool = False
    depth_head: bool = True
    dense: tuple[str, ...] = ()
    data: str = "all"
    answers_share: float = 1.0
    unpacked: bool = False


@dataclass(frozen=True)
class Experiment:
    """Arms that are compared; the first is what the others are set against.

    Attributes:
        published: what the papers found, to read the table against.
    """

    name: str
    title: str
    arms: tuple[Arm, ...]
    published: tuple[str, ...] = field(default=())

    def chosen(self, names: Sequence[str]) -> tuple[Arm, ...]:
        """The named arms in their own order, all where none is named.

        Raises:
            SpatialError: UNKNOWN_TASK for a name that is none.
        """
        known = {arm.name: arm for arm in self.arms}
        for name in names:
            if name not in known:
                raise SpatialError(
                    ErrorCode.UNKNOWN_TASK,
                    f"the experiment '{self.name}' has no arm '{name}'; it has {', '.join(known)}",
                )
        return tuple(arm for arm in self.arms if not names or arm.name in names)


def experiment(name: str, *, from_rows: bool = False, groups: Sequence[str] = ()) -> Experiment:
    """The experiment of a name.

    Args:
        from_rows: trained on MultiSPA rows, which cannot be made one camera's.
        groups: of subtasks that the rows have; the single tasks of `tasks`.

    Raises:
        SpatialError: NOT_READY for an experiment that needs rows.
    """
    if name in ("tasks", "semi") and not from_rows:
        raise SpatialError(
            ErrorCode.NOT_READY,
            f"the experiment '{name}' chooses among MultiSPA rows: give --rows, --test-rows and --depth",
        )
    if name == "tasks":
        return _tasks(groups)
    found = {"camera": _camera, "supervision": _supervision, "semi": _semi}[name]()
    variants = () if not from_rows else ("single", "mixed")
    unknown = {"motion"} if from_rows else set()  # rows do not know what moved in every cell
    return dataclasses.replace(
        found,
        arms=tuple(arm for arm in found.arms if arm.data not in variants and not unknown & set(arm.dense)),
    )


def _camera() -> Experiment:
    plain = {"rays": False, "augmented": False}
    return Experiment(
        "camera",
        "Camera awareness",
        (
            Arm("rgb", "images alone", **plain),
            Arm("rays", "+ rays of K", augmented=False),
            Arm("augmentation", "+ other cameras by augmentation, K not told", rays=False),
            Arm("prior", "+ features of a teacher that is told K", distilled=True, **plain),
            Arm("rays-augmentation", "rays and augmentation"),
            Arm("all", "rays, augmentation and a teacher that is told K", distilled=True),
            Arm("rgb-single", "images alone, one camera", data="single", **plain),
            Arm("rgb-mixed", "images alone, the same images as from many cameras", data="mixed", **plain),
            Arm("rays-single", "rays, one camera", data="single", augmented=False),
            Arm("rays-mixed", "rays, the same images as from many cameras", data="mixed", augmented=False),
        ),
        (
            "CA-MLLM table 5 (F1 at other focal lengths): none 39.1, rays 41.2, augmentation 42.0, prior 43.1, "
            "all 52.1.",
            "CA-MLLM table 1: RGB-only falls to 0.53 (x0.8) and 0.69 (x1.2) of its F1; mixing cameras takes it "
            "from 45.7 to 35.4, a model with geometry from 46.5 to 46.0.",
            "Its prior is geometry features that are added to the tokens, in use as well; here a teacher's features "
            "are learnt in training alone.",
            "Slope of log depth against log focal scale: 0 is right; an image alone cannot tell, which gives -1.",
        ),
    )


def _supervision() -> Experiment:
    text = {"depth_head": False}
    singles = tuple(Arm(task, f"+ {task}", dense=(task,), **text) for task in DENSE_TASKS)
    every = tuple(DENSE_TASKS)
    return Experiment(
        "supervision",
        "3D supervision",
        (
            Arm("text", "answers alone", **text),
            Arm("distillation", "+ features of a teacher", distilled=True, **text),
            *singles,
            Arm("3d", "+ depth, rays and points", dense=every, **text),
            Arm("all", "+ depth, rays, points and teacher", dense=every, distilled=True, **text),
            Arm(
                "motion",
                "+ what moved between the images, which is not in the paper",
                dense=("motion",),
                **text,
            ),
        ),
        (
            "SpatialSV, Qwen2.5-VL-3B on MindCube-Tiny: text 55.3, distillation 58.6, depth 59.4, points or rays "
            "56.3 to 58.2, all tasks 61.4, all with distillation 62.3.",
        ),
    )


def _tasks(groups: Sequence[str]) -> Experiment:
    single = (Arm(group, f"{group} alone", data=group, unpacked=True) for group in groups)
    return Experiment(
        "tasks",
        "Multi-task training",
        (Arm("multi", "all groups together", data="balanced", unpacked=True), *single),
        (
            "Multi-SpatialMLLM: all tasks together over one alone: 1.94 for the camera's movement vector, 1.26 for "
            "the object's movement.",
        ),
    )


def _semi() -> Experiment:
    every, text = tuple(DENSE_TASKS), {"depth_head": False}
    return Experiment(
        "semi",
        "Fewer answers",
        (
            Arm("half", "half the rows with their answers", data="half", **text),
            Arm("half-3d", "half the rows with answers and 3D", data="half", dense=every, **text),
            Arm("half-3d-rest", "half the answers, 3D on all images", answers_share=0.5, dense=every, **text),
            Arm("full", "all answers", **text),
        ),
        (
            "SpatialSV table 5 (MindCube-Tiny): half the answers 47.2, with 3D 51.8, 3D on the rest too 53.9, all "
            "answers 55.3.",
        ),
    )


def groups_of(subtasks: Sequence[str]) -> tuple[str, ...]:
    """The groups of table 2 that have one of the subtasks, in order."""
    return tuple(group for group, members in GROUPS.items() if set(members) & set(subtasks))


def configured(arm: Arm, base: TrainConfig, *, seed: int, steps: int, from_rows: bool) -> TrainConfig:
    """The training run of an arm.

    Args:
        base: model, batch and optimiser, the same for all arms.
        from_rows: trained on MultiSPA rows instead of scene files.
    """
    return dataclasses.replace(
        base,
        name=f"{base.name}-{arm.name}",
        seed=seed,
        steps=steps,
        # pointers tell what the depth head says
        model=dataclasses.replace(base.model, deep_pointers=base.model.deep_pointers and arm.depth_head),
        # what a run is told of cameras; without rays the null embedding is all it ever sees
        model_camera_dropout=base.model_camera_dropout if arm.rays else 1.0,
        depth_weight=(base.depth_weight or 1.0) if arm.depth_head else 0.0,
        spatial=dataclasses.replace(base.spatial or SpatialConfig(), tasks=arm.dense) if arm.dense else None,
        distillation=(base.distillation or DistillationConfig()) if arm.distilled else None,
        mix=MixConfig(pairs=0.0, rows=1.0) if from_rows else MixConfig(),
        data=dataclasses.replace(base.data, **(CROPS if arm.augmented else NO_CROPS)),
        rows=dataclasses.replace(
            base.rows,
            require_camera=arm.rays,
            augment=_augmentation(base) if arm.augmented else None,
            answers_share=arm.answers_share,
            questions=1 if arm.unpacked else base.rows.questions,
        ),
    )


def _augmentation(base: TrainConfig) -> AugmentConfig:
    return base.rows.augment or AugmentConfig(output_size=base.rows.size)
