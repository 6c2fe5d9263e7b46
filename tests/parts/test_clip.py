"""Pairs of open_clip against open_clip itself, at tiny size."""

from __future__ import annotations

import warnings
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dgss.api.datasets import Data
from dgss.api.train import Plan, _build
from dgss.errors import DataError, RecipeError, WeightsError
from dgss.files import RunFolder
from dgss.interfaces import Towers
from dgss.levels import whole
from dgss.recipes.schema import Recipe
from dgss.towers import clip
from dgss.towers.clip import OpenClipSettings, fill_pair, image_trunk, quarters
from dgss.towers.clip_text import ClipText, Tokenizer, text_transformer, tokenizer
from dgss.towers.published import read_tensors
from dgss.towers.text import LearnedPrompts
from dgss.towers.vision import PlainViT, resize_positions
from dgss.training.progress import Progress

TEXT = {"context_length": 20, "width": 32, "heads": 2, "layers": 2}
CLIP = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 4, "width": 64, "head_width": 16, "patch_size": 16},
    "text_cfg": TEXT,
}
EVA = {
    "embed_dim": 16,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 224,
        "timm_model_name": "eva02_tiny_patch14_224",
        "timm_pool": "token",
        "timm_proj": None,
    },
    "text_cfg": TEXT,
}
# SigLIP2's kind: an attention pool over the patches, text without a causal mask, read at its last place
SIGLIP = {
    "embed_dim": 96,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 160,
        "timm_model_name": "test_vit3",
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        **TEXT,
        "vocab_size": 100,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
        "act_kwargs": {"approximate": "tanh"},
    },
}
# an attention pool with rotated queries and a class token, text as CLIP's
PE = {
    "embed_dim": 24,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 384,
        "timm_model_name": "vit_pe_core_tiny_patch16_384",
        "timm_pool": "map",
        "timm_proj": None,
    },
    "text_cfg": TEXT,
}
# MobileCLIP2's kind of text: read at the end token, but without a causal mask
OPEN = {**CLIP, "custom_text": True, "quick_gelu": False, "text_cfg": {**TEXT, "no_causal_mask": True}}
KINDS = {"clip": CLIP, "eva": EVA, "siglip": SIGLIP, "pe": PE, "open": OPEN}
IDS = {"road": [7, 1], "traffic light": [8, 9, 1], "sky": [5, 1]}


def peer(config: dict[str, Any]) -> Any:
    """open_clip's own model of a configuration, all weights random."""
    import open_clip

    torch.manual_seed(0)
    kind = open_clip.CustomTextCLIP if "custom_text" in config else open_clip.CLIP
    model = kind(**{key: value for key, value in config.items() if key != "custom_text"}).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.02 * torch.randn_like(value))
    return model


def pair(config: dict[str, Any], size: int | None = None) -> Towers:
    trunk = image_trunk(config, size or config["vision_cfg"]["image_size"])
    taps = quarters(len(trunk.blocks))
    own = config["text_cfg"].get("pool_type") == "last"
    words = Tokenizer(lambda text: IDS[text], start=0) if own else tokenizer()
    image = PlainViT(trunk, clip.MEAN, clip.STD, taps, text_width=config["embed_dim"])
    return Towers(image.eval(), ClipText(text_transformer(config), words).eval())


@pytest.fixture(params=KINDS)
def both(request: pytest.FixtureRequest) -> tuple[Towers, Any]:
    config = KINDS[request.param]
    theirs, ours = peer(config), pair(config)
    fill_pair(ours, theirs.state_dict(), "bicubic", "theirs")
    return ours, theirs


