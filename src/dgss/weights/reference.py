"""The names that published checkpoints give to what is ours: one table a method; and how such a file is recognised.

The goldens read the reference programs' weights with it and so prove our parts against theirs.
Of the parts that are ours shapes and values are the same on both sides; the towers have tables in `towers/keys.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from dgss.errors import WeightsError
from dgss.towers.keys import CLIP_IMAGE, CLIP_TEXT, EVA_IMAGE, KeyMap, Rules
from dgss.towers.published import check_fit, named_as_in


def _attention(theirs: str, ours: str) -> Rules:
    """One multi-head attention as `torch.nn.MultiheadAttention` stores it."""
    return (
        (rf"{theirs}\.in_proj_(weight|bias)", rf"{ours}.in_\2"),
        (rf"{theirs}\.out_proj\.(weight|bias)", rf"{ours}.out.\2"),
    )


def _deformable(theirs: str, ours: str) -> Rules:
    """One multi-scale deformable attention."""
    return (
        (rf"{theirs}\.(sampling_offsets|attention_weights)\.(.+)", rf"{ours}.\2.\3"),
        (rf"{theirs}\.value_proj\.(.+)", rf"{ours}.value.\2"),
        (rf"{theirs}\.output_proj\.(.+)", rf"{ours}.out.\2"),
    )


def _layer(theirs: str, ours: str, norms: tuple[str, ...]) -> Rules:
    """Feed-forward part (`ffn`, in mmcv's form `ffns.0`) and norms of one decoder layer; group 1 is its number."""
    ffn = (
        (rf"{theirs}\.ffns?(?:\.0)?\.layers\.0\.0\.(weight|bias)", rf"{ours}.ffn.0.\2"),
        (rf"{theirs}\.ffns?(?:\.0)?\.layers\.1\.(weight|bias)", rf"{ours}.ffn.2.\2"),
    )
    return ffn + tuple((rf"{theirs}\.norms\.{i}\.(weight|bias)", rf"{ours}.{norm}.\2") for i, norm in enumerate(norms))


_PYRAMID: Rules = (
    (r"backbone\.fpn1\.(.+)", r"tower.pyramid.up4.\1"),
    (r"backbone\.fpn2\.0\.(.+)", r"tower.pyramid.up2.\1"),
)

_CONTEXT_LAYER = (r"context_decoder\.decoder\.(\d+)\.(self|cross)_attn", r"context_decoder.layers.\1.\2_attention")
_CONTEXT_DECODER: Rules = (
    (r"gamma", r"context_decoder.gamma"),
    (r"context_decoder\.(memory|text|out)_proj\.(.+)", r"context_decoder.\1_projection.\2"),
    (r"context_decoder\.decoder\.(\d+)\.(norm\d|mlp\.\d)\.(.+)", r"context_decoder.layers.\1.\2.\3"),
    *(
        (rf"{_CONTEXT_LAYER[0]}\.{theirs}\.(weight|bias)", rf"{_CONTEXT_LAYER[1]}.{ours}.\3")
        for theirs, ours in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("proj", "out"))
    ),
)

_PIXEL = r"decode_head\.pixel_decoder"
_PIXEL_LAYER = (rf"{_PIXEL}\.encoder\.layers\.(\d+)", r"pixel_decoder.layers.\1")
_PIXEL_DECODER: Rules = (
    (rf"{_PIXEL}\.input_convs\.(\d)\.conv\.(.+)", r"pixel_decoder.input_projections.\1.0.\2"),
    (rf"{_PIXEL}\.input_convs\.(\d)\.gn\.(.+)", r"pixel_decoder.input_projections.\1.1.\2"),
    (rf"{_PIXEL}\.(lateral|output)_convs\.0\.conv\.(.+)", r"pixel_decoder.\1.0.\2"),
    (rf"{_PIXEL}\.(lateral|output)_convs\.0\.gn\.(.+)", r"pixel_decoder.\1.1.\2"),
    (rf"{_PIXEL}\.mask_feature\.(.+)", r"pixel_decoder.mask_features.\1"),
    (rf"{_PIXEL}\.level_encoding\.weight", r"pixel_decoder.level_encoding"),
)

