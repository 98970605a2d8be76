"""The faults of probing that a user can cause; knows sentences only."""

from __future__ import annotations

from spatial_mllm_core.errors import one_line


class ProbeProblem(ValueError):
    """One sentence that names the folder, file or scene."""

    def __init__(self, sentence: str) -> None:
        super().__init__(one_line(sentence))
