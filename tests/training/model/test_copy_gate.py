"""The gate of the pointer-generator against what the runtime adds up, and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spatial_mllm_core.model.digits import COUNT, DIGITS, digits_at, with_copies
from spatial_mllm_training.model.copy_gate import CopyGate

HIDDEN, WORDS = 16, 40
DIGIT_IDS = list(range(20, 30))


@pytest.fixture
def gate():
    torch.manual_seed(0)
    return CopyGate(HIDDEN, DIGIT_IDS)


def said(seed=0, count=12):
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 100_000, (count, COUNT)).astype(float)
    numbers[rng.random(numbers.shape) < 0.3] = np.nan
    places = rng.integers(-1, DIGITS, count)
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(count, WORDS, generator=generator),
        torch.randn(count, HIDDEN, generator=generator),
        torch.from_numpy(numbers),
        torch.from_numpy(places),
    )


def test_chances_of_words_and_copies_are_one_and_at_first_even(gate):
    words, hidden, *_ = said()
    chances = gate(words, hidden).exp()
    assert chances.shape == (12, WORDS + COUNT)
    torch.testing.assert_close(chances.sum(1), torch.ones(12))
    torch.testing.assert_close(chances[:, WORDS:].sum(1), torch.full((12,), 0.5), atol=0.1, rtol=0)
    torch.testing.assert_close(chances[:, :WORDS] / chances[:, :WORDS].sum(1, keepdim=True), words.softmax(1))


def test_words_of_a_batch_are_those_of_the_runtime(gate):
    words, hidden, numbers, places = said(1)
    scores = gate(words, hidden).detach()
    found = gate.words(scores, numbers, places).numpy()
    for n, place in enumerate(places.tolist()):
        if place < 0:
            np.testing.assert_allclose(found[n], scores[n, :WORDS], atol=1e-6)
            continue
        (digits,) = digits_at(numbers[[n]].numpy(), np.array([place]))
        expected = with_copies(scores[n].numpy(), digits, DIGIT_IDS)
        np.testing.assert_allclose(found[n], expected, atol=1e-5)


def test_gradients_are_those_of_differences(gate):
    words, hidden, numbers, places = said(2, 4)
    gate.double()

    def loss(words, hidden):
        logits = gate.words(_double(gate, words, hidden), numbers, places)
        return torch.nn.functional.cross_entropy(logits, torch.tensor([20, 3, 25, 29]))

    inputs = (words.double().requires_grad_(), hidden.double().requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs, atol=1e-6)


def _double(gate, words, hidden):
    """`CopyGate.forward` without its casts to float32, which are too coarse for differences."""
    shares = gate.gate(hidden).log_softmax(-1)
    return torch.cat([words.log_softmax(-1) + shares[:, :1], shares[:, 1:]], -1)


def test_it_learns_which_number_is_meant(gate):
    """Two kinds of question, each about a number of its own, whose digits change with every step."""
    optimizer = torch.optim.AdamW(gate.parameters(), lr=0.05)
    hidden = torch.eye(2, HIDDEN).repeat(16, 1) * 4
    which = torch.tensor([2, 6]).repeat(16)
    for step in range(120):
        _, _, numbers, _ = said(step, 32)
        numbers = torch.nan_to_num(numbers, 7.0)
        places = torch.arange(32) % DIGITS
        digits = digits_at(numbers.numpy(), places.numpy())[np.arange(32), which.numpy()]
        logits = gate.words(gate(torch.zeros(32, WORDS), hidden), numbers, places)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(digits + DIGIT_IDS[0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    shares = gate(torch.zeros(2, WORDS), hidden[:2]).exp()[:, WORDS:]
    assert shares.argmax(1).tolist() == [2, 6] and shares.max(1).values.min() > 0.8
