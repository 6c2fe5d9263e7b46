"""CLIP-like pairs: the image side by timm, the text side by open_clip, both described by open_clip's configurations.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021; Sun et al.,
"EVA-CLIP", arXiv 2303.15389.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dgss.errors import DataError, RecipeError, WeightsError, nearest
from dgss.interfaces import TextTower, Towers
from dgss.towers.base import Normalize
from dgss.towers.keys import CLIP_IMAGE, CLIP_TEXT, EVA_IMAGE, KeyMap
from dgss.towers.published import check_fit, find_weights, read_tensors
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
        mean, std = (normalize.mean, normalize.std) if normalize else colours(self.model)
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
            fill_pair(towers, read_tensors(path), self.positions, str(path))
        if self.frozen:
            trunk.requires_grad_(False)
        return towers


def quarters(blocks: int) -> tuple[int, int, int, int]:
    """The taps of tqdm's two towers, for any depth: 3, 5, 7, 11 of 12 blocks and 7, 11, 15, 23 of 24."""
    return blocks // 3 - 1, blocks // 2 - 1, 2 * blocks // 3 - 1, blocks - 1


def colours(model: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation of the images that a model of open_clip was trained on."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(model)
    known = open_clip.get_pretrained_cfg(model, tags[0]) if tags else {}
    return tuple(known.get("mean") or MEAN), tuple(known.get("std") or STD)


def tagged_weights(model: str, weights: str) -> Path:
    """The file of `weights`: of a tag of open_clip, fetched where needed, else as `find_weights`."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(model)
    if weights in tags:
        try:
            return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(model, weights)))
        except Exception as error:  # whatever stands between us and the hub
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(
                f"the weights {weights!r} of {model} cannot be fetched ({reason}); "
                f"download them yourself and give the file as tower.weights"
            ) from error
    if weights.startswith("hf:") or Path(weights).expanduser().is_file() or "." in Path(weights).name:
        return find_weights(weights)
    raise RecipeError(f"tower.weights = {weights!r}: no file, and no tag of {model}; {nearest(weights, tags, 'tags')}")


def fill_pair(towers: Towers, published: Mapping[str, Tensor], positions: Resize, source: str) -> None:
    """Fills both towers from a published file, whose position tables may be of other sizes; the pyramid stays random.

    Raises `WeightsError` that names what is missing, too many or of another shape.
    """
    image, text = towers.image, towers.text
    assert isinstance(image, PlainViT) and isinstance(text, ClipText)
    try:
        state = {name: value.float() for name, value in PAIR.translate(published).items()}
    except WeightsError as error:
        raise WeightsError(f"{source} is no file of a CLIP-like pair: {error}") from error
    table = state.get("image.trunk.pos_embed")
    if table is not None and table.ndim == 3:
        old = int((table.shape[1] - image.prefix) ** 0.5)
        if old * old == table.shape[1] - image.prefix:
            state["image.trunk.pos_embed"] = resize_positions(table, (old, old), image.grid, positions)
    if "text.model.positional_embedding" in state:
        state["text.model.positional_embedding"] = state["text.model.positional_embedding"][: text.context_length]
    pair = nn.ModuleDict({"image": image, "text": text})
    wanted = {name: value for name, value in pair.state_dict().items() if not name.startswith("image.pyramid.")}
    check_fit(wanted, state, f"{source} does not fit the towers of the recipe")
    pair.load_state_dict(state, strict=False)  # all but the pyramid, as was checked


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

    vision, width = CLIPVisionCfg(**config["vision_cfg"]), config["embed_dim"]
    common = {"img_size": size, "drop_path_rate": drop_path, "dynamic_img_size": True, **changes}
    if vision.timm_model_name:
        if vision.timm_proj not in (None, "", "none"):
            raise RecipeError(f"the image side {vision.timm_model_name} is no plain ViT with a head of its own")
        classes = 0 if vision.timm_proj == "none" else width
        return timm.create_model(vision.timm_model_name, num_classes=classes, global_pool=vision.timm_pool, **common)
    if not isinstance(vision.layers, int):
        raise RecipeError("the image side is a ResNet, no plain ViT")
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


def text_transformer(config: Mapping[str, Any]) -> Any:
    """open_clip's text tower of a configuration, with random weights. Raises `RecipeError` for another library's."""
    from open_clip import CLIPTextCfg
    from open_clip.transformer import LayerNorm, QuickGELU, TextTransformer

    settings = CLIPTextCfg(**config["text_cfg"])
    if settings.hf_model_name:
        raise RecipeError(f"its text side is {settings.hf_model_name} of transformers, which is not supported")
    known = inspect.signature(TextTransformer).parameters.keys() & vars(settings).keys()
    return TextTransformer(
        **{name: getattr(settings, name) for name in known},
        output_dim=config["embed_dim"],
        act_layer=partial(QuickGELU if config.get("quick_gelu") else nn.GELU, **(settings.act_kwargs or {})),
        norm_layer=partial(LayerNorm, **(settings.norm_kwargs or {})),
    )


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer as a text tower needs it.

    encode: a text to its ids, start and end included. start: how many stand before the words. pad: what fills a row.
    """

    encode: Callable[[str], list[int]]
    start: int = 1
    pad: int = 0


def tokenizer(model: str = "", config: Mapping[str, Any] | None = None) -> Tokenizer:
    """CLIP's byte pairs, whose vocabulary lies in open_clip's package, or what a model's configuration names instead.

    Raises `WeightsError` where that has to be fetched and cannot be.
    """
    import open_clip

    if config is None or not config["text_cfg"].get("hf_tokenizer_name"):
        pairs = open_clip.SimpleTokenizer()
        return Tokenizer(lambda text: [pairs.sot_token_id, *pairs.encode(text), pairs.eot_token_id])
    try:
        other: Any = open_clip.get_tokenizer(model)
    except Exception as error:  # whatever stands between us and the hub
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"the tokenizer of {model} cannot be fetched ({reason}); fetch it once with a network"
        ) from error
    pad = int(other.tokenizer.pad_token_id or 0)

    def encode(text: str) -> list[int]:
        ids: list[int] = other(text)[0].tolist()
        while ids and ids[-1] == pad:
            ids.pop()
        return ids

    return Tokenizer(encode, int(encode("road")[0] == encode("sky")[0]), pad)


