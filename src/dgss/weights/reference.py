"""The names that published checkpoints give to what is ours: one table a method.

The goldens read the reference programs' weights with it and so prove our parts against theirs; no command uses it yet.
Of the parts that are ours shapes and values are the same on both sides; the towers have tables in `towers/keys.py`.
"""

from __future__ import annotations

from dgss.towers.keys import CLIP_IMAGE, CLIP_TEXT, EVA_IMAGE, KeyMap, Rules


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
