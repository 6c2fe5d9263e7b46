from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from dgss.errors import RecipeError
from dgss.levels import whole
from dgss.towers.pyramid import Pyramid
from dgss.towers.text import ContextDecoder, ContextDecoderSettings, FixedPrompts, LearnedPrompts, in_template
from tests.parts.tiny import TinyTextTower, tiny_towers

NAMES = ("road", "traffic light", "car")


def tower() -> TinyTextTower:
    text = tiny_towers().text
    assert isinstance(text, TinyTextTower)
    return text


def test_contexts_stand_right_after_the_start_token() -> None:
    """Broken by putting them first or last."""
    text = tower()
    prompts = LearnedPrompts(text, NAMES, 4)
    seen: list[Tensor] = []
    text.encode = lambda embedded, ids: seen.append(embedded) or torch.zeros(3, 12)  # type: ignore[assignment,func-returns-value]
    prompts()
    words = text.embed(text.tokens(NAMES))
    assert torch.equal(seen[0][:, 0], words[:, 0])
    assert torch.equal(seen[0][:, 1:5], prompts.contexts.expand(3, -1, -1))
    assert torch.equal(seen[0][:, 5:], words[:, 1:])


def test_contexts_train_and_the_tower_does_not() -> None:
    text = tower()
    prompts = LearnedPrompts(text, NAMES, 4)
    prompts().square().sum().backward()
    assert prompts.contexts.grad is not None and prompts.contexts.grad.abs().sum() > 0
    assert all(p.grad is None for p in text.parameters())
    assert [name for name, _ in prompts.named_parameters()] == ["contexts"]
    assert set(prompts.state_dict()) == {"contexts"}


def test_contexts_are_drawn_wide_or_copied_from_a_phrase() -> None:
    text = tower()
    drawn = LearnedPrompts(text, NAMES, 20).contexts.detach()
    assert 0.7 < float(drawn.std()) < 1.0 and float(drawn.abs().max()) <= 2.0
    copied = LearnedPrompts(text, NAMES, 3, "a photo of").contexts
    assert torch.equal(copied[0], text.embed(text.tokens(["a photo of"]))[0, 1:4])
    with pytest.raises(RecipeError, match="has 3 tokens, but 5 contexts"):
        LearnedPrompts(text, NAMES, 5, "a photo of")


def test_prompts_that_do_not_fit_are_refused_with_the_number_that_does() -> None:
    with pytest.raises(RecipeError, match="set contexts to 20 or less"):
        LearnedPrompts(tower(), NAMES, 21)
    assert LearnedPrompts(tower(), NAMES, 20)().shape == (3, 12)


def test_fixed_prompts_are_unit_vectors_encoded_once() -> None:
    """Law 22. Broken by encoding in every call."""
    text = tower()
    prompts = FixedPrompts(text, NAMES, "a clean origami of a {}")
    assert text.calls == 0
    first, second = prompts(), prompts()
    assert text.calls == 1 and torch.equal(first, second) and not first.requires_grad
    torch.testing.assert_close(first.norm(dim=1), torch.ones(3))
    assert prompts.state_dict() == {}
    assert in_template(NAMES, "a {} in rain") == ["a road in rain", "a traffic light in rain", "a car in rain"]


def test_fixed_prompts_follow_weights_that_are_loaded_later() -> None:
    text = tower()
    prompts = torch.nn.ModuleDict({"text": text, "prompts": FixedPrompts(text, NAMES, "a {}")})
    before = prompts["prompts"]()
    state = {key: value * 1.5 + 0.1 for key, value in prompts.state_dict().items()}
    prompts.load_state_dict(state)
    assert not torch.allclose(prompts["prompts"](), before)


def test_fixed_prompts_first_asked_for_in_inference_can_train_later() -> None:
    prompts = FixedPrompts(tower(), NAMES, "a {}")
    with torch.inference_mode():
        prompts()
    (torch.ones(12, requires_grad=True) * prompts()).sum().backward()


def test_a_copy_of_prompts_reads_its_own_tower() -> None:
    whole = torch.nn.ModuleDict({"text": tower()})
    whole["prompts"] = LearnedPrompts(whole["text"], NAMES, 2)  # type: ignore[arg-type]
    other = copy.deepcopy(whole)
    with torch.no_grad():
        other["text"].out.weight.mul_(2)
    assert not torch.allclose(whole["prompts"](), other["prompts"]())


def settings(**changes: object) -> ContextDecoderSettings:
    return ContextDecoderSettings(width=16, heads=2, layers=2, dropout=0.0).model_copy(update=changes)


def test_context_decoder_adds_gamma_times_what_it_saw() -> None:
    decoder = ContextDecoder(12, settings(gamma=0.0))
    text, pooled, dense = torch.randn(3, 12), torch.randn(2, 12), torch.randn(2, 12, 4, 5)
    torch.testing.assert_close(decoder(text, pooled, dense), text.expand(2, -1, -1))
    with torch.no_grad():
        decoder.gamma.fill_(1.0)
    near = decoder(text, pooled, dense) - text
    with torch.no_grad():
        decoder.gamma.fill_(2.0)
    torch.testing.assert_close(decoder(text, pooled, dense) - text, 2 * near, atol=1e-5, rtol=1e-5)
    # the image is a set of patches and one embedding of the whole
    turned = decoder(text, pooled, dense.flip(3))
    torch.testing.assert_close(turned - text, 2 * near, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(decoder(text, pooled.flip(0), dense) - text, 2 * near, atol=1e-4)


def test_context_decoder_starts_as_stated() -> None:
    decoder = ContextDecoder(512, ContextDecoderSettings())
    assert torch.equal(decoder.gamma, torch.full((512,), 1e-4))
    assert decoder.layers[0].mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not decoder.layers[0].mlp[0].bias.any()
    wide = ContextDecoder(512, settings(gamma="reference")).gamma.detach()
    assert 0.8 < wide.std().item() < 0.96 and wide.abs().max().item() <= 2.0


def test_pyramid_makes_four_scales() -> None:
    maps = [torch.randn(2, 6, 3, 5) for _ in range(4)]
    sizes = [(12, 20), (6, 10), (3, 5), (1, 2)]
    assert [whole(level).shape for level in Pyramid(6)(maps)] == [(2, 6, *size) for size in sizes]


def test_a_context_decoder_whose_heads_do_not_divide_its_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"width = 16: is no multiple of 5"):
        ContextDecoderSettings(width=16, heads=5)


def test_fixed_prompts_first_asked_for_in_half_precision_are_kept_in_full() -> None:
    expected = FixedPrompts(tower(), NAMES, "a {}")()
    prompts = FixedPrompts(tower(), NAMES, "a {}")
    with torch.autocast("cpu", torch.bfloat16):
        prompts()
    assert prompts().dtype == torch.float32 and torch.equal(prompts(), expected)
