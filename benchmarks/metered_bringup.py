"""Bringup as it is shipped, with a meter: frames through the pipeline, CPU time inside SpatialModel.perceive.

    python metered_bringup.py METER_FILE --ros-args ...

The meter counts the whole process while perceive runs, ONNX Runtime's and OpenCV's threads
included; frames must come slowly enough that the next one does not arrive meanwhile.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from meter import Meter

from spatial_mllm.bringup import main
from spatial_mllm_core.model.spatial_model import SpatialModel
from spatial_mllm_core.pipeline import SpatialPipeline


def attach(meter: Meter) -> None:
    """Wrap the two methods of this process."""
    perceive, process = SpatialModel.perceive, SpatialPipeline.process

    def metered_perceive(self: SpatialModel, *args: Any, **kwargs: Any) -> Any:
        began_s = time.process_time()
        try:
            return perceive(self, *args, **kwargs)
        finally:
            meter.add(model_calls=1, model_cpu_s=time.process_time() - began_s)

    def metered_process(self: SpatialPipeline, *args: Any, **kwargs: Any) -> Any:
        try:
            return process(self, *args, **kwargs)
        finally:
            meter.add(frames=1)

    SpatialModel.perceive = metered_perceive  # type: ignore[method-assign]
    SpatialPipeline.process = metered_process  # type: ignore[method-assign]


if __name__ == "__main__":
    attach(Meter(Path(sys.argv[1])))
    sys.exit(main([sys.argv[0], *sys.argv[2:]]))
