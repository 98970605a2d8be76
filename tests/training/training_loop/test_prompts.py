"""What a question points at: the visual tokens of its first and last image, in training as in the runtime."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.ndimage import map_coordinates

from spatial_mllm_core.answers import AskRequest
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.frames.frame import Frame
from spatial_mllm_core.model.digits import DIGITS
from spatial_mllm_core.model.pointing import depth_code
from spatial_mllm_core.model.spatial_model import SpatialModel
from spatial_mllm_training.data.packing import PackedQuestion, ShownImage, pack
from spatial_mllm_training.export.write_bundle import write_bundle
from spatial_mllm_training.model.matcher import MatcherSize
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.training_loop.batch import Batch, collate
from spatial_mllm_training.training_loop.objective import Objective
from spatial_mllm_training.training_loop.prompts import embedded
from spatial_mllm_training.training_loop.setup import build_learner

GRID_H, GRID_W = 9, 12
HEIGHT, WIDTH = GRID_H * 16, GRID_W * 16
CAMERA = CameraModel.from_fov(WIDTH, HEIGHT, hfov_rad=1.2)
DEPTH, MOTION = "depth_estimation_coor", "tapvid3d_total_distance_coord_pstudio"


MATCHER = MatcherSize(stem=8, channels=16, dilations=(1,), features=16)
KINDS = {
    "pointers": {},
    "deep": {"deep_pointers": True},
    "matching": {"deep_pointers": True, "matcher": MATCHER},
    "digits": {"deep_pointers": True, "matcher": MATCHER, "told_digits": True},
    "copies": {"deep_pointers": True, "matcher": MATCHER, "told_digits": True, "copied_digits": True},
}
ANSWERING = "deep", "digits", "copies"


def config_of(**kind):
    smoke = RECIPES["smoke"]()
    model = dataclasses.replace(smoke.model, clips=True, pointers=True, **kind)
    return dataclasses.replace(smoke, model=model, number_digits=DIGITS if model.told_digits else 0)


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def learner(tokenizer, request):
    torch.manual_seed(0)
    found = build_learner(config_of(**request.param), tokenizer=tokenizer)
    torch.nn.init.normal_(found.model.ray_embedding.mlp[2].weight, std=0.05)
    found.model.eval().float()
    return found


def views(count, seed=0):
    """Images of one pattern, each farther to the left: what is matched must not hang on the last bit."""
    noise = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return [np.roll(noise, -16 * i, axis=1) for i in range(count)]


def shown(image):
    rays = np.asarray(CAMERA.token_rays(GRID_W, GRID_H), np.float32).reshape(-1, 4)
    return ShownImage(image, (GRID_H, GRID_W), rays, True)


def asked(words, images):
    return PackedQuestion(((words, "`5`"),), images)


def model_depth_m(learner, image):
    """Depth of an image in a prompt of its own."""
    batch = collate([pack("alone", [shown(image)], [], learner.form)], learner.pad_id)
    ((log_depth, _),) = Objective(learner.model).predict(batch).depths
    return torch.exp(log_depth)[0].numpy()


@torch.no_grad()
def test_a_coordinate_carries_what_the_first_and_last_image_show_there(learner):
    model = learner.model
    question = "How deep are [ 40 , 999 ] and [ 500 , 300 ]?"
    samples = [
        pack("two", [shown(v) for v in views(2)], [asked(question, 1), asked(question, 2)], learner.form),
        pack("one", [shown(v) for v in views(1, 1)], [asked("[ 7 , 7 ]", 1), asked("none", 1)], learner.form),
        pack("none", [], [asked("[ 7 , 7 ]", 0)], learner.form),
    ]
    batch = collate(samples, learner.pad_id)
    with_them = embedded(model, batch).embeds
    model.pointers = False
    added = with_them - embedded(model, batch).embeds
    (group,) = batch.groups
    from spatial_mllm_training.model.preprocess import normalised

    pixels = normalised(model.processing, group.pixels.permute(0, 3, 1, 2))
    tokens = model.embed_images(pixels, group.rays, group.has_camera, group.first).numpy()
    maps = tokens.reshape(3, GRID_H, GRID_W, -1)

    depths_m = [model_depth_m(learner, v) for v in (*views(2)[:1], *views(1, 1))]

    def at(image, x, y):
        place = [[y / 1000 * GRID_H - 0.5], [x / 1000 * GRID_W - 0.5]]
        return np.array(
            [map_coordinates(m, place, order=1, mode="nearest")[0] for m in maps[image].transpose(2, 0, 1)]
        )

    def far(sample, x, y):
        """What the first image of a sample adds by its depth."""
        there = depths_m[sample][[int(y / 1000 * 8 * GRID_H)], [int(x / 1000 * 8 * GRID_W)]]
        return depth_code(there, maps.shape[-1])[0] if model.deep_pointers else 0.0

    two = ((40, 999), (500, 300))
    expected = [
        (0, [*(at(0, *p) + far(0, *p) for p in two), *(at(0, *p) + at(1, *p) + far(0, *p) for p in two)]),
        (1, [at(2, 7, 7) + far(1, 7, 7)]),
        (2, [0.0]),  # no image, no look
    ]
    for row, values in expected:
        ends = ["]" in learner.tokenizer.decode([token]) for token in batch.ids[row].tolist()]
        left = added[row].numpy()
        for place, value in zip(np.flatnonzero(ends), values, strict=True):
            np.testing.assert_allclose(left[place], value, atol=2e-3)
            left[place] = 0.0
        assert np.abs(left[batch.places[row].numpy() < 0]).max(initial=0.0) < 1e-6


@torch.no_grad()
@pytest.mark.parametrize(("task", "images"), [(DEPTH, 1), (MOTION, 2)])
def test_the_runtime_points_as_training_did(learner, tokenizer, tmp_path, monkeypatch, task, images):
    """The logits behind a question: of the exported bundle, and of the training's own forward pass."""
    folder = tmp_path / "mini"
    folder.mkdir()
    about = {"name": "mini", "version": "0", "subtasks": (DEPTH, MOTION), "progress": {}, "metrics": {}}
    kind = KINDS["digits"] if learner.model.told_digits else {}
    write_bundle(learner.model, config_of(**kind), tokenizer, folder, **about, small=False)
    runtime = SpatialModel.load(folder)
    assert runtime.manifest.pointers and runtime.manifest.clips
    assert runtime.manifest.deep_pointers == learner.model.deep_pointers
    assert runtime.manifest.told_digits == learner.model.told_digits
    pictures = views(images)
    frames = tuple(Frame(i + 1, "optical", image, CAMERA) for i, image in enumerate(pictures))
    words = runtime._question(AskRequest(task, frames, ((95.5, 71.5),))).words
    prefix = runtime._prefix(frames)
    question, digits = runtime._embedded(words + runtime.manifest.prompt.question_suffix, prefix)
    assert (digits is not None) == learner.model.told_digits
    positions = np.broadcast_to(prefix.next_position + np.arange(len(question)), (3, len(question)))
    told = runtime.engine.decode(question, positions, prefix.cache).logits
    told = told if digits is None else digits.logits(told)
    sample = pack("one", [shown(v) for v in pictures], [asked(words, images)], learner.form)
    lifted = []
    lift = runtime.engine.lift
    monkeypatch.setattr(runtime.engine, "lift", lambda taps: lifted.append(taps) or lift(taps))
    runtime.perceive(frames[0])
    assert len(lifted) == (not learner.model.deep_pointers)  # the depth that answers needed is not made again
    expected = Objective(learner.model).predict(collate([sample], learner.pad_id)).logits[0].numpy()
    np.testing.assert_allclose(told, expected, atol=1e-3, rtol=1e-3)
    learner.model.pointers = False
    other = Objective(learner.model).predict(collate([sample], learner.pad_id)).logits[0].numpy()
    assert np.abs(other - expected).max() > 5e-3