_MASK_LAYER = (r"decode_head\.transformer_decoder\.layers\.(\d+)", r"mask_decoder.layers.\1")
_MASK_DECODER: Rules = (
    *_layer(*_MASK_LAYER, ("norm_cross", "norm_self", "norm_ffn")),
    (r"decode_head\.transformer_decoder\.post_norm\.(.+)", r"mask_decoder.post_norm.\1"),
    (r"decode_head\.level_embed\.weight", r"mask_decoder.level_embed"),
    (r"decode_head\.cls_embed\.(.+)", r"mask_decoder.class_embed.\1"),
    (r"decode_head\.mask_embed\.(.+)", r"mask_decoder.mask_embed.\1"),
    (r"decode_head\.query_embed\.weight", r"query_positions"),
)

TQDM = KeyMap(
    rules=(
        (r"contexts", r"prompts.contexts"),
        (r"decode_head\.text_proj\.(.+)", r"query_projection.\1"),
        (rf"{_PIXEL}\.text_proj\.(.+)", r"pixel_decoder.text_projection.\1"),
        (rf"{_PIXEL}\.text_pos_embed\.weight", r"pixel_decoder.text_positions"),
        (rf"{_PIXEL}\.encoder\.post_norm\.(.+)", r"pixel_decoder.post_norm.\1"),
        *_PYRAMID,
        *CLIP_IMAGE.within("backbone.", "tower.").rules,
        *EVA_IMAGE.within("backbone.", "tower.").rules,
        *CLIP_TEXT.within("text_encoder.", "text.").rules,
        *_CONTEXT_DECODER,
        *_PIXEL_DECODER,
        *_deformable(rf"{_PIXEL_LAYER[0]}\.attentions\.0", rf"{_PIXEL_LAYER[1]}.deformable"),
        *_attention(rf"{_PIXEL_LAYER[0]}\.attentions\.1\.attn", rf"{_PIXEL_LAYER[1]}.text_attention"),
        *_layer(*_PIXEL_LAYER, ("norm_deformable", "norm_text", "norm_ffn")),
        *_MASK_DECODER,
        *_attention(rf"{_MASK_LAYER[0]}\.attentions\.0\.attn", rf"{_MASK_LAYER[1]}.cross_attention"),
        *_attention(rf"{_MASK_LAYER[0]}\.attentions\.1\.attn", rf"{_MASK_LAYER[1]}.self_attention"),
    ),
    left_out={
        r"reg_E0\..+": "the frozen copy of the pretrained image tower: made anew from it",
        **EVA_IMAGE.within("backbone.", "tower.").left_out,
    },
)
"""tqdm, ByeongHyunPak/tqdm @ 75168af, on either of its pairs of towers."""

MASK2FORMER = KeyMap(
    rules=(
        (r"decode_head\.query_feat\.weight", r"query_content"),
        *_PYRAMID,
        *_PIXEL_DECODER,
        *_deformable(rf"{_PIXEL_LAYER[0]}\.self_attn", rf"{_PIXEL_LAYER[1]}.deformable"),
        *_layer(*_PIXEL_LAYER, ("norm_deformable", "norm_ffn")),
        *_MASK_DECODER,
        *_attention(rf"{_MASK_LAYER[0]}\.cross_attn\.attn", rf"{_MASK_LAYER[1]}.cross_attention"),
        *_attention(rf"{_MASK_LAYER[0]}\.self_attn\.attn", rf"{_MASK_LAYER[1]}.self_attention"),
    ),
    left_out={r"backbone\..+": "the towers have names of their own"},
)
"""Mask2Former in mmdet's form, as VLTSeg/VLTSeg @ 19cff2c stores it: everything but the tower."""


