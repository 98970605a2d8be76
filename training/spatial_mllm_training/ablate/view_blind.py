"""What an answerer without eyes says about pairs of views: one answer per subtask and one depth for all.

Learnt on views of training scenes, each drawn once for both. Knows no model.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from spatial_mllm_core.tasks import TaskValue
from spatial_mllm_training.data.pairs import PairBuilder

SAMPLES = 400


@dataclass(frozen=True)
class ViewBlind:
    """Constants of a training split.

    Attributes:
        answers: by subtask the median or the majority; comparisons have none, the first point is answered.
        depth_m: median of the valid depths.
    """

    answers: Mapping[str, TaskValue]
    depth_m: float


def fit_view_blind(builder: PairBuilder, rng: np.random.Generator, samples: int = SAMPLES) -> ViewBlind:
    """Draw views of training scenes and take the middle of what is true in them."""
    truths: dict[str, list[TaskValue]] = defaultdict(list)
    kinds: dict[str, str] = {}
    depths = []
    for _ in range(samples):
        view = builder.draw(rng)
        depths.append(view.depth_m[view.depth_m > 0])
        for question in (*view.single, *view.pair):
            kinds[question.task.name] = question.task.kind
            truths[question.task.name].append(question.truth)
    answers = {}
    for name, values in truths.items():
        if kinds[name] == "label":
            answers[name] = TaskValue(label=Counter(v.label for v in values).most_common(1)[0][0])
        elif kinds[name] != "coordinate":
            median = np.median([v.values for v in values], axis=0)
            answers[name] = TaskValue(tuple(float(m) for m in median))
    return ViewBlind(answers, float(np.median(np.concatenate(depths))))
