"""General conversations: turns, images without a camera, and faults named by entry."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.data.general import GeneralSource
from spatial_mllm_training.data.packing import IGNORE

TALK = [
    {"from": "human", "value": "<image>\nWhat is this?"},
    {"from": "gpt", "value": "a mug"},
    {"from": "human", "value": "And its colour?"},
    {"from": "gpt", "value": "red"},
]


@pytest.fixture
def source(tmp_path, form, viewer):
    cv2.imwrite(str(tmp_path / "mug.png"), np.full((60, 80, 3), 90, np.uint8))
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")

    def make(*entries):
        (tmp_path / "talk.json").write_text(json.dumps(list(entries)))
        return GeneralSource(tmp_path / "talk.json", tmp_path, form, viewer, 3, max_tokens=900)

    return make


def test_every_turn_is_learnt_after_what_was_said_before(source, tokenizer):
    sample = source({"id": "1", "image": "mug.png", "conversations": TALK}).sample(0)
    assert len(sample.images) == 1 and not sample.images[0].has_camera and sample.targets is None
    talk = sample.owner == 2
    said = tokenizer.decode(
        sample.labels[talk & (sample.labels != IGNORE)].tolist(), skip_special_tokens=False
    )
    assert said == "a mug<|end|>red<|end|>"
    assert "<image>" not in tokenizer.decode(sample.ids[talk].tolist())
    first, second = (np.flatnonzero(sample.labels != IGNORE)[[0, -1]]).tolist()
    assert sample.mask()[second, first] and not sample.mask()[first, second]


def test_a_conversation_without_images_is_words_only(source):
    entry = {
        "id": "2",
        "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}],
    }
    sample = source(entry).sample(0)
    assert sample.images == () and (sample.labels != IGNORE).any()


def test_an_epoch_holds_every_entry_once(source):
    made = source(*[{"id": str(i), "image": "mug.png", "conversations": TALK} for i in range(7)])
    for epoch in (0, 1):
        assert {made.sample(7 * epoch + i).name for i in range(7)} == {f"general {i}" for i in range(7)}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"id": "1", "image": "gone.png", "conversations": TALK}, "gone.png' is not there"),
        ({"id": "1", "image": "torn.png", "conversations": TALK}, "torn.png' is not an image"),
        ({"id": "1", "conversations": TALK}, "names 0 image"),
        ({"id": "1", "image": "mug.png", "conversations": TALK[1:]}, "do not alternate"),
        ({"id": "1"}, "not a LLaVA conversation"),
        (
            {"conversations": [{"from": "human", "value": "a " * 3000}, {"from": "gpt", "value": "b"}]},
            "at most 900",
        ),
    ],
)
def test_a_bad_entry_is_named(source, entry, words):
    with pytest.raises(SpatialError, match=words) as caught:
        source(entry).sample(0)
    assert "entry 0 of" in caught.value.sentence


def test_what_is_not_json_is_said(tmp_path, form, viewer):
    (tmp_path / "a.json").write_text("[{")
    with pytest.raises(SpatialError, match="not JSON"):
        GeneralSource(tmp_path / "a.json", tmp_path, form, viewer, 0, max_tokens=10)