def test_images_and_texts_have_the_embeddings_of_open_clip(both: tuple[Towers, Any]) -> None:
    ours, theirs = both
    assert isinstance(ours.image, PlainViT) and isinstance(ours.text, ClipText)
    size = ours.image.grid[0] * ours.image.patch
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    names = list(IDS)
    ids = ours.text.tokens(names)
    full = torch.full((len(names), theirs_length(theirs)), ours.text.tokenizer.pad)
    full[:, : ids.shape[1]] = ids
    with torch.no_grad():
        features = ours.image(images)
        torch.testing.assert_close(
            features.pooled, theirs.encode_image(ours.image.normalise(images)), atol=2e-5, rtol=2e-5
        )
        torch.testing.assert_close(
            ours.text.encode(ours.text.embed(ids), ids), theirs.encode_text(full), atol=2e-5, rtol=2e-5
        )
    assert features.dense is not None and features.dense.shape[:2] == (2, ours.image.text_width)


def theirs_length(theirs: Any) -> int:
    return int(getattr(theirs, "context_length", None) or theirs.text.context_length)


def test_contexts_stand_before_the_words_and_take_gradient(both: tuple[Towers, Any]) -> None:
    text = both[0].text
    assert isinstance(text, ClipText)
    prompts = LearnedPrompts(text, list(IDS), contexts=3)
    seen: list[Tensor] = []
    text.model.transformer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    prompts().square().sum().backward()
    assert prompts.contexts.grad is not None and prompts.contexts.grad.abs().sum() > 0
    positions = text.model.positional_embedding
    start = text.start
    torch.testing.assert_close(seen[0][1, start : start + 3], prompts.contexts[0] + positions[start : start + 3])
    if text.model.attn_mask is None:
        assert seen[0].shape[1] == text.context_length


