"""Every family behind one wrapper: the base's answers at initialisation, rays at visual tokens only."""

from __future__ import annotations

import pytest
import torch

from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.model.families import FAMILIES, tap_layers

ROWS = {
    "one image": [[(97, 61)]],
    "odd sizes in a batch": [[(97, 61), (64, 151)], [(120, 120)], [(33, 200)]],
    "five images": [[(80, 60)] * 5],
}


@pytest.fixture(params=sorted(ROWS))
def rows(request):
    return ROWS[request.param]


def extras(base, batch):
    """What a user of the stock class gives besides pixels: Qwen's mark of visual tokens."""
    if base.config.model_type != "qwen2_5_vl":
        return {}
    return {"mm_token_type_ids": (batch.ids == base.config.image_token_id).int()}


def embeddings_seen(model, run):
    """`inputs_embeds` that reach the decoder, after every hook."""
    seen = []
    layer = model.family.decoder(model.hf).layers[0]
    handle = layer.register_forward_pre_hook(lambda _m, args, kwargs: seen.append(args[0]), with_kwargs=True)
    try:
        run()
    finally:
        handle.remove()
    return seen[0]


@pytest.mark.parametrize("padding", ["left", "right"])
@torch.no_grad()
def test_logits_equal_the_base_exactly_at_initialisation(wrapped, base, make_batch, rows, padding):
    batch = make_batch(wrapped, rows, padding=padding)
    base_logits = base(input_ids=batch.ids, **extras(base, batch), **batch.stock).logits
    assert torch.equal(wrapped(batch.ids, cameras=batch.cameras, **batch.stock).logits, base_logits)
    assert torch.equal(wrapped(batch.ids, **batch.stock).logits, base_logits)
    assert base_logits.std() > 0


@torch.no_grad()
def test_generated_ids_equal_the_base_at_initialisation(wrapped, base, make_batch):
    batch = make_batch(wrapped, ROWS["odd sizes in a batch"], padding="left")
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    expected = base.generate(input_ids=batch.ids, **extras(base, batch), **batch.stock, **settings)
    found = wrapped.generate(batch.ids, cameras=batch.cameras, **batch.stock, **settings)
    assert torch.equal(found, expected)
    assert found.shape[1] == batch.ids.shape[1] + 8