class ClipText(TextTower):
    """open_clip's text tower, frozen, which also takes embeddings: learned contexts stand before the words.

    length: places of the position table that are kept, None = all.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, length: int | None = None) -> None:
        super().__init__()
        if model.pool_type not in ("argmax", "last") or model.cls_emb is not None:
            raise RecipeError(f"text towers that pool by {model.pool_type!r} or append a class token are not supported")
        self.model, self.tokenizer, self.start = model, tokenizer, tokenizer.start
        if length is not None:
            model.positional_embedding = nn.Parameter(model.positional_embedding.detach()[:length].clone())
        self.context_length: int = len(model.positional_embedding)
        self.token_width: int = model.width
        self.width: int = model.output_dim
        self.requires_grad_(False)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Start, words, end, padding up to the longest text: (K, T). Raises `DataError` where a text is too long."""
        ids = [self.tokenizer.encode(text) for text in texts]
        for text, each in zip(texts, ids, strict=True):
            if len(each) > self.context_length:
                raise DataError(
                    f"the text {text!r} has {len(each)} tokens with start and end, but the text tower reads "
                    f"{self.context_length}; shorten it"
                )
        longest, device = max(map(len, ids), default=0), self.model.positional_embedding.device
        return torch.tensor([each + [self.tokenizer.pad] * (longest - len(each)) for each in ids], device=device)

    def embed(self, ids: Tensor) -> Tensor:
        """Ids (K, T) to token embeddings (K, T, D_t), before positions are added."""
        embedded: Tensor = self.model.token_embedding(ids)
        return embedded

    def encode(self, embedded: Tensor, ids: Tensor) -> Tensor:
        """Token embeddings (K, n + T, D_t) to text embeddings (K, E), not normalised."""
        model, more = self.model, embedded.shape[1] - ids.shape[1]
        if model.pool_type == "last":  # reads all places: the padding counts (SigLIP)
            rest = ids.new_full((len(ids), self.context_length - embedded.shape[1]), self.tokenizer.pad)
            embedded, ends = torch.cat([embedded, self.embed(rest)], 1), torch.full_like(ids[:, 0], -1)
        else:  # causal, so nothing behind the end token counts; it has the largest id (CLIP)
            ends = ids.argmax(1) + more
        places = embedded.shape[1]
        mask = None if model.attn_mask is None else model.attn_mask[:places, :places]
        x = model.ln_final(model.transformer(embedded + model.positional_embedding[:places], attn_mask=mask))
        pooled: Tensor = x[torch.arange(len(x), device=x.device), ends]
        projection = model.text_projection
        if projection is None:
            return pooled
        projected: Tensor = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
        return projected