def test_a_patch_is_embedded_as_if_it_were_alone(both: tuple[Towers, Any]) -> None:
    """Mutation: the class token's or another patch's answer in its place."""
    tower = both[0].image
    assert isinstance(tower, PlainViT)
    normed = torch.randn(1, 5, tower.channels[0], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = tower._alone(normed)
        for number in range(5):
            one = normed[:, number : number + 1]
            trunk = tower.trunk
            pooled = one[:, 0] if trunk.attn_pool is None else trunk.attn_pool(one)
            torch.testing.assert_close(together[:, number], trunk.head(trunk.fc_norm(pooled)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (71, 95), (32, 49)])
def test_any_size_gives_four_levels_of_the_patches_that_fit(size: tuple[int, int]) -> None:
    tower = pair(CLIP).image
    with torch.no_grad():
        features = tower(torch.rand(1, 3, *size))
    h, w = size[0] // 16, size[1] // 16
    assert [whole(level).shape[2:] for level in features.levels] == [
        (4 * h, 4 * w),
        (2 * h, 2 * w),
        (h, w),
        (h // 2, w // 2),
    ]
    assert features.dense is not None and features.dense.shape == (1, 16, h, w)


def test_the_remainder_of_a_size_is_never_read() -> None:
    tower, images = pair(CLIP).image, torch.rand(1, 3, 71, 95)
    with torch.no_grad():
        torch.testing.assert_close(tower(images).pooled, tower(images[..., :64, :80]).pooled)


def test_an_image_of_less_than_two_patches_is_refused() -> None:
    with pytest.raises(DataError, match="an image of 64x31 pixels has fewer than two patches of the tower, 16x16"):
        pair(CLIP).image(torch.rand(1, 3, 64, 31))


def test_a_text_too_long_is_refused() -> None:
    text = pair(CLIP).text
    assert text is not None
    with pytest.raises(DataError, match="has 22 tokens with start and end, but the text tower reads 20"):
        text.tokens(["road " * 20])


def test_positions_of_another_size_are_resized_when_loaded() -> None:
    theirs, ours = peer(CLIP), pair(CLIP, size=96)
    fill_pair(ours, theirs.state_dict(), "bilinear", "theirs")
    assert isinstance(ours.image, PlainViT) and ours.image.trunk.pos_embed.shape == (1, 37, 64)
    table = theirs.visual.positional_embedding[None].detach()
    both = [resize_positions(table, (4, 4), (6, 6), how) for how in ("bilinear", "bicubic")]
    torch.testing.assert_close(ours.image.trunk.pos_embed.detach(), both[0])
    assert not torch.allclose(*both, atol=1e-3)


def test_the_class_embedding_twice_is_a_choice() -> None:
    once = pair(CLIP).image
    assert isinstance(once, PlainViT)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        once.trunk.cls_token.normal_()  # timm starts it from next to nothing
        before = once(images).pooled
        once.trunk.pos_embed[:, :1] += once.trunk.cls_token
        changed = once(images).pooled
        once.trunk.pos_embed[:, :1] -= once.trunk.cls_token
        once.double_class = True
        torch.testing.assert_close(once(images).pooled, changed)
    assert not torch.allclose(before, changed, atol=1e-3)


def test_what_does_not_fit_a_pair_is_named() -> None:
    state = peer(CLIP).state_dict()
    lacking = {key: value for key, value in state.items() if key != "visual.ln_pre.weight"}
    with pytest.raises(WeightsError, match=r"1 missing \(visual\.ln_pre\.weight -> image\.trunk\.norm_pre\.weight\)"):
        fill_pair(pair(CLIP), lacking, "bicubic", "a file")
    with pytest.raises(WeightsError, match=r"a file does not fit .*: 1 unexpected \(decode_head.x\)"):
        fill_pair(pair(CLIP), {**state, "decode_head.x": torch.zeros(1)}, "bicubic", "a file")
    with pytest.raises(WeightsError, match=r"visual\.proj -> image\.trunk\.head\.weight is \(3, 64\), not \(16, 64\)"):
        fill_pair(pair(CLIP), {**state, "visual.proj": torch.zeros(64, 3)}, "bicubic", "a file")


def test_a_training_says_what_was_made_of_the_file_its_towers_begin_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(clip, "pair_config", lambda name: CLIP)
    file, stream = tmp_path / "pair.pt", StringIO()
    state = peer(CLIP).state_dict()
    torch.save(state, file)
    tower = {"weights": str(file), "size": 96, "text_length": 12, "taps": [0, 1, 2, 3]}
    recipe = Recipe.load("tqdm-clip-b-gta5").change(tower=tower, method={"name": "linear"})
    sets = Data({}, 64, Progress(stream))
    plan = Plan(recipe, RunFolder(tmp_path / "run"), torch.device("cpu"), sets, [], finished=False)
    _build(plan, Progress(stream))
    wanted = f"tower.weights {file}: {len(state) - 1} tensors used, position table 4x4 to 6x6, text places 20 to 12, "
    assert stream.getvalue().replace("\n", "") == f"{wanted}1 left out (logit_scale)"


def test_settings_build_what_they_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(clip, "pair_config", lambda name: CLIP)
    theirs = peer(CLIP)
    file = tmp_path / "pair.pt"
    torch.save(theirs.state_dict(), file)
    settings = OpenClipSettings(
        weights=str(file), size=96, taps=(0, 1, 2, 3), drop_path=0.2, text_length=12, frozen=True
    )
    towers = settings.build(seed=3)
    image, text = towers.image, towers.text
    assert isinstance(image, PlainViT) and isinstance(text, ClipText)
    assert (image.grid, image.taps, text.context_length) == ((6, 6), (0, 1, 2, 3), 12)
    assert not any(p.requires_grad for p in image.trunk.parameters())
    assert all(p.requires_grad for p in image.pyramid.parameters())
    torch.testing.assert_close(image.trunk.cls_token[0, 0], theirs.visual.class_embedding)
    assert type(image.blocks[3].drop_path1).__name__ == "DropPath"
    again = settings.build(seed=3).image
    assert all(torch.equal(a, b) for a, b in zip(image.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.parametrize("taps", [(0, 1, 2, 4), (3, 2, 1, 0)])
def test_taps_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch, taps: tuple[int, int, int, int]) -> None:
    monkeypatch.setattr(clip, "pair_config", lambda name: CLIP)
    with pytest.raises(RecipeError, match="four numbers, none falling, below 4"):
        OpenClipSettings(weights="none", taps=taps).build()


def test_unknown_models_and_weights_are_refused_in_one_line() -> None:
    with pytest.raises(RecipeError, match="no model 'ViT-B-17': did you mean"):
        OpenClipSettings(model="ViT-B-17").build()
    with pytest.raises(RecipeError, match=r"tower.weights = 'opnai': no file, and no tag of ViT-B-32"):
        clip.tagged_weights("ViT-B-32", "opnai")
    with pytest.raises(WeightsError, match=r"no file absent.pt"):
        clip.tagged_weights("ViT-B-32", "absent.pt")


def test_a_model_whose_image_side_is_no_plain_vit_is_refused() -> None:
    for name in ("RN50", "convnext_base_w", "MobileCLIP-S1", "MobileCLIP-B", "ViT-L-14-CLIPA", "coca_ViT-B-32"):
        with pytest.raises(RecipeError, match="no plain ViT"), torch.device("meta"):
            image_trunk(clip.pair_config(name), 224)


def test_a_frozen_copy_embeds_as_its_tower_and_makes_no_levels() -> None:
    tower, images = pair(CLIP).image, torch.rand(2, 3, 64, 64)
    copy = tower.frozen_copy()
    with torch.no_grad():
        wanted, found = tower(images), copy(images)
    assert len(wanted.levels) == 4 and found.levels == ()
    assert torch.equal(found.pooled, wanted.pooled) and torch.equal(found.dense, wanted.dense)
    assert not list(copy.parameters()) and not copy.state_dict()


@pytest.mark.parametrize("draws", [False, True])
def test_drop_path_of_a_frozen_copy_draws_only_where_asked(draws: bool) -> None:
    trunk = image_trunk(CLIP, 64, drop_path=0.9)
    copy = PlainViT(trunk, clip.MEAN, clip.STD, quarters(4), text_width=16).frozen_copy(train=draws).train()
    images = torch.rand(1, 3, 64, 64)
    answers = [copy(images).pooled for _ in range(6)]
    assert all(torch.equal(answers[0], answer) for answer in answers) is not draws


def test_a_tower_without_a_partner_says_nothing_in_text_space() -> None:
    tower = PlainViT(image_trunk(CLIP, 64), clip.MEAN, clip.STD, quarters(4))
    features = tower(torch.rand(1, 3, 64, 64))
    assert features.pooled is None and features.dense is None and len(features.levels) == 4


def test_openais_archive_fills_a_pair(tmp_path: Path) -> None:
    """Half precision, TorchScript, numbers beside the weights."""
    theirs, ours = peer(CLIP), pair(CLIP)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.input_resolution = nn.Buffer(torch.tensor(64))
        inputs = {"encode_image": torch.rand(1, 3, 64, 64)}
        traced = torch.jit.trace_module(theirs, inputs, check_trace=False).half()
        torch.jit.save(traced, tmp_path / "ViT.pt")
    fill_pair(ours, read_tensors(tmp_path / "ViT.pt"), "bicubic", "a file")
    images = torch.rand(1, 3, 64, 64)
    assert isinstance(ours.image, PlainViT)
    with torch.no_grad():
        wanted = theirs.float().encode_image(ours.image.normalise(images))
        torch.testing.assert_close(ours.image(images).pooled, wanted, atol=2e-2, rtol=2e-2)
    assert ours.image.trunk.cls_token.dtype == torch.float32


def test_evas_own_names_fill_a_pair() -> None:
    config = {
        **EVA,
        "vision_cfg": {"timm_model_name": "eva02_large_patch14_clip_336", "timm_pool": "token", "timm_proj": None},
    }

    def made(seed: int) -> Towers:
        torch.manual_seed(seed)
        trunk = image_trunk(config, 56, embed_dim=32, depth=4, num_heads=4)
        image = PlainViT(trunk, clip.MEAN, clip.STD, quarters(4), text_width=16)
        return Towers(image, ClipText(text_transformer(config), tokenizer()))

    theirs, ours = made(0), made(1)
    assert isinstance(theirs.image, PlainViT) and isinstance(ours.image, PlainViT) and theirs.text is not None
    changes = {".q_proj.bias": ".q_bias", ".v_proj.bias": ".v_bias", "attn.norm.": "attn.inner_attn_ln."}
    changes |= {"fc1_g": "w1", "fc1_x": "w2", "mlp.norm.": "mlp.ffn_ln.", "fc2": "w3"}
    state = {"logit_scale": torch.zeros(()), "visual.rope.freqs_cos": torch.zeros(4, 4)}
    for key, value in theirs.image.trunk.state_dict().items():
        for new, old in changes.items():
            key = key.replace(new, old)
        state[f"visual.{key}"] = value
    state |= {key.replace("model.", "text.", 1): value for key, value in theirs.text.state_dict().items()}
    fill_pair(ours, state, "bicubic", "a file")
    wanted = theirs.image.trunk.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in ours.image.trunk.state_dict().items())


def test_weights_of_the_other_activation_are_refused() -> None:
    """GELU and QuickGELU have weights of the same names and shapes."""
    with pytest.raises(RecipeError, match=r"'openai' were trained with QuickGELU; set it to ViT-B-16-quickgelu$"):
        clip.check_activation("ViT-B-16", clip.pair_config("ViT-B-16"), "openai", {})
    clip.check_activation("ViT-B-16-quickgelu", clip.pair_config("ViT-B-16-quickgelu"), "openai", {})
    plain = clip.pair_config("ViT-B-16")
    with pytest.raises(RecipeError, match="QuickGELU"):
        clip.check_activation("ViT-B-16", plain, "a.pt", {"input_resolution": torch.tensor(224)})
    clip.check_activation("ViT-B-16", plain, "a.pt", {})
    clip.check_activation("ViT-B-16", plain, "laion400m_e31", {})


def test_colours_are_those_of_the_chosen_weights() -> None:
    assert clip.colours("ViT-L-14", "openai") == (clip.MEAN, clip.STD)
    assert clip.colours("ViT-L-14", "laion2b_s32b_b82k") == ((0.5,) * 3, (0.5,) * 3)
    assert clip.colours("ViT-L-14", "/a/file.pt") == (clip.MEAN, clip.STD)


def test_more_places_than_there_are_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"tower.text_length = 21: the text tower has 20 places"):
        ClipText(text_transformer(CLIP), tokenizer(), 21)


def test_only_the_pyramid_trains_over_a_frozen_trunk() -> None:
    tower = pair(CLIP).image
    assert tower.embedding_trains
    tower.get_submodule("trunk").requires_grad_(False)
    assert not tower.embedding_trains


def test_learned_prompts_are_encoded_once_where_nothing_trains() -> None:  # mutation: kept after the contexts changed
    text = pair(CLIP).text
    assert isinstance(text, ClipText)
    prompts, calls = LearnedPrompts(text, list(IDS), contexts=3).eval(), []
    text.model.transformer.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        first = prompts()
        assert torch.equal(prompts(), first) and len(calls) == 1
        prompts.contexts.mul_(2.0)
        changed = prompts()
        assert len(calls) == 2 and not torch.equal(changed, first)
        prompts.load_state_dict({"contexts": prompts.contexts / 2})
        torch.testing.assert_close(prompts(), first)
        prompts.contexts.grad = torch.ones_like(prompts.contexts)
        torch.optim.AdamW([prompts.contexts], lr=0.5, fused=True).step()  # raises no version count
        assert not torch.allclose(prompts(), first) and len(calls) == 4
    with torch.inference_mode():
        assert torch.equal(prompts(), prompts()) and len(calls) == 4
    prompts()  # with gradients, and in training, nothing is kept
    prompts.train()().sum().backward()
    assert len(calls) == 6 and prompts.contexts.grad is not None