@torch.no_grad()
def test_rays_change_visual_tokens_that_see_a_pixel_and_nothing_else(speaking, make_batch, rows):
    batch = make_batch(speaking, rows)
    plain = embeddings_seen(speaking, lambda: speaking(batch.ids, **batch.stock))
    told = embeddings_seen(speaking, lambda: speaking(batch.ids, cameras=batch.cameras, **batch.stock))
    mask = speaking.image_mask(batch.ids)
    assert torch.equal(plain[~mask], told[~mask])
    changed = (told[mask] - plain[mask]).abs().amax(-1) > 1e-4
    assert torch.equal(changed, batch.cameras.sees_pixel_T)
    expected = speaking.ray_embedding(batch.cameras.rays_T4, torch.ones(len(changed), dtype=torch.bool))
    torch.testing.assert_close((told - plain)[mask][changed], expected[changed], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_rays_change_answers_and_differ_from_no_camera(speaking, make_batch):
    batch = make_batch(speaking, [[(97, 61)], [(64, 80)]])
    cameras = batch.cameras
    unknown = type(cameras)(
        cameras.rays_T4, cameras.sees_pixel_T, cameras.image_T, torch.zeros_like(cameras.has_camera_I)
    )
    plain, told, null = (
        speaking(batch.ids, cameras=c, **batch.stock).logits[:, -1] for c in (None, cameras, unknown)
    )
    assert min((told - plain).abs().max(), (null - plain).abs().max(), (told - null).abs().max()) > 1e-4


@torch.no_grad()
def test_a_row_of_a_padded_batch_answers_as_alone(speaking, make_batch):
    """Rays of one row must not slip into another."""
    long, short = [(97, 61), (64, 151)], [(120, 90)]
    for padding in ("left", "right"):
        both = make_batch(speaking, [long, short], padding=padding)
        cut = both.stock["attention_mask"][1].bool()
        cameras = both.cameras
        last = cameras.image_T == 2
        alone = type(cameras)(
            cameras.rays_T4[last], cameras.sees_pixel_T[last], torch.zeros(int(last.sum()), dtype=torch.long),
            cameras.has_camera_I[2:],
        )  # fmt: skip
        model = speaking
        pixels = {k: v for k, v in both.stock.items() if k != "attention_mask"}
        if "image_grid_thw" in pixels:
            patches = int(pixels["image_grid_thw"][2].prod())
            pixels = {
                "pixel_values": pixels["pixel_values"][-patches:],
                "image_grid_thw": pixels["image_grid_thw"][2:],
            }
        else:
            pixels = {k: v[2:] if k != "batch_num_images" else torch.tensor([2]) for k, v in pixels.items()}
        in_batch = model(both.ids, cameras=cameras, **both.stock).logits[1][cut]
        by_itself = model(both.ids[1][cut][None], cameras=alone, **pixels).logits[0]
        torch.testing.assert_close(in_batch, by_itself, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_generate_with_rays_equals_forward_token_by_token(speaking, make_batch):
    batch = make_batch(speaking, [[(97, 61), (64, 80)]])
    pixels = {k: v for k, v in batch.stock.items() if k != "attention_mask"}
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    found = speaking.generate(batch.ids, cameras=batch.cameras, **pixels, **settings)
    ids = batch.ids
    for _ in range(6):
        logits = speaking(ids, cameras=batch.cameras, **pixels).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(found, ids)


@torch.no_grad()
def test_beams_carry_the_rays_of_their_row(speaking, make_batch):
    batch = make_batch(speaking, [[(97, 61)]])
    settings = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    greedy = speaking.generate(batch.ids, cameras=batch.cameras, **batch.stock, **settings)
    beams = speaking.generate(
        batch.ids, cameras=batch.cameras, num_beams=3, num_return_sequences=3, return_dict_in_generate=True,
        output_scores=True, **batch.stock, **settings,
    )  # fmt: skip
    # the first step of every beam is the same prefill: its scores are those of the greedy prefill
    first = speaking(batch.ids, cameras=batch.cameras, **batch.stock).logits[0, -1].log_softmax(-1)
    torch.testing.assert_close(beams.scores[0][0], first, atol=1e-5, rtol=1e-4)
    assert greedy.shape[1] == beams.sequences.shape[1]


def test_gradients_reach_the_ray_mlp_the_null_vector_and_every_tapped_layer(speaking, make_batch):
    batch = make_batch(speaking, [[(97, 61), (64, 80)]])
    cameras = batch.cameras
    cameras.has_camera_I[1] = False
    out = speaking(batch.ids, cameras=cameras, output_hidden_states=True, **batch.stock)
    taps = speaking.visual_taps(out.hidden_states, batch.ids, batch.framings)
    sum(tap.square().mean() for image in taps for tap in image).backward()
    for name, parameter in speaking.ray_embedding.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    layers = speaking.family.decoder(speaking.hf).layers
    for i in range(speaking.tap_layers[-1]):
        assert layers[i].mlp.down_proj.weight.grad.abs().max() > 0
    assert layers[speaking.tap_layers[-1]].mlp.down_proj.weight.grad is None  # it comes after the last tap


def test_gradient_checkpointing_leaves_taps_and_gradients_alone(speaking, make_batch):
    batch = make_batch(speaking, [[(97, 61)]])
    results = []
    for recompute in (False, True):
        speaking.zero_grad()
        speaking.train()
        if recompute:
            speaking.hf.gradient_checkpointing_enable({"use_reentrant": False})
        out = speaking(
            batch.ids, cameras=batch.cameras, output_hidden_states=True, use_cache=False, **batch.stock
        )
        taps = speaking.visual_taps(out.hidden_states, batch.ids, batch.framings)[0]
        (out.logits.square().mean() + sum(tap.square().mean() for tap in taps)).backward()
        results.append(([t.detach() for t in taps], speaking.ray_embedding.mlp[0].weight.grad.clone()))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(results[0][1], results[1][1])


@torch.no_grad()
def test_taps_are_the_inputs_of_the_tapped_layers(speaking, make_batch):
    batch = make_batch(speaking, [[(97, 61), (64, 80)]])
    decoder = speaking.family.decoder(speaking.hf)
    inputs = {}
    handles = [
        decoder.layers[i].register_forward_pre_hook(lambda _m, args, i=i: inputs.__setitem__(i, args[0]))
        for i in speaking.tap_layers
    ]
    outputs = []
    handles.append(decoder.layers[-1].register_forward_hook(lambda _m, _args, output: outputs.append(output)))
    out = speaking(batch.ids, cameras=batch.cameras, output_hidden_states=True, **batch.stock)
    for handle in handles:
        handle.remove()
    taps = speaking.visual_taps(out.hidden_states, batch.ids, batch.framings)
    mask = speaking.image_mask(batch.ids)
    at = 0
    for image, framing in zip(taps, batch.framings, strict=True):
        raster = framing.grid_width * framing.grid_height
        for tap, layer in zip(image, speaking.tap_layers, strict=True):
            assert torch.equal(tap, inputs[layer][mask][at : at + raster])
        at += framing.token_count
    last = len(decoder.layers)  # this entry is after the final norm, whatever the layers gave
    assert torch.equal(out.hidden_states[last], decoder.norm(outputs[0]))
    with pytest.raises(ValueError, match=r"1\.\.5"):
        CameraAwareVLM(speaking.hf, family=speaking.family.name, tap_layers=(1, 2, 3, last))


@torch.no_grad()
def test_explicit_embeddings_are_those_of_the_stock_entry(speaking, make_batch):
    """`embed_images` (training, export) and `forward` (stock inputs) see the same visual tokens."""
    side = 112 if speaking.family.name != "llava_onevision" else 90
    batch = make_batch(speaking, [[(side, side), (side, side)]])
    seen = embeddings_seen(speaking, lambda: speaking(batch.ids, cameras=batch.cameras, **batch.stock))
    seen = seen[speaking.image_mask(batch.ids)].reshape(2, -1, 32)
    grid_h, grid_w = speaking.family.grid(speaking.hf, side, side)
    images = torch.stack([unpatched(speaking, batch.stock, i, side) for i in range(2)])
    rays = batch.cameras.rays_T4.reshape(2, -1, 4)[:, : grid_h * grid_w]
    own = speaking.embed_images(images, rays, torch.tensor([True, True]))
    torch.testing.assert_close(seen[:, : grid_h * grid_w], own, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_decode_under_an_explicit_mask_equals_the_stock_forward(speaking, make_batch):
    batch = make_batch(speaking, [[(97, 61)], [(97, 61), (64, 80)]])
    expected = speaking(batch.ids, cameras=batch.cameras, output_hidden_states=True, **batch.stock)
    embeds = embeddings_seen(speaking, lambda: speaking(batch.ids, cameras=batch.cameras, **batch.stock))
    length, real = batch.ids.shape[1], batch.stock["attention_mask"].bool()
    positions = torch.arange(length).expand(2, length)
    if "image_grid_thw" in batch.stock:
        positions = speaking.hf.model.get_rope_index(
            input_ids=batch.ids,
            image_grid_thw=batch.stock["image_grid_thw"],
            attention_mask=batch.stock["attention_mask"],
            **extras(speaking.hf, batch),
        )[0]
    mask = torch.ones(length, length, dtype=torch.bool).tril() & real[:, None, None, :]
    hidden, taps = speaking.decode(embeds, positions, mask)
    torch.testing.assert_close(speaking.hf.lm_head(hidden)[real], expected.logits[real], atol=1e-5, rtol=1e-4)
    for tap, i in zip(taps, speaking.tap_layers, strict=True):
        torch.testing.assert_close(tap[real], expected.hidden_states[i][real], atol=1e-5, rtol=1e-4)
    # a mask of one's own is followed: nobody looks at the first token
    blind = mask & (torch.arange(length) > 0) | torch.eye(length, dtype=torch.bool)
    other, _ = speaking.decode(embeds, positions, blind)
    assert (other - hidden).abs().max() > 1e-4


def unpatched(model, stock, index, side):
    """The normalised image of the stock inputs of a family."""
    if "image_grid_thw" not in stock:
        pixels = stock.get("pixel_values", stock.get("pixel_values_videos"))
        return pixels.reshape(-1, 3, side, side)[index]
    n = side // 28
    patches = stock["pixel_values"].reshape(2, n, n, 2, 2, 3, 2, 14, 14)[index, ..., 0, :, :]
    return patches.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, side, side)


@torch.no_grad()
def test_a_token_shows_the_pixels_that_its_framing_says(family, base, wrapped):
    """With attention switched off a token depends on its own patch: paint one and see who changes."""
    for module in wrapped.family.vision(base).modules():
        for name in ("proj", "projection_layer", "out_proj"):
            child = getattr(module, name, None)
            if isinstance(child, torch.nn.Linear):
                torch.nn.init.zeros_(child.weight)
                torch.nn.init.zeros_(child.bias)
    framing = wrapped.framing(112, 84 if family.name == "qwen2_5_vl" else 112)
    height, width = framing.input_height, framing.input_width
    blank = torch.zeros(1, 3, height, width)
    tokens = family.visual_tokens(base, blank)
    assert tokens.shape[1] == framing.grid_width * framing.grid_height
    pitch = framing.pitch_px
    for row in range(framing.grid_height):
        for column in range(framing.grid_width):
            painted = blank.clone()
            painted[..., row * pitch : (row + 1) * pitch, column * pitch : (column + 1) * pitch] = 1.0
            changed = (family.visual_tokens(base, painted) - tokens).abs().amax(-1)[0] > 1e-6
            assert changed.nonzero().flatten().tolist() == [row * framing.grid_width + column]
    rest = blank.clone()
    rest[..., framing.grid_height * pitch :, :] = 1.0
    rest[..., framing.grid_width * pitch :] = 1.0
    assert torch.equal(family.visual_tokens(base, rest), tokens)


def test_rays_that_would_be_lost_are_a_mistake(speaking, make_batch):
    batch = make_batch(speaking, [[(97, 61)]])
    mask = speaking.image_mask(batch.ids)
    rays, known = batch.cameras.rays_T4, torch.ones(len(batch.cameras.rays_T4), dtype=torch.bool)
    with pytest.raises(ValueError, match="rays of"), speaking.camera(mask, rays[1:], known[1:]):
        pass
    with pytest.raises(ValueError, match="reached no token"), speaking.camera(mask, rays, known):
        speaking.hf(input_ids=torch.tensor([[5, 6, 7]]))


@torch.no_grad()
def test_camera_dropout_forgets_whole_images_and_only_in_training(family, base, make_batch):
    model = CameraAwareVLM(base, family=family.name, head_features=8, camera_dropout=0.4)
    torch.nn.init.normal_(model.ray_embedding.mlp[2].weight, std=0.1)
    torch.nn.init.normal_(model.ray_embedding.null, std=0.3)
    batch = make_batch(model, [[(97, 61), (64, 80), (50, 50)]])
    plain = embeddings_seen(model, lambda: model(batch.ids, **batch.stock))[model.image_mask(batch.ids)]
    forgotten = 0
    model.train()
    torch.manual_seed(1)
    for _ in range(40):
        told = embeddings_seen(model, lambda: model(batch.ids, cameras=batch.cameras, **batch.stock))
        added = told[model.image_mask(batch.ids)] - plain
        for image in range(3):
            here = (batch.cameras.image_T == image) & batch.cameras.sees_pixel_T
            is_null = (added[here] - model.ray_embedding.null).abs().amax(-1) < 1e-5
            assert is_null.all() or not is_null.any()
            forgotten += int(is_null[0])
    assert 30 < forgotten < 66  # 120 draws at 0.4: 48 expected, 3.4 standard deviations either way
    model.eval()
    told = embeddings_seen(model, lambda: model(batch.ids, cameras=batch.cameras, **batch.stock))
    added = (told[model.image_mask(batch.ids)] - plain)[batch.cameras.sees_pixel_T]
    assert not ((added - model.ray_embedding.null).abs().amax(-1) < 1e-5).any()


def test_published_taps_are_kept_and_scaled():
    assert tap_layers(FAMILIES["qwen2_5_vl"], 36) == (4, 12, 20, 28)
    assert tap_layers(FAMILIES["qwen2_5_vl"], 28) == (3, 10, 17, 24)
    assert tap_layers(FAMILIES["internvl"], 24) == (3, 9, 15, 21)
    assert tap_layers(FAMILIES["internvl"], 28) == (3, 9, 15, 21)
    assert tap_layers(FAMILIES["llava_next_video"], 32) == (4, 11, 18, 25)
    for family in FAMILIES.values():
        for layers in range(5, 100):
            taps = tap_layers(family, layers)
            assert len(set(taps)) == 4 and taps == tuple(sorted(taps)) and taps[0] > 0 and taps[3] < layers
        with pytest.raises(ValueError, match="at least 5"):
            tap_layers(family, 4)
