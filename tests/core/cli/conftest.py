"""The bag and the model double of the evaluation tests."""

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "_evaluation_fixtures", Path(__file__).parents[1] / "evaluation/conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _module
_spec.loader.exec_module(_module)

push_bag = _module.push_bag
arithmetic_model = _module.arithmetic_model
