"""CLIP-like pairs: the image side by timm, the text side by open_clip, both described by open_clip's configurations.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021; Sun et al.,
"EVA-CLIP", arXiv 2303.15389.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dgss.errors import RecipeError, nearest
from dgss.interfaces import Towers
from dgss.towers.base import Normalize, Triple
from dgss.towers.clip_text import ClipText, text_transformer, tokenizer
from dgss.towers.keys import CLIP_IMAGE, CLIP_TEXT, EVA_IMAGE, KeyMap
from dgss.towers.published import check_fit, fetching, few, find_weights, named_as_in, read_tensors
from dgss.towers.text import TowerOutline
from dgss.towers.vision import PlainViT, Resize, resize_positions

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the colours of OpenAI's training images, in [0, 1]; the EVA and open_clip models took them over."""

PAIR = KeyMap(
    (
        (r"visual\.(trunk\..+)", r"image.\1"),
        *CLIP_IMAGE.within("visual.", "image.").rules,
        *EVA_IMAGE.within("visual.", "image.").rules,
        *CLIP_TEXT.within("text.", "text.").rules,
        *CLIP_TEXT.within("", "text.").rules,
    ),
    {
        r"logit_(scale|bias)": "the temperature between the two sides",
        r"input_resolution|context_length|vocab_size": "numbers of OpenAI's files",
        r"(text\.)?attn_mask": "the causal mask, which follows from the length",
        **EVA_IMAGE.within("visual.", "").left_out,
    },
)
"""The files of CLIP's, EVA-CLIP's and open_clip's authors, to `image.` and `text.`."""

Block = Annotated[int, Field(ge=0)]


class OpenClipSettings(BaseModel):
    """A pair of open_clip whose image side is a plain ViT.

    model: open_clip's name. weights: what both start from; a tag of open_clip, a file, `hf:owner/repo/file`, or `none`:
    random numbers. size: side in pixels of the square that the position table is made for. taps: after which blocks
    the four levels are taken, null: at a third, half, two thirds and the end. positions: how the table is resized,
    when it is loaded and for images of another size. double_class: the class embedding is added once more, as the
    programs of DenseCLIP and tqdm do. text_length: places of the text tower that are kept, null: all. drop_path: of the
    last block, falling to 0 at the first. frozen: the image side does not train, its pyramid does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["open_clip"] = "open_clip"
    model: str = Field(default="ViT-B-16-quickgelu", pattern=r"\S", description="a model of open_clip")
    weights: str = Field(default="openai", pattern=r"\S", description="a tag of open_clip, a file, hf:... or none")
    size: int = Field(default=512, ge=32, le=8192)
    taps: tuple[Block, Block, Block, Block] | None = None
    positions: Resize = "bicubic"
    double_class: bool = False
    text_length: int | None = Field(default=None, ge=3)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    frozen: bool = False

    @property
    def outline(self) -> TowerOutline:
        """What is known before the towers are built: of the text side nothing yet, without open_clip."""
        return TowerOutline("unknown", temperature=False, drop_path=self.drop_path > 0)

    def build(self, normalize: Normalize | None = None, weights: bool = True, seed: int = 0) -> Towers:
        """The towers; `weights=False` leaves random numbers, for a checkpoint to be loaded.

        normalize: None = what the model was trained with. seed: of the parts that start from random numbers.
        Raises `RecipeError`, `WeightsError`.
        """
        config = pair_config(self.model)
        mean, std = (normalize.mean, normalize.std) if normalize else colours(self.model, self.weights)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            trunk = image_trunk(config, self.size, self.drop_path)
            taps = self.taps or quarters(len(trunk.blocks))
            if max(taps) >= len(trunk.blocks) or list(taps) != sorted(taps):
                raise RecipeError(
                    f"tower.taps = {list(taps)}: should be four numbers, none falling, below {len(trunk.blocks)}, "
                    f"the blocks of {self.model}"
                )
            image = PlainViT(trunk, mean, std, taps, self.positions, self.double_class, config["embed_dim"])
            text = ClipText(text_transformer(config), tokenizer(self.model, config), self.text_length)
        towers = Towers(image, text)
        if weights and self.weights != "none":
            path = tagged_weights(self.model, self.weights)
            published = read_tensors(path)
            check_activation(self.model, config, self.weights, published)
            image.origin = f"tower.weights {path}: {fill_pair(towers, published, self.positions, str(path))}"
        if self.frozen:
            trunk.requires_grad_(False)
        return towers


def quarters(blocks: int) -> tuple[int, int, int, int]:
    """The taps of tqdm's two towers, for any depth: 3, 5, 7, 11 of 12 blocks and 7, 11, 15, 23 of 24."""
    return blocks // 3 - 1, blocks // 2 - 1, 2 * blocks // 3 - 1, blocks - 1


