"""Runs an experiment: one folder of the training loop per arm and seed, and its figures beside it.

    <out>/<experiment>/<arm>/seed-0/    the run, as `train` leaves it, and figures.json
    <out>/data/                         parts and variants of the data that arms are trained on
    <out>/teacher/<key>/                the specialist that distilled arms learn from

What is finished is kept, what was cut short goes on.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.files import write_atomically
from spatial_mllm_core.tasks import GROUPS
from spatial_mllm_training.ablate.arms import Arm, Experiment, configured
from spatial_mllm_training.ablate.cameras import write_variants
from spatial_mllm_training.ablate.eval_sets import EvalSet, EvalSize, row_tests, scene_tests
from spatial_mllm_training.ablate.measure import Figures, measure
from spatial_mllm_training.ablate.row_sets import balanced, is_answered, write_part
from spatial_mllm_training.data.depth_truth import DepthTruth
from spatial_mllm_training.export.write_bundle import load_run
from spatial_mllm_training.recipes.config import DistillationConfig, MixConfig, TrainConfig
from spatial_mllm_training.scenes.split import scene_files
from spatial_mllm_training.training_loop import checkpoints
from spatial_mllm_training.training_loop.distilling import build_distiller
from spatial_mllm_training.training_loop.loop import run
from spatial_mllm_training.training_loop.run_folder import began_with, kept_tokenizer
from spatial_mllm_training.training_loop.setup import DataPaths, Learner, build_learner
from spatial_mllm_training.training_loop.teaching import Lessons, train_teacher

FIGURES = "figures.json"
_PACE_STEPS = (4, 12)  # the first steps are slower than those that follow


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        arms: of the experiment, chosen.
        base: the recipe that arms change.
        paths: data of the training; rows are trained on where there are any, else scenes.
        test_scenes, test_rows: data of the tests.
        minutes: of the slowest arm's run, instead of `base.steps`; all arms get the same steps.
        teacher: identity of the teacher, "" before it is there.
        begins: what is said of the run or bundle in `paths.begin_with`; {}: every run begins from nothing.
        lessons: of the teacher of distilled arms, where `paths` name none.
        device: of the measuring; training finds its own unless `cpu`.
    """

    experiment: Experiment
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    base: TrainConfig
    paths: DataPaths
    out: Path
    test_scenes: Path | None = None
    test_rows: tuple[Path, ...] = ()
    minutes: float | None = None
    size: EvalSize = field(default_factory=EvalSize)
    lessons: Lessons = field(default_factory=Lessons)
    teacher: str = ""
    begins: Mapping[str, Any] = field(default_factory=dict)
    cpu: bool = False
    device: str = "cpu"
    quiet: bool = False

    @property
    def from_rows(self) -> bool:
        return bool(self.paths.rows)

    @property
    def folder(self) -> Path:
        return self.out / self.experiment.name

    def run_folder(self, arm: Arm, seed: int) -> Path:
        return self.folder / arm.name / f"seed-{seed}"

    def config(self, arm: Arm, seed: int, steps: int) -> TrainConfig:
        return configured(arm, self.base, seed=seed, steps=steps, from_rows=self.from_rows)

    def learner(self, config: TrainConfig) -> Learner:
        """The model of a run with the tokens that the run has."""
        before = self.paths.begin_with
        return build_learner(config, tokenizer=None if before is None else kept_tokenizer(before))

    @property
    def is_distilled(self) -> bool:
        """Whether any arm needs a teacher."""
        return any(arm.distilled for arm in self.arms)


Results = dict[str, dict[int, Figures]]
"""Arm -> seed -> figures."""


def _say(sentence: str) -> None:
    print(sentence, flush=True)  # runs take hours, and logs are files


def run_all(plan: Plan, tests: Tests, say: Callable[[str], None] = _say) -> tuple[int, Results]:
    """Train and measure every arm with every seed; returns (steps of a run, figures).

    Args:
        plan: of `with_teacher`.

    Raises:
        SpatialError: data or settings that cannot be used.
    """
    steps = _steps(plan, say)
    results: Results = {arm.name: {} for arm in plan.arms}
    for number, seed in enumerate(plan.seeds):  # whole seeds first: what is there can be compared
        for arm in plan.arms:
            folder = plan.run_folder(arm, seed)
            config = plan.config(arm, seed, steps)
            kept = train_one(config, plan, arm, folder)
            results[arm.name][seed] = measured(folder, tests, arm, plan)
            done = "kept" if kept else "trained"
            say(f"seed {seed} ({number + 1} of {len(plan.seeds)})  {arm.name}: {done}")
    return steps, results


