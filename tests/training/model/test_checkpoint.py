"""Checkpoints on disk, as `save_pretrained` writes them: loaded whole, or refused with a sentence."""

from __future__ import annotations

import json

import pytest
import torch

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.model.checkpoint import load
from spatial_mllm_training.model.preprocess import Processing

#: The loader's checks know no family: one is enough where nothing of it is read.
ONE_FAMILY = pytest.mark.parametrize("family", ["qwen2_5_vl"], indirect=True)


@pytest.fixture
def saved(speaking, tmp_path):
    """(folder of the base, additions file) of a model whose additions say something."""
    speaking.hf.save_pretrained(tmp_path / "base")
    speaking.save_additions(tmp_path / "additions.safetensors")
    return tmp_path / "base", tmp_path / "additions.safetensors"


@pytest.mark.parametrize("shard", ["10GB", "20KB"])
@torch.no_grad()
def test_a_saved_model_answers_as_before(speaking, make_batch, tmp_path, shard):
    speaking.hf.save_pretrained(tmp_path / "base", max_shard_size=shard)
    speaking.save_additions(tmp_path / "additions.safetensors")
    files = list((tmp_path / "base").glob("*.safetensors"))
    assert (len(files) > 2) == (shard == "20KB")
    loaded = load(tmp_path / "base", additions=tmp_path / "additions.safetensors").eval()
    assert loaded.family is speaking.family
    assert (loaded.tap_layers, loaded.heads) == (speaking.tap_layers, speaking.heads)
    batch = make_batch(speaking, [[(97, 61), (64, 80)]])
    expected = speaking(batch.ids, cameras=batch.cameras, **batch.stock).logits
    assert torch.equal(loaded(batch.ids, cameras=batch.cameras, **batch.stock).logits, expected)
    for name, tensor in speaking.additions().items():
        assert torch.equal(tensor, loaded.additions()[name])


@torch.no_grad()
def test_without_additions_it_is_the_base(saved, speaking, make_batch):
    loaded = load(saved[0], head_features=8, tap_layers=(2, 3, 4, 5)).eval()
    batch = make_batch(speaking, [[(97, 61)]])
    base = speaking(batch.ids, **batch.stock).logits
    assert torch.equal(loaded(batch.ids, cameras=batch.cameras, **batch.stock).logits, base)
    assert loaded.tap_layers == (2, 3, 4, 5)


@ONE_FAMILY
@torch.no_grad()
def test_bf16_weights_carry_float32_additions(saved, speaking, make_batch):
    loaded = load(saved[0], additions=saved[1], dtype=torch.bfloat16).eval()
    batch = make_batch(speaking, [[(97, 61)]])
    told = loaded(batch.ids, cameras=batch.cameras, **batch.stock).logits
    assert told.dtype == torch.bfloat16 and loaded.ray_embedding.null.dtype == torch.float32
    assert not torch.equal(told, loaded(batch.ids, **batch.stock).logits)


@ONE_FAMILY
def test_the_checkpoints_own_processor_settings_are_used(saved):
    settings = {
        "image_mean": [0.4, 0.4, 0.4],
        "image_std": [0.2, 0.2, 0.2],
        "min_pixels": 784,
        "max_pixels": 7840,
    }
    (saved[0] / "preprocessor_config.json").write_text(json.dumps(settings))
    assert load(saved[0]).processing == Processing((0.4,) * 3, (0.2,) * 3, 784, 7840)


def test_another_family_is_refused_by_both_names(saved, family):
    other = "internvl" if family.name != "internvl" else "qwen2_5_vl"
    with pytest.raises(SpatialError, match=rf"is a {family.name}, but a {other} was asked for"):
        load(saved[0], family=other)


def test_a_model_that_is_not_served_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(SpatialError, match=r"is a gpt2; served are internvl, llava_next_video"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["{", '{"model_type": "no_such_model"}', "{}"])
def test_a_broken_configuration_is_a_sentence(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SpatialError, match="no configuration of a model") as caught:
        load(tmp_path)
    assert caught.value.code == ErrorCode.MODEL_MISSING


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(SpatialError, match=r"no configuration of a model at .*nowhere"):
        load(tmp_path / "nowhere", local_files_only=True)


@ONE_FAMILY
def test_additions_of_another_family_or_width_are_refused_by_both_names(saved, tmp_path, make_config):
    from spatial_mllm_training.model import additions_file

    header = additions_file.read_header(saved[1])
    tensors = additions_file.read(saved[1])
    for family, width in (("some_other", 32), (header.family, 2048)):
        foreign = tmp_path / "foreign.safetensors"
        additions_file.write(
            foreign, tensors, additions_file.Header(family, width, header.tap_layers, header.heads)
        )
        sentence = (
            rf"additions for a {family} of width {width}, but the model is a {header.family} of width 32"
        )
        with pytest.raises(SpatialError, match=sentence) as caught:
            load(saved[0], additions=foreign)
        assert caught.value.code == ErrorCode.MODEL_SIGNATURE