@torch.no_grad()
@pytest.mark.parametrize("learner", [KINDS[kind] for kind in ANSWERING], ids=ANSWERING, indirect=True)
@pytest.mark.parametrize(
    ("task", "images", "said"),
    [
        (DEPTH, 1, "The depth is `00812` mm."),
        (MOTION, 2, "`00017` mm"),
        ("displacement_vector", 2, "`[+00120, -00035, +01000]` mm"),
    ],
)
def test_the_runtime_hears_while_it_answers_what_training_heard(
    learner, tokenizer, tmp_path, task, images, said
):
    """Logits at every token of an answer that is put into its mouth: one step after the other, and all at once."""
    folder = tmp_path / "mini"
    folder.mkdir()
    about = {"name": "mini", "version": "0", "subtasks": (DEPTH, MOTION, task), "progress": {}, "metrics": {}}
    kind = KINDS["digits"] if learner.model.told_digits else {}
    write_bundle(learner.model, config_of(**kind), tokenizer, folder, **about, small=False)
    runtime = SpatialModel.load(folder)
    pictures = views(images)
    frames = tuple(Frame(i + 1, "optical", image, CAMERA) for i, image in enumerate(pictures))
    points = () if task == "displacement_vector" else ((95.5, 71.5),)
    words = runtime._question(AskRequest(task, frames, points)).words
    prefix = runtime._prefix(frames)
    asked_of, digits = runtime._embedded(words + runtime.manifest.prompt.question_suffix, prefix)
    spoken = iter([*runtime._encode(said), runtime._stop_id])
    heard = []

    def choose(logits):
        heard.append(logits)
        return next(spoken)

    runtime._generate(prefix, asked_of, digits, choose, 64, None, None, None)
    question = PackedQuestion(((words, said),), images)
    sample = pack("one", [shown(v) for v in pictures], [question], learner.form)
    out = Objective(learner.model).predict(collate([sample], learner.pad_id))
    np.testing.assert_allclose(np.stack(heard), out.logits.numpy(), atol=1e-3, rtol=1e-3)
    if not learner.model.told_digits:
        return
    learner.model.told_digits = False
    deaf = Objective(learner.model).predict(collate([sample], learner.pad_id)).logits.numpy()
    learner.model.told_digits = True
    changed = np.abs(deaf - out.logits.numpy()).max(axis=1) > 1e-4
    assert changed[: len(changed) // 2].any() and changed.sum() > 5


def test_digits_come_where_numbers_are_spelled(learner):
    """A place for each token of an answer that a digit may follow, none in questions and behind a number's last."""
    questions = [asked("How deep is [ 40 , 300 ]?", 1), asked("How far did it go, 00123 or 00456?", 2)]
    answers = ["`00812`", "`[+00120, -00035, +01000]` mm"]
    said = [
        dataclasses.replace(q, turns=((q.turns[0][0], a),)) for q, a in zip(questions, answers, strict=True)
    ]
    sample = pack("one", [shown(v) for v in views(2)], said, learner.form)
    is_answer = sample.labels >= 0
    assert (sample.places[~is_answer] == -1).all()
    if not learner.model.told_digits:
        assert (sample.places == -1).all()
        return
    for number in (3, 4):
        here = np.flatnonzero((sample.owner == number) & is_answer)
        text = ""
        for at in here:
            behind = len(text) - len(text.rstrip("0123456789"))
            assert sample.places[at] == (behind if behind < DIGITS else -1)
            text += learner.tokenizer.decode([int(sample.labels[at])])
        assert answers[number - 3] in text


@torch.no_grad()
def test_images_of_several_sizes_tell_their_depths_as_each_size_alone(learner):
    """Groups of images are put back in order: a mixed batch embeds what its samples embed by themselves."""
    model = learner.model
    narrow = views(1, 2)[0][:, : WIDTH // 2]
    rays = np.asarray(CAMERA.token_rays(GRID_W // 2, GRID_H), np.float32).reshape(-1, 4)
    small = ShownImage(narrow, (GRID_H, GRID_W // 2), rays, True)
    question = [asked("How deep is [ 300 , 600 ]?", 1)]
    samples = [
        pack(str(i), [image], question, learner.form) for i, image in enumerate((shown(views(1)[0]), small))
    ]
    both = embedded(model, collate(samples, learner.pad_id)).embeds
    for row, sample in enumerate(samples):
        alone = embedded(model, collate([sample], learner.pad_id)).embeds[0]
        np.testing.assert_allclose(both[row, : len(alone)].numpy(), alone.numpy(), atol=1e-4)


def test_what_is_read_twice_is_trained_as_if_read_once(learner):
    """Under autocast the first, gradient-free reading leaves no cast weights behind for the second one."""
    learner.model.train()
    sample = pack("one", [shown(v) for v in views(2)], [asked("How deep is [ 40 , 300 ]?", 2)], learner.form)
    with torch.autocast("cpu", torch.bfloat16):
        out = Objective(learner.model).predict(collate([sample], learner.pad_id))
        loss = out.logits.float().square().mean() + sum(d.square().mean() for d, _ in out.depths)
    loss.backward()
    without = [name for name, p in learner.model.named_parameters() if p.grad is None]
    assert [name for name in without if not name.startswith(("ray_embedding.null", "matcher."))] == []


@pytest.mark.parametrize("frozen", [False, True])
def test_a_frozen_tower_says_the_same_and_learns_nothing(learner, frozen):
    sample = pack("one", [shown(v) for v in views(2)], [asked("How deep is [ 40 , 300 ]?", 2)], learner.form)
    batch = collate([sample], learner.pad_id)
    expected = Objective(learner.model).predict(batch).logits
    learner.model.frozen_vision = frozen
    out = Objective(learner.model).predict(batch)
    torch.testing.assert_close(out.logits, expected)
    (out.logits.square().mean() + out.depths[0][0].square().mean()).backward()
    tower = learner.model.family.vision(learner.model.hf)
    assert all((p.grad is None) == frozen for p in tower.parameters())
    assert learner.model.ray_embedding.mlp[0].weight.grad.abs().sum() > 0


def test_a_batch_is_read_as_it_was_saved(learner, tmp_path):
    """With all that its questions point at; one of before deep pointers tells no depth."""
    sample = pack("one", [shown(v) for v in views(2)], [asked("How deep is [ 40 , 300 ]?", 2)], learner.form)
    batch = collate([sample, sample], learner.pad_id)
    assert batch.pointer_images.tolist() == [0, -1, 2, -1]
    assert batch.pair_images.tolist() == [[0, 1], [2, 3]]
    assert batch.pair_points.tolist() == [[40, 300], [40, 300]]
    for row, token in batch.pairs.tolist():
        assert learner.tokenizer.decode([int(batch.ids[row, token])]) == "How"
    batch.save(tmp_path / "batch.safetensors")
    again = Batch.read(tmp_path / "batch.safetensors")
    for field in dataclasses.fields(Batch):
        if isinstance(value := getattr(batch, field.name), torch.Tensor):
            assert torch.equal(value, getattr(again, field.name)), field.name
    tensors = load_file(tmp_path / "batch.safetensors")
    old = {name: value for name, value in tensors.items() if name not in ("pointer_images", "pointer_cells")}
    save_file(old, tmp_path / "old.safetensors")
    assert Batch.read(tmp_path / "old.safetensors").pointer_images.tolist() == [-1] * 4
    new = ("told_pairs", "told_numbers", "pairs", "pair_images", "pair_points")
    save_file({k: v for k, v in tensors.items() if k not in new}, tmp_path / "older.safetensors")
    assert Batch.read(tmp_path / "older.safetensors").pairs.shape == (0, 2)
