"""What the tensors of SAM 2, and of what is built on it, are called by its authors, by Hugging Face, and here."""

import re
from collections.abc import Callable

import torch
from torch import Tensor

from segwright.core.errors import FormatError

_TRUNKS = ("image_encoder.trunk.", "vision_encoder.backbone.")
_DEEPEST = 3  # the level of the pyramid that both call 0
_UNUSED = ("no_mem_pos_enc", "no_memory_positional_encoding")  # published, and read by nobody's code
_PIECES = {  # rows of one of our tensors, in order; Hugging Face has the four kinds of points in one tensor
    "prompts.kinds": (
        r"prompt_encoder\.not_a_point_embed\.weight",
        r"prompt_encoder\.point_embed\.weight",
        *(rf"prompt_encoder\.point_embeddings\.{kind}\.weight" for kind in range(4)),
    ),
    "decoder.queries": tuple(rf"mask_decoder\.{name}\.weight" for name in ("obj_score_token", "iou_token", "mask_tokens")),
}
_ROWS = {"prompts.kinds": 5, "decoder.queries": 6}
_SINGLE = {  # tensors whose leading axes of length 1 are not kept
    "prompt_encoder.no_mask_embed.weight": "prompts.no_mask",
    "no_mem_embed": "no_memory",
    "no_memory_embedding": "no_memory",
    "maskmem_tpos_enc": "memory.times",
    "memory_temporal_positional_encoding": "memory.times",
    "no_obj_ptr": "memory.no_pointer",
    "no_object_pointer": "memory.no_pointer",
    "no_obj_embed_spatial": "memory.absent",
    "occlusion_spatial_embedding_parameter": "memory.absent",
}
_DIRECTIONS = (
    "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    "prompt_encoder.shared_embedding.positional_embedding",
    "shared_image_embedding.positional_embedding",  # the same again
)
_PARTS = {  # modules: the authors, then Hugging Face
    "mask_decoder.conv_s0": "neck.finest",
    "mask_decoder.conv_s1": "neck.fine",
    "prompt_encoder.mask_downscaling.0": "prompts.shrink.0",
    "prompt_encoder.mask_downscaling.1": "prompts.shrink.1",
    "prompt_encoder.mask_downscaling.3": "prompts.shrink.3",
    "prompt_encoder.mask_downscaling.4": "prompts.shrink.4",
    "prompt_encoder.mask_downscaling.6": "prompts.shrink.6",
    "prompt_encoder.mask_embed.conv1": "prompts.shrink.0",
    "prompt_encoder.mask_embed.layer_norm1": "prompts.shrink.1",
    "prompt_encoder.mask_embed.conv2": "prompts.shrink.3",
    "prompt_encoder.mask_embed.layer_norm2": "prompts.shrink.4",
    "prompt_encoder.mask_embed.conv3": "prompts.shrink.6",
    "mask_decoder.transformer.norm_final_attn": "decoder.last_norm",
    "mask_decoder.output_upscaling.0": "decoder.enlarge",
    "mask_decoder.output_upscaling.1": "decoder.enlarge_norm",
    "mask_decoder.output_upscaling.3": "decoder.enlarge_again",
    "mask_decoder.upscale_conv1": "decoder.enlarge",
    "mask_decoder.upscale_layer_norm": "decoder.enlarge_norm",
    "mask_decoder.upscale_conv2": "decoder.enlarge_again",
    "memory_attention.norm": "memory.attention.norm",
    "memory_encoder.mask_downsampler.encoder.12": "memory.encoder.mask",
    "memory_encoder.mask_downsampler.final_conv": "memory.encoder.mask",
    "memory_encoder.pix_feat_proj": "memory.encoder.image",
    "memory_encoder.feature_projection": "memory.encoder.image",
    "memory_encoder.out_proj": "memory.encoder.output",
    "memory_encoder.projection": "memory.encoder.output",
    "mask_downsample": "memory.shrink_mask",
    "obj_ptr_tpos_proj": "memory.pointer_times",
    "temporal_positional_encoding_projection_layer": "memory.pointer_times",
}
_OWNERS = {"iou_prediction_head": "decoder.scores", "pred_obj_score_head": "memory.presence"}
_OWNERS |= {"obj_ptr_proj": "memory.pointer", "object_pointer_proj": "memory.pointer"}
_PROJECTIONS = {"q": "query", "k": "key", "v": "value", "out": "output", "o": "output"}
_DECODER_PARTS = {
    "self_attn": "attention",
    "norm1": "attention_norm",
    "cross_attn_token_to_image": "to_image",
    "norm2": "to_image_norm",
    "mlp.layers.0": "widen",
    "mlp.layers.1": "narrow",
    "mlp.proj_in": "widen",
    "mlp.proj_out": "narrow",
    "norm3": "mlp_norm",
    "cross_attn_image_to_token": "to_tokens",
    "norm4": "to_tokens_norm",
}
_MEMORY_PARTS = {
    "self_attn": "attention",
    "norm1": "attention_norm",
    "cross_attn_image": "to_memory",
    "norm2": "memory_norm",
    "linear1": "widen",
    "linear2": "narrow",
    "mlp.up_proj": "widen",  # of Hugging Face's EdgeTAM
    "mlp.down_proj": "narrow",
    "norm3": "mlp_norm",
}
_FUSER_PARTS = {
    "dwconv": "mix",
    "depthwise_conv": "mix",
    "norm": "norm",
    "pwconv1": "widen",
    "pointwise_conv1": "widen",
    "pwconv2": "narrow",
    "pointwise_conv2": "narrow",
}
_LATERAL = re.compile(r"(?:image|vision)_encoder\.neck\.convs\.([0-3])(?:\.conv)?")
_LAYER = re.compile(r"(mask_decoder\.transformer|memory_attention)\.layers\.(\d+)\.(.+?)(?:\.(q|k|v|o|out)_proj)?")
_LAST = re.compile(r"mask_decoder\.transformer\.final_attn_token_to_image\.(q|k|v|o|out)_proj")
_MLP = re.compile(
    r"(?:mask_decoder\.)?(output_hypernetworks_mlps\.[0-3]|iou_prediction_head|pred_obj_score_head|obj_ptr_proj|"
    r"object_pointer_proj)\.(layers\.[0-2]|proj_in|proj_out)"
)
_SHRINK = re.compile(r"memory_encoder\.mask_downsampler\.(?:encoder\.(\d+)|layers\.(\d)\.(conv|layer_norm))")
_FUSER = re.compile(r"memory_encoder\.(?:memory_)?fuser\.layers\.(\d)\.(\w+)")