def with_teacher(plan: Plan, say: Callable[[str], None] = _say) -> Plan:
    """The plan with the weights of a teacher, trained on the training data where none are named.

    Raises:
        SpatialError: weights that cannot be used, or data that no teacher can learn from.
    """
    if not plan.is_distilled:
        return plan
    weights = plan.paths.teacher_weights
    if not weights:
        what = [asdict(plan.lessons), plan.base.to_json(), str(plan.paths.scenes), *map(str, plan.paths.rows)]
        key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]
        mix = MixConfig(pairs=0.0, rows=1.0) if plan.from_rows else MixConfig()
        weights = str(
            train_teacher(
                replace(plan.base, mix=mix),
                replace(plan.paths, held_out_rows=plan.test_rows),
                plan.out / "teacher" / key,
                plan.lessons,
                device=plan.device,
                say=say,
            )
        )
    paths = replace(plan.paths, teacher_weights=weights)
    config = replace(plan.base, distillation=plan.base.distillation or DistillationConfig())
    teacher = build_distiller(config, paths)
    assert teacher is not None
    return replace(plan, paths=paths, teacher=teacher.identity)


def train_one(config: TrainConfig, plan: Plan, arm: Arm, folder: Path) -> bool:
    """Train an arm unless that is done; returns whether it was.

    Raises:
        SpatialError: NOT_READY when the folder holds a run with other settings.
    """
    before = folder / "config.json"
    if before.exists():
        if TrainConfig.from_json(before.read_text()) != TrainConfig.from_json(config.to_json()):
            raise SpatialError(
                ErrorCode.NOT_READY,
                f"'{folder}' holds a run with other settings; name another --out, or remove it",
            )
        if checkpoints.begun(folder) and began_with(folder) != dict(plan.begins):
            raise SpatialError(
                ErrorCode.NOT_READY,
                f"'{folder}' holds a run that began with other weights; name another --out, or remove it",
            )
        if (folder / "final.json").exists():  # of one that is not finished, the checkpoint says it
            learnt_from = json.loads((folder / "run.json").read_text())["data"].get("teacher", "")
            if arm.distilled and learnt_from != plan.teacher:
                raise SpatialError(
                    ErrorCode.NOT_READY,
                    f"'{folder}' holds a run that follows another teacher ({learnt_from}); name another --out, "
                    "or remove it",
                )
            return True
    run(config, data_of(plan, arm, config.seed), folder, cpu=plan.cpu, quiet=plan.quiet)
    return False


def data_of(plan: Plan, arm: Arm, seed: int) -> DataPaths:
    """The data that an arm is trained on, made where they are not there yet."""
    paths, data = plan.paths, plan.out / "data"
    if arm.data == "all":
        return paths
    if arm.data in ("single", "mixed"):
        return replace(paths, scenes=_variants(plan, paths.scenes)[arm.data])
    if arm.data == "half":
        part = write_part(
            paths.rows, data / f"half-{seed}", lambda row: is_answered(row.id, seed=seed, share=0.5)
        )
    else:
        group = None if arm.data == "balanced" else arm.data
        part = write_part(paths.rows, data / f"rows-{arm.data}", balanced(paths.rows, group))
    return replace(paths, rows=part)


def _variants(plan: Plan, scenes: Path | None) -> dict[str, Path]:
    if scenes is None:
        raise SpatialError(
            ErrorCode.NO_FRAME, "single and mixed cameras are made from scene files: give --scenes"
        )
    files = scene_files(scenes, held_out=False) + scene_files(scenes, held_out=True)
    key = hashlib.sha256(str(scenes.resolve()).encode()).hexdigest()[:8]
    return write_variants(
        files, plan.out / "data" / f"cameras-{key}", (plan.base.data.width, plan.base.data.height)
    )


