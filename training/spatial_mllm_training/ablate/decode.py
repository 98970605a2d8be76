"""Answers to many packed questions at once: images are read once, one token of each question a step.

Tokens are chosen by what chooses them in the runtime, see `spatial_mllm_core.model.choosing`; coordinates that are no
choice are spelled freely here, where the runtime admits nothing else.

What a question sees while it is answered is what it saw in training. Knows neither subtasks nor files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from spatial_mllm_core.model.choosing import chooser
from spatial_mllm_core.model.digits import Spelling
from spatial_mllm_core.tasks.text import lettered, narrowed
from spatial_mllm_training.data.packing import IGNORE, Sample
from spatial_mllm_training.training_loop.batch import collate
from spatial_mllm_training.training_loop.prompts import decoder_positions, embedded
from spatial_mllm_training.training_loop.setup import Learner

LONGEST = 40
"""Tokens of an answer; the longest published wording has about 25 of the small tokenizer."""


@torch.no_grad()
def answers(
    learner: Learner,
    samples: Sequence[Sample],
    *,
    choices: Sequence[Sequence[tuple[str, ...]]] | None = None,
    device: str = "cpu",
) -> list[list[str]]:
    """Per sample the text after each of its questions, up to the stop.

    Args:
        samples: packed with empty answers, at least one question each.
        choices: per sample and question the admissible answers, () for any; None: any everywhere.
    """
    digits = learner.form.words.number_digits
    model, stop = learner.model, learner.form.encode(learner.form.words.stop)[0]
    batch = collate(samples, learner.pad_id).to(device)
    ends = [(row != IGNORE).nonzero()[:, 0].tolist() for row in batch.labels]
    width = max(map(len, ends))
    last = torch.tensor([e + [e[-1]] * (width - len(e)) for e in ends], device=device)  # (B, Q)
    rows = torch.arange(len(samples), device=device)[:, None]
    decoder, table = model.family.decoder(model.hf), model.hf.get_input_embeddings()
    positions = decoder_positions(model, batch.positions)
    embeds, numbers = embedded(model, batch)
    out = decoder(
        inputs_embeds=embeds,
        position_ids=positions,
        attention_mask=batch.mask,
        use_cache=True,
    )
    prefix = batch.mask[rows, 0, last]  # (B, Q, S): what the question's last token sees
    own = torch.eye(width, dtype=torch.bool, device=device).expand(len(samples), -1, -1)
    at = positions[..., rows, last]
    hidden = out.last_hidden_state[rows, last]
    texts: list[list[int]] = [[] for _ in range(last.numel())]
    going = torch.ones(last.numel(), dtype=torch.bool)
    seen = prefix
    admissible = [()] * len(texts) if choices is None else _padded(choices, width)
    told = [lettered(few) for few in admissible] if learner.form.words.named_letters else admissible
    choosers = [
        chooser(
            few,
            digits=digits,
            encode=learner.form.encode,
            id_of=learner.tokenizer.token_to_id,
            stop_id=stop,
        )
        for few in told
    ]
    spellings = [
        Spelling(of_question, learner.form.digit_ids, embeds.shape[-1], copies=model.copy_gate is not None)
        for of_question in numbers[rows, last].flatten(0, 1).tolist()
    ]
    for turn in range(LONGEST):
        scores = model.scores(hidden.flatten(0, 1)).float().cpu().numpy()
        each = zip(choosers, spellings, scores, going.tolist(), strict=True)
        chosen = [choose(spelling.logits(row)) if goes else stop for choose, spelling, row, goes in each]
        tokens = torch.tensor(chosen, device=device).view(last.shape)
        for i, token in enumerate(chosen):
            spellings[i].follow(token)
            if going[i] and token != stop:
                texts[i].append(token)
            going[i] &= token != stop
        if not going.any() or turn == LONGEST - 1:
            break
        codes = torch.from_numpy(np.stack([spelling.code for spelling in spellings]))
        seen = torch.cat([seen, own], dim=2)
        out = decoder(
            inputs_embeds=table(tokens) + codes.view(*tokens.shape, -1).to(embeds),
            position_ids=at + turn + 1,
            attention_mask=seen[:, None],
            past_key_values=out.past_key_values,
            use_cache=True,
        )
        hidden = out.last_hidden_state
    said = [learner.tokenizer.decode(text) for text in texts]
    if digits:
        said = [narrowed(text) for text in said]
    named = (dict(zip(few, whole, strict=True)) for few, whole in zip(told, admissible, strict=True))
    said = [of_choice.get(text, text) for of_choice, text in zip(named, said, strict=True)]
    return [said[b * width : b * width + len(e)] for b, e in enumerate(ends)]


def _padded(choices: Sequence[Sequence[tuple[str, ...]]], width: int) -> list[tuple[str, ...]]:
    """In one row, the last question of a sample once more where others have more questions."""
    return [few for of_sample in choices for few in (*of_sample, *[of_sample[-1]] * (width - len(of_sample)))]