def renamed(
    state_dict: dict[str, Tensor], rename_encoder: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Weights in the authors' layout or in Hugging Face's under our names; those of the encoder as `rename_encoder` says.

    Raises:
        FormatError: a tensor has no place in SAM 2, or one of several that are one here is missing; the message names it.
    """
    is_hub = any(key.startswith("vision_encoder.") for key in state_dict)
    ours, encoder, pieces = dict[str, Tensor](), dict[str, Tensor](), dict[str, dict[int, Tensor]]()
    for key, tensor in state_dict.items():
        inner, row = key.removeprefix("sam_"), _row_of(key.removeprefix("sam_"))
        if key in _UNUSED:
            continue
        if key.startswith(_TRUNKS):
            encoder[key] = tensor
        elif row is not None:
            pieces.setdefault(row[0], {})[row[1]] = tensor
        elif inner in _SINGLE:
            ours[_SINGLE[inner]] = tensor.squeeze()
        else:
            name = _our_name(inner, key, is_hub=is_hub)
            if name in ours and tensor.device.type != "meta" and not torch.equal(tensor, ours[name]):
                raise FormatError(
                    f"{key!r} is held twice, with other values; one is known here: make them equal, or leave out one"
                )
            ours[name] = tensor
    for name, rows in pieces.items():
        ours[name] = torch.cat([rows[row] for row in sorted(rows)])
        if len(ours[name]) != _ROWS[name]:
            raise FormatError(
                f"the weights lack {_ROWS[name] - len(ours[name])} of {_ROWS[name]} rows of {name}; take the whole file"
            )
    return {f"encoder.{name}": tensor for name, tensor in rename_encoder(encoder).items()} | ours


def _row_of(key: str) -> tuple[str, int] | None:
    """Of which of our tensors a tensor is some rows, and which in order; None where it is whole."""
    for name, patterns in _PIECES.items():
        for row, pattern in enumerate(patterns):
            if re.fullmatch(pattern, key):
                return name, row
    return None


def _our_name(inner: str, key: str, *, is_hub: bool) -> str:
    """The name here of a tensor that a file calls `key`, and `inner` without the prefix of the authors.

    Raises:
        FormatError: there is no such tensor.
    """
    if inner in _DIRECTIONS:
        return "prompts.directions"
    module, _, kind = inner.rpartition(".")
    plain = module.replace("layer_norm", "norm") if not module.startswith("memory_encoder.mask") else module
    if plain in _PARTS or module in _PARTS:
        return f"{_PARTS.get(module) or _PARTS[plain]}.{kind}"
    if found := _LATERAL.fullmatch(module):
        return f"neck.lateral.{_DEEPEST - int(found[1])}.{kind}"
    if found := _LAST.fullmatch(module):
        return f"decoder.last.{_PROJECTIONS[found[1]]}.{kind}"
    if found := _MLP.fullmatch(module):
        owner = _OWNERS.get(found[1], f"decoder.masks.{found[1][-1]}")
        return f"{owner}.{_layer_of(found[2], is_hub=is_hub)}.{kind}"
    if found := _LAYER.fullmatch(plain):
        ours, parts = (
            ("decoder.blocks", _DECODER_PARTS) if found[1].startswith("mask") else ("memory.attention.layers", _MEMORY_PARTS)
        )
        if found[3] in parts and ("attn" in found[3]) == bool(found[4]):
            projection = f".{_PROJECTIONS[found[4]]}" if found[4] else ""
            return f"{ours}.{found[2]}.{parts[found[3]]}{projection}.{kind}"
    if found := _SHRINK.fullmatch(module):
        step, is_norm = divmod(int(found[1]), 3) if found[1] else (int(found[2]), found[3] != "conv")
        return f"memory.encoder.{'shrink_norms' if is_norm else 'shrink'}.{step}.{kind}"
    if (found := _FUSER.fullmatch(inner)) and found[2] in ("gamma", "scale"):
        return f"memory.encoder.blocks.{found[1]}.scale"
    if (found := _FUSER.fullmatch(plain)) and found[2] in _FUSER_PARTS:
        return f"memory.encoder.blocks.{found[1]}.{_FUSER_PARTS[found[2]]}.{kind}"
    raise FormatError(
        f"the weights hold {key!r}, which SAM 2 does not; names that start with 'image_encoder.' or 'vision_encoder.', "
        "'sam_mask_decoder.' or 'mask_decoder.', and 'memory_' are expected: check that the file holds it"
    )


def _layer_of(name: str, *, is_hub: bool) -> int:
    """Where a linear layer of an MLP stands among layers and ReLUs: Hugging Face counts those alone that are between two."""
    if name.startswith("proj"):
        return 0 if name == "proj_in" else 4  # the last of three layers with two ReLUs between
    return 2 * int(name[-1]) + (2 if is_hub else 0)