class Tests:
    """The test sets of a plan, made when first asked for."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._made: dict[str, list[EvalSet]] = {}
        what = [asdict(plan.size), str(plan.test_scenes), [str(p) for p in plan.test_rows]]
        self.key = hashlib.sha256(json.dumps(what).encode()).hexdigest()

    @classmethod
    def needed(cls, plan: Plan) -> Tests:
        """With the sets of all runs that are not measured yet, so that what is missing is said before training."""
        tests = cls(plan)
        for arm in plan.arms:
            if not all((plan.run_folder(arm, seed) / FIGURES).exists() for seed in plan.seeds):
                tests.of(arm)
        return tests

    def of(self, arm: Arm) -> list[EvalSet]:
        """Arms of one camera or of many are tested on both; the others by kind of camera."""
        kind = "variants" if arm.data in ("single", "mixed") else "plain"
        if kind not in self._made:
            self._made[kind] = self._variants() if kind == "variants" else self._plain()
        return self._made[kind]

    def _plain(self) -> list[EvalSet]:
        plan, learner = self.plan, self.plan.learner(self.plan.base)
        if plan.from_rows:
            depth = DepthTruth.of(plan.paths.depth) if plan.paths.depth else None
            return row_tests(plan.test_rows, plan.paths.rows, depth, plan.base, learner, plan.size)
        assert plan.paths.scenes is not None
        return scene_tests(
            plan.test_scenes or plan.paths.scenes, plan.paths.scenes, plan.base, learner, plan.size
        )

    def _variants(self) -> list[EvalSet]:
        plan, learner = self.plan, self.plan.learner(self.plan.base)
        training = _variants(plan, plan.paths.scenes)
        tests = _variants(plan, plan.test_scenes or plan.paths.scenes)
        return [
            one
            for kind, name in (("single", "the one camera"), ("mixed", "many cameras"))
            for one in scene_tests(tests[kind], training[kind], plan.base, learner, plan.size, name=name)
        ]


def measured(folder: Path, tests: Tests, arm: Arm, plan: Plan) -> Figures:
    """The figures of a finished run, from its folder where they were measured before."""
    file = folder / FIGURES
    try:
        record = json.loads(file.read_text())
        if record["key"] == tests.key:
            return record["figures"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not measured yet, or torn
    model, config, _, _ = load_run(folder)
    learner = replace(plan.learner(config), model=model)
    group = arm.data if arm.data in GROUPS else None
    figures = measure(learner, config, tests.of(arm), rays=arm.rays, group=group, device=plan.device)
    write_atomically(
        file, json.dumps({"key": tests.key, "figures": figures}, indent=2).encode(), replace=True
    )
    return figures


# -- from minutes to steps --------------------------------------------------------------------------


def _steps(plan: Plan, say: Callable[[str], None]) -> int:
    """Steps of every run: of the recipe, or as many as the slowest arm makes in the minutes given."""
    if plan.minutes is None:
        if plan.base.steps is None:
            raise SpatialError(
                ErrorCode.NOT_READY, f"recipe '{plan.base.name}' counts no steps: give --steps or --minutes"
            )
        return plan.base.steps
    file = plan.folder / "pace.json"
    try:  # found once, so that a later start of the same command makes equal runs
        record = json.loads(file.read_text())
        if record["minutes"] == plan.minutes:
            return int(record["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    paces = {arm.name: seconds_per_step(plan, arm) for arm in plan.arms}
    slowest = max(paces, key=lambda name: paces[name])
    steps = max(1, int(60.0 * plan.minutes / paces[slowest]))
    say(f"{steps} steps a run: '{slowest}' takes {paces[slowest]:.3f} s a step")
    record = {"minutes": plan.minutes, "steps": steps, "seconds_per_step": paces}
    write_atomically(file, json.dumps(record, indent=2).encode(), replace=True)
    return steps


def seconds_per_step(plan: Plan, arm: Arm) -> float:
    """Measured on a few steps of a run that is thrown away."""
    first, last = _PACE_STEPS
    config = replace(plan.config(arm, 0, last), log_steps=1, checkpoint_steps=10**9)
    with tempfile.TemporaryDirectory() as folder:
        run(config, data_of(plan, arm, 0), Path(folder) / "run", cpu=plan.cpu, quiet=True)
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    minutes = {r["step"]: r["minutes"] for r in map(json.loads, lines) if "minutes" in r}
    return max(60.0 * (minutes[last] - minutes[first]) / (last - first), 1e-4)


def subtasks_of(folders: Sequence[Path]) -> list[str]:
    """The subtasks that data sets have."""
    from spatial_mllm_training.multispa.rows import read_rows

    return sorted({row.question_type for folder in folders for row in read_rows(folder)})
