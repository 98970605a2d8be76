"""Sharded weights (FSDP2 over gloo, two processes): checkpoints are whole, and come back to every shard."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

DRIVER = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.training_loop.batch import collate
from spatial_mllm_training.training_loop.loop import STATE_OPTIONS
from spatial_mllm_training.training_loop.objective import Objective, figures
from spatial_mllm_training.training_loop.setup import DataPaths, build_learner, build_sources
import dataclasses
torch.set_num_threads(1)
dist.init_process_group("gloo")
from torch.distributed.device_mesh import init_device_mesh
mesh = init_device_mesh("cpu", (2,))
config = dataclasses.replace(RECIPES["smoke"](), seed=3)

def built():
    learner = build_learner(config)
    objective = Objective(learner.model).to(memory_format=torch.contiguous_format)
    for layer in learner.model.family.decoder(learner.model.hf).layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)
    return learner, objective, torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-3)

learner, objective, optimizer = built()
source = build_sources(config, DataPaths(scenes=Path(sys.argv[1])), learner)[0]["pairs"]
batch = collate([source.sample(i) for i in range(2)], learner.pad_id)
names = [n for n, _ in objective.named_parameters()]

def step(objective, optimizer):
    objective(batch)["loss"].backward()
    optimizer.step()
    optimizer.zero_grad()

step(objective, optimizer)
weights, moments = get_state_dict(objective, optimizer, options=STATE_OPTIONS)
if dist.get_rank() == 0:
    torch.save({"weights": weights, "moments": moments, "names": names}, sys.argv[2])
dist.barrier()
step(objective, optimizer)
expected = figures(objective, [batch])
_, objective, optimizer = built()
saved = torch.load(sys.argv[2], weights_only=True)
assert set(saved["names"]) <= set(saved["weights"])
whole = build_learner(config).model.state_dict()
assert all(saved["weights"]["model." + k].shape == v.shape for k, v in whole.items())
back = {"model_state_dict": saved["weights"], "optim_state_dict": saved["moments"]}
set_state_dict(objective, optimizer, **back, options=STATE_OPTIONS)
step(objective, optimizer)
found = figures(objective, [batch])
assert found == expected, (found, expected)
print("the same", found)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_shards_are_saved_whole_and_go_on_alike(scenes, tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, str(script), str(scenes.scenes), str(tmp_path / "state.pt")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("the same") == 2