@ONE_FAMILY
def test_additions_on_other_layers_or_of_other_heads_are_refused(saved, base, family):
    other_taps = CameraAwareVLM(base, family=family.name, head_features=8, tap_layers=(2, 3, 4, 5))
    with pytest.raises(SpatialError, match=r"heads on layers .*the model taps \(2, 3, 4, 5\)"):
        other_taps.load_additions(saved[1])
    with pytest.raises(SpatialError, match="heads on layers"):
        load(saved[0], additions=saved[1], tap_layers=(2, 3, 4, 5))
    other_heads = CameraAwareVLM(base, family=family.name, head_features=16)
    before = {k: v.clone() for k, v in other_heads.additions().items()}
    with pytest.raises(
        SpatialError, match="heads with depth_features 8, but the model has depth_features 16"
    ):
        other_heads.load_additions(saved[1])
    assert all(torch.equal(before[k], v) for k, v in other_heads.additions().items())
    with pytest.raises(
        SpatialError, match="heads with depth_features 8, but the model has depth_features 16"
    ):
        load(saved[0], additions=saved[1], heads=other_heads.heads)


@ONE_FAMILY
def test_additions_whose_tensors_are_not_those_of_their_header_are_refused(saved, speaking):
    from spatial_mllm_training.model import additions_file

    header, tensors = additions_file.read_header(saved[1]), additions_file.read(saved[1])
    name = "depth_head.out.0.bias"
    additions_file.write(saved[1], {**tensors, name: tensors[name][:1].clone()}, header)
    before = {k: v.clone() for k, v in speaking.additions().items()}
    with pytest.raises(SpatialError, match=r"does not fit: .*other shapes \['depth_head"):
        speaking.load_additions(saved[1])
    assert all(torch.equal(before[k], v) for k, v in speaking.additions().items())
    speaking.depth_head = torch.nn.Identity()
    with pytest.raises(SpatialError, match="unexpected"):
        speaking.load_additions(saved[1])


@ONE_FAMILY
@pytest.mark.parametrize("keep", [0, 5, 200, 0.5, 0.999])
def test_torn_additions_are_a_sentence(saved, keep):
    data = saved[1].read_bytes()
    saved[1].write_bytes(data[: int(keep * len(data)) if keep < 1 else keep])
    with pytest.raises(SpatialError, match=r"additions\.safetensors' is not a complete safetensors file"):
        load(saved[0], additions=saved[1])


@ONE_FAMILY
def test_a_torn_weight_file_is_a_sentence(saved):
    weights = saved[0] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(SpatialError, match="not a complete safetensors file"):
        load(saved[0])


@ONE_FAMILY
def test_a_missing_shard_is_a_sentence(speaking, tmp_path):
    speaking.hf.save_pretrained(tmp_path, max_shard_size="20KB")
    sorted(tmp_path.glob("*.safetensors"))[1].unlink()
    with pytest.raises(SpatialError, match="cannot be loaded"):
        load(tmp_path)


def test_a_checkpoint_that_lacks_tensors_is_refused(saved, family):
    from safetensors.torch import load_file, save_file

    weights = saved[0] / "model.safetensors"
    tensors = load_file(str(weights))
    name = next(k for k in sorted(tensors) if "layers.3.mlp.down_proj" in k)
    del tensors[name]
    save_file(tensors, str(weights), {"format": "pt"})
    with pytest.raises(SpatialError, match=rf"lacks 1 tensors of a {family.name}, first .*down_proj"):
        load(saved[0])


@ONE_FAMILY
def test_weights_of_another_width_are_refused(saved):
    config = json.loads((saved[0] / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 64
    (saved[0] / "config.json").write_text(json.dumps(config))
    sentence = (
        r"layers\.0\.mlp\.down_proj\.weight of .* is \(32, 48\), but its configuration asks for \(32, 64\)"
    )
    with pytest.raises(SpatialError, match=sentence):
        load(saved[0])


@ONE_FAMILY
def test_pickled_weights_are_not_read(base, tmp_path):
    base.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(base.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(SpatialError, match="cannot be loaded"):
        load(tmp_path)


@ONE_FAMILY
def test_some_other_safetensors_file_is_not_additions(saved):
    with pytest.raises(SpatialError, match="expected 'spatial_mllm additions' version 1 or 2"):
        load(saved[0], additions=saved[0] / "model.safetensors")
    with pytest.raises(SpatialError, match="there is no additions file"):
        load(saved[0], additions=saved[0] / "nothing.safetensors")


@ONE_FAMILY
def test_additions_are_replaced_as_a_whole(saved, speaking):
    torch.nn.init.normal_(speaking.ray_embedding.null)
    speaking.save_additions(saved[1])
    assert torch.equal(load(saved[0], additions=saved[1]).ray_embedding.null, speaking.ray_embedding.null)
    assert [p.name for p in saved[1].parent.iterdir() if p.is_file()] == ["additions.safetensors"]
