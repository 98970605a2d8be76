"""Teachers of the dense heads behind one seam: `Teacher.predict(views) -> TeacherOutput`.

`ground_truth` and `specialist` run with this repository alone. `depth_anything_3` and `vggt` call
public packages and checkpoints; their conventions are tested on synthetic scenes and the adapters have
been run on the published code with random weights, but never with real ones: their accuracy as
teachers of these heads is not known here.
"""

from spatial_mllm_training.teachers.base import Teacher, TeacherOutput, View, targets_of
from spatial_mllm_training.teachers.cache import CachedTeacher
from spatial_mllm_training.teachers.registry import TEACHERS, build_teacher

__all__ = ["TEACHERS", "CachedTeacher", "Teacher", "TeacherOutput", "View", "build_teacher", "targets_of"]