@dataclass(frozen=True)
class Published:
    """A kind of published checkpoint.

    marks: keys that it alone has. recipes: by which such files were trained. width: of the tower in them, the last
    number in the shape of the last mark.
    """

    marks: tuple[str, ...]
    keys: KeyMap
    recipes: tuple[str, ...]
    width: int

    def check_size(self, theirs: Mapping[str, Tensor], source: str) -> None:
        """Raises `WeightsError` where none of the recipes can be a file's, for its tower is of another size."""
        mark, width = self.marks[-1], theirs[self.marks[-1]].shape[-1:]
        if tuple(width) != (self.width,):
            raise WeightsError(
                f"{source} holds a tower of another size: {mark} is {tuple(theirs[mark].shape)}, of {self.recipes[0]} "
                f"it is {self.width} wide; name the recipe it was trained by: `dgss convert --recipe FILE`"
            )


_TEXT_ATTENTION = "decode_head.pixel_decoder.text_proj.weight"
PUBLISHED = (
    Published((_TEXT_ATTENTION, "backbone.class_embedding"), TQDM, ("tqdm-clip-b-gta5", "tqdm-clip-b-cityscapes"), 768),
    Published((_TEXT_ATTENTION, "backbone.cls_token"), TQDM, ("tqdm-eva02-l-gta5", "tqdm-eva02-l-cityscapes"), 1024),
)
"""What can be converted."""

_OTHERS = {
    "tower.": "weights of this package, which need no conversion: name the run's folder or its model.safetensors",
    "visual.": "a pair of towers alone: name it as tower.weights of a recipe",
    "backbone.reins.": "a checkpoint of Rein, which is not read yet",
    "reins.": "the adapter file of Rein, which is not read yet",
    "decode_head.query_feat.weight": "a Mask2Former or VLTSeg checkpoint, which is not read yet",
    "sem_seg_head.": "a checkpoint of detectron2, which is not read yet",
}
"""How a key of a file that cannot be converted begins, and what the file then is."""


def recognise(names: Iterable[str], source: str) -> Published:
    """The kind of a published checkpoint by the names in it. Raises `WeightsError` that says what the file is."""
    there = set(names)
    for kind in PUBLISHED:
        if there.issuperset(kind.marks):
            return kind
    for begin, what in _OTHERS.items():
        if any(name.startswith(begin) for name in there):
            raise WeightsError(f"{source} is {what}")
    some = ", ".join(sorted(there)[:3])
    raise WeightsError(f"{source} is no checkpoint that is known here (it holds {some} ...); those of tqdm are")


@dataclass(frozen=True)
class Filling:
    """What became of a file's tensors.

    used: theirs that were taken, and ours that each filled. reshaped: those of them that the file stores in another
    shape. ignored: theirs that were not taken, by the reason. absent: ours that were not filled and stay as they were,
    and how to tell each to the file's owner.
    """

    used: Mapping[str, str]
    reshaped: tuple[str, ...]
    ignored: Mapping[str, tuple[str, ...]]
    absent: Mapping[str, str]


def fill(module: nn.Module, theirs: Mapping[str, Tensor], keys: KeyMap, complaint: str, strict: bool = True) -> Filling:
    """Fills a model from a published checkpoint.

    strict: every tensor must fit; raises `WeightsError` that begins with `complaint` and names what does not. Else what
    fits is taken, also where it is unknown to `keys`.
    """
    wanted, unknown = module.state_dict(), keys.unknown(theirs)
    held = keys.names(theirs, skip=unknown)
    ours = keys.translate(theirs, skip=unknown)
    said = named_as_in(held, keys)
    if strict:
        check_fit(wanted, ours, complaint, unknown, said)
    fitting = {name: value for name, value in ours.items() if name in wanted and wanted[name].shape == value.shape}
    module.load_state_dict(fitting, strict=strict)
    used = {key: name for key, name in held.items() if name in fitting}
    ignored: dict[str, tuple[str, ...]] = {}
    for key in theirs:
        if key not in used:
            reason = (
                "unknown" if key in unknown else keys.reason(key) or "of another shape, or of a part not in the recipe"
            )
            ignored[reason] = (*ignored.get(reason, ()), key)
    reshaped = tuple(key for key, name in used.items() if theirs[key].shape != fitting[name].shape)
    return Filling(used, reshaped, ignored, {name: said(name) for name in wanted if name not in fitting})
