"""Answers with a cache against the same model asked anew for every token."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from spatial_mllm_core.answers import AskRequest
from spatial_mllm_core.frames.frame import Frame
from spatial_mllm_core.model.digits import DIGITS
from spatial_mllm_core.model.spatial_model import SpatialModel
from spatial_mllm_training.ablate.decode import LONGEST, answers
from spatial_mllm_training.ablate.questions import pair_items
from spatial_mllm_training.data.packing import PackedQuestion, ShownImage, pack
from spatial_mllm_training.data.pairs import PairBuilder
from spatial_mllm_training.export.write_bundle import write_bundle
from spatial_mllm_training.scenes.split import scene_files
from spatial_mllm_training.training_loop.batch import collate
from spatial_mllm_training.training_loop.prompts import embedded
from spatial_mllm_training.training_loop.setup import build_learner


def slowly(learner, sample, questions, index):
    """One question alone, its tokens appended one by one: no cache, no neighbours."""
    model, stop = learner.model, learner.form.encode(learner.form.words.stop)[0]
    alone = pack("one", sample.images, [questions[index]], learner.form)
    batch = collate([alone], learner.pad_id)
    ids, positions = batch.ids, batch.positions
    own = torch.from_numpy(alone.mask())[None, None]
    told: list[int] = []
    embeds = embedded(model, batch).embeds
    table = model.hf.get_input_embeddings()
    while len(told) < LONGEST:
        hidden, _ = model.decode(embeds, positions, own)
        token = int(model.hf.get_output_embeddings()(hidden[0, -1]).argmax())
        if token == stop:
            break
        told.append(token)
        embeds = torch.cat([embeds, table(torch.tensor([[token]]))], 1)
        positions = torch.cat([positions, positions[..., -1:] + 1], -1)
        n = own.shape[-1]
        grown = torch.zeros(1, 1, n + 1, n + 1, dtype=torch.bool)
        grown[..., :n, :n] = own
        grown[..., n, :n] = own[..., n - 1, :]
        grown[..., n, n] = True
        own = grown
    assert ids.shape[1] + len(told) == embeds.shape[1]
    return learner.tokenizer.decode(told)


def test_packed_answers_are_those_of_each_question_alone(speaking):
    learner, builder = speaking
    items = pair_items(builder, 4, seed=0, constants={})
    assert len({len(item.questions) for item in items} | {0}) > 1
    with torch.no_grad():
        found = answers(learner, [item.sample for item in items])
        for item, texts, number in zip(items, found, range(4), strict=True):
            view = builder.draw(np.random.default_rng([0, number]))
            questions = [PackedQuestion(((q.words(), ""),), 1) for q in view.single]
            questions += [PackedQuestion(((q.words(), ""),), 2) for q in view.pair]
            assert len(texts) == len(item.questions) == len(questions)
            for index, text in enumerate(texts):
                assert text == slowly(learner, item.sample, questions, index)
    assert len({text for texts in found for text in texts}) > 1
    few = [[question.choices for question in item.questions] for item in items]
    chosen = answers(learner, [item.sample for item in items], choices=few)
    assert any(choices for of_sample in few for choices in of_sample)
    for texts, free, choices in zip(chosen, found, few, strict=True):
        for text, before, admissible in zip(texts, free, choices, strict=True):
            assert text in admissible if admissible else text == before


def test_letters_of_named_points_come_back_as_the_points(speaking):
    learner, builder = speaking
    words = dataclasses.replace(learner.form.words, named_letters=True)
    learner = dataclasses.replace(learner, form=dataclasses.replace(learner.form, words=words))
    items = pair_items(builder, 6, seed=0, constants={})
    few = [[question.choices for question in item.questions] for item in items]
    named = 0
    for texts, of_sample in zip(answers(learner, [i.sample for i in items], choices=few), few, strict=True):
        for text, admissible in zip(texts, of_sample, strict=True):
            if admissible:
                assert text in admissible
                named += text.startswith("`[ ")
    assert named


@pytest.mark.parametrize("copies", [False, True])
def test_answers_are_spelled_by_what_is_told(scenes, tiny, copies, tmp_path):
    """What is said of images with digits and copies is what the bundle of the same model says, question by question."""
    model = dataclasses.replace(
        tiny.model, pointers=True, deep_pointers=True, told_digits=True, copied_digits=copies
    )
    tiny = dataclasses.replace(tiny, model=model, number_digits=DIGITS)
    learner = build_learner(tiny)
    torch.manual_seed(3)
    for parameter in learner.model.eval().float().hf.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    write_bundle(
        learner.model, tiny, learner.tokenizer, tmp_path, name="mini", version="0", progress={}, metrics={},
        subtasks=("depth_estimation_coor",), small=False,
    )  # fmt: skip
    served = SpatialModel.load(tmp_path)
    (file, *_) = scene_files(scenes, held_out=False)
    builder = PairBuilder([file], learner.tokenizer, tiny.data, augment=False, form=learner.form)
    views, cameras = builder.views.draw(np.random.default_rng(0))
    image, camera = views[0].image(), cameras[0]
    rays = np.asarray(camera.token_rays(*tiny.data.grid[::-1]), np.float32).reshape(-1, 4)
    frame = Frame(1, "optical", image, camera)
    requests = [
        AskRequest("depth_estimation_coor", (frame,), ((u, v),)) for u, v in ((5, 9), (40, 30), (60, 2))
    ]
    words = [served._question(request).words for request in requests]
    shown = ShownImage(image, tiny.data.grid, rays, True)
    sample = pack("one", [shown], [PackedQuestion(((asked, ""),), 1) for asked in words], learner.form)
    (texts,) = answers(learner, [sample])
    for request, text in zip(requests, texts, strict=True):
        question = served._question(request)
        prefix = served._prefix((frame,))
        asked_of, spelling = served._embedded(question.words + served.manifest.prompt.question_suffix, prefix)
        said, _ = served._generate(prefix, asked_of, spelling, served._chooser(), LONGEST, None, None, None)
        assert said == text.strip()