def colours(model: str, weights: str) -> tuple[Triple, Triple]:
    """Mean and deviation of the images that a model of open_clip was trained on: by its tag, else by its first."""
    known = _tag(model, weights)
    mean, std = known.get("mean") or MEAN, known.get("std") or STD
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _tag(model: str, weights: str) -> dict[str, Any]:
    """What open_clip says of a tag, or of the first tag of the model where `weights` is none."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(model)
    return dict(open_clip.get_pretrained_cfg(model, weights if weights in tags else tags[0])) if tags else {}


def check_activation(model: str, config: Mapping[str, Any], weights: str, published: Mapping[str, Tensor]) -> None:
    """GELU and QuickGELU have the same weights and other answers. Raises `RecipeError` where they are mixed."""
    import open_clip

    if weights in open_clip.list_pretrained_tags_by_model(model):
        quick = bool(_tag(model, weights).get("quick_gelu"))
    else:
        quick = "input_resolution" in published  # OpenAI's files alone have it
        if not quick:
            return
    if quick != bool(config.get("quick_gelu")):
        other = model.removesuffix("-quickgelu") if not quick else f"{model}-quickgelu"
        name = "QuickGELU" if quick else "GELU"
        raise RecipeError(
            f"tower.model = {model!r}: the weights {weights!r} were trained with {name}; set it to {other}"
        )


def tagged_weights(model: str, weights: str) -> Path:
    """The file of `weights`: of a tag of open_clip, fetched where needed, else as `find_weights`."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(model)
    if weights in tags:
        advice = "download them yourself and give the file as tower.weights"
        with fetching(f"the weights {weights!r} of {model}", advice):
            return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(model, weights)))
    if weights.startswith("hf:") or Path(weights).expanduser().is_file() or "." in Path(weights).name:
        return find_weights(weights)
    raise RecipeError(f"tower.weights = {weights!r}: no file, and no tag of {model}; {nearest(weights, tags, 'tags')}")


def fill_pair(towers: Towers, published: Mapping[str, Tensor], positions: Resize, source: str) -> str:
    """Fills both towers from a published file, whose position tables may be of other sizes; the pyramid stays random.

    Answers what became of the file, in a line. Raises `WeightsError` that names what is missing, too many or of another
    shape.
    """
    image, text = towers.image, towers.text
    assert isinstance(image, PlainViT) and isinstance(text, ClipText)
    unknown = PAIR.unknown(published)
    held = PAIR.names(published, skip=unknown)
    told = [f"{len(held)} tensors used"]
    state = {name: value.float() for name, value in PAIR.translate(published, skip=unknown).items()}
    table = state.get("image.trunk.pos_embed")
    if table is not None and table.ndim == 3:
        old = int((table.shape[1] - image.prefix) ** 0.5)
        if old * old == table.shape[1] - image.prefix and (old, old) != image.grid:
            told.append(f"position table {old}x{old} to {image.grid[0]}x{image.grid[1]}")
            state["image.trunk.pos_embed"] = resize_positions(table, (old, old), image.grid, positions)
    places = state.get("text.model.positional_embedding")
    if places is not None and len(places) > text.context_length:
        told.append(f"text places {len(places)} to {text.context_length}")
        state["text.model.positional_embedding"] = places[: text.context_length]
    pair = nn.ModuleDict({"image": image, "text": text})
    wanted = {name: value for name, value in pair.state_dict().items() if not name.startswith("image.pyramid.")}
    check_fit(wanted, state, f"{source} does not fit the towers of the recipe", unknown, named_as_in(held, PAIR))
    pair.load_state_dict(state, strict=False)  # all but the pyramid, as was checked
    left = [key for key in published if key not in held]
    told += [f"{len(left)} left out ({few(left, 3)})"] if left else []
    return ", ".join(told)


def pair_config(name: str) -> dict[str, Any]:
    """open_clip's description of a model by its name. Raises `RecipeError` for an unknown name."""
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        raise RecipeError(f"open_clip has no model {name!r}: {nearest(name, open_clip.list_models())}")
    return dict(config)


def image_trunk(config: Mapping[str, Any], size: int, drop_path: float = 0.0, **changes: Any) -> Any:
    """The ViT of timm that a configuration describes, with random weights, for squares of `size` pixels.

    Its head projects into text space. changes: further arguments of timm's model. Raises `RecipeError` for what is no
    plain ViT.
    """
    import timm
    from open_clip import CLIPVisionCfg

    given = config["vision_cfg"]
    vision, width = CLIPVisionCfg(**given), config["embed_dim"]
    common = {"img_size": size, "drop_path_rate": drop_path, "dynamic_img_size": True, **changes}
    if vision.timm_model_name:
        if vision.timm_proj not in (None, "", "none"):
            raise RecipeError(f"the image side {vision.timm_model_name} is no plain ViT with a head of its own")
        classes = 0 if vision.timm_proj == "none" else width
        try:
            made: Any = timm.create_model(
                vision.timm_model_name, num_classes=classes, global_pool=vision.timm_pool, **common
            )
        except TypeError:  # its class knows nothing of image sizes
            made = None
        kinds = timm.models.VisionTransformer, timm.models.Eva
        if not isinstance(made, kinds) or type(made.patch_embed) is not timm.layers.PatchEmbed:
            raise RecipeError(f"the image side {vision.timm_model_name} is no plain ViT")
        return made
    others = given.keys() - {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"}
    if others or not isinstance(vision.layers, int):
        what = f"it has {', '.join(sorted(others))}" if others else "it is a ResNet"
        raise RecipeError(f"the image side is no plain ViT as CLIP's: {what}")
    trunk: Any = timm.models.VisionTransformer(
        patch_size=vision.patch_size,
        embed_dim=vision.width,
        depth=vision.layers,
        num_heads=vision.width // vision.head_width,
        mlp_ratio=vision.mlp_ratio,
        pre_norm=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
        act_layer="quick_gelu" if config.get("quick_gelu") else "gelu",
        global_pool="token",
        num_classes=width,
        **common,
    )
    trunk.head = nn.Linear(vision.width, width, bias=False)  # CLIP's projection; timm's would have a bias
    return trunk
