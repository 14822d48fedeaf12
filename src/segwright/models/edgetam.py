"""EdgeTAM: On-Device Track Anything Model (Zhou et al. 2025, arXiv 2501.07256).

SAM 2 for small machines: asked and answered as there, by the same prompt encoder and mask decoder, but for three things. A
RepViT-M1 (Wang et al. 2023, arXiv 2307.09283) is the encoder, in place of a Hiera. What is remembered of a frame is condensed
by a spatial perceiver before it is kept: 256 tokens that saw all of it and 256 that saw a window each, of a grid of 16 x 16, in
place of all 4096 patches (section 3.2). And two layers of attention, not four, heed it; there the tokens of windows turn by
their place in the grid, the patches of the frame by their own, and the other tokens, as pointers, not at all. As in SAM 2.0,
nothing says how long ago pointers were, or that an object was not seen.

What is done with a video is that of `sam2`, and so are its deviations. Frames that are remembered need sides that divide into
the grid, multiples of 256; images alone those of SAM 2. The authors' code knows 1024 x 1024 only.

The authors' code and weights are Apache-2.0, timm's RepViT too; nothing of their code is used here.

Axes: as in `sam2`.
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from torch import Tensor

from segwright.core.errors import FormatError, SettingError
from segwright.core.lookup import Kind
from segwright.core.weights import Weights
from segwright.encoders import Encoder, timm
from segwright.layers.spatial_perceiver import SpatialPerceiver
from segwright.models import sam2
from segwright.models._sam2_names import renamed
from segwright.models.sam2 import ObjectMemory, Sam2

TASKS = ("promptable",)
MEMORY_DEPTH = 2  # layers of memory attention
GRID = (16, 16)  # windows of the perceiver, a token each
COUNT = 256  # of its tokens that see all
PERCEIVER_DEPTH = 2


@dataclass(frozen=True, kw_only=True)
class Config:
    """EdgeTAM on any encoder; the defaults are the published one."""

    in_channels: int = 3
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=lambda: timm.Config(name="repvit_m1.dist_in1k"))
    remembers: ClassVar[bool] = True  # frames of a video

    def __post_init__(self) -> None:
        if self.in_channels < 1:
            raise SettingError(f"in_channels is {self.in_channels}; it must be 1 or more")

    def build(self) -> "Sam2":
        """The network, its weights drawn from torch's global generator."""
        perceiver = SpatialPerceiver(sam2.MEMORY_WIDTH, grid=GRID, count=COUNT, depth=PERCEIVER_DEPTH)
        memory = ObjectMemory(MEMORY_DEPTH, has_times=False, perceiver=perceiver)
        return Sam2(self, self.encoder.build(self.in_channels), memory)


PRESETS = {"edgetam": Config()}
WEIGHTS = {
    "edgetam_sav": Weights(
        preset="edgetam",
        address="https://github.com/facebookresearch/EdgeTAM/raw/main/checkpoints/edgetam.pt",
        sha256="ed2d4850b8792c239689b043c47046ec239b6e808a3d9b6ae676c803fd8780df",
        licence="Apache-2.0",
        trained_on="SA-V, SA-1B and others",
        classes=0,
        score="72.3 J&F on SA-V val",
    ),
    "edgetam_sav_hub": Weights(
        preset="edgetam",
        address="hf://yonigozlan/EdgeTAM-hf/model.safetensors",
        licence="Apache-2.0",
        trained_on="SA-V, SA-1B and others",
        classes=0,
    ),
}

_ENCODERS = ("image_encoder.trunk.body.", "vision_encoder.backbone.timm_model.")  # the authors, then Hugging Face
_PERCEIVER = "spatial_perceiver."
_WHOLE = {  # tensors of the perceiver: the authors, then Hugging Face
    "latents": "of_all",
    "latents_1d": "of_all",
    "latents_2d": "of_windows",
    "norm.weight": "norm.weight",
    "norm.bias": "norm.bias",
    "layer_norm.weight": "norm.weight",
    "layer_norm.bias": "norm.bias",
}
_MODULES = {  # of a layer of the perceiver
    "attn.norm_x": "pixels_norm",
    "layer_norm_input": "pixels_norm",
    "attn.norm_latents": "to_pixels_norm",
    "layer_norm_latents": "to_pixels_norm",
    "self_attn.norm": "attention_norm",
    "layer_norm_self": "attention_norm",
}
_ATTENTIONS = {"attn": "to_pixels", "cross_attention": "to_pixels", "self_attn": "attention", "self_attention": "attention"}
_PROJECTIONS = {"to_q": "query", "q_proj": "query", "k_proj": "key", "v_proj": "value", "to_out": "output", "o_proj": "output"}
_MLPS = {"ff": "pixels_mlp", "mlp": "pixels_mlp", "self_ff": "mlp", "self_mlp": "mlp"}
_OF_MLP = {"0": "norm", "1": "widen", "3": "narrow", "layer_norm": "norm", "up_proj": "widen", "down_proj": "narrow"}
_MODULES |= {f"{at}.{there}": f"{ours}.{here}" for at, ours in _ATTENTIONS.items() for there, here in _PROJECTIONS.items()}
_MODULES |= {f"{at}.{there}": f"{ours}.{here}" for at, ours in _MLPS.items() for there, here in _OF_MLP.items()}
_JOINT = "to_kv"  # keys and values, which the authors have in one


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the authors' layout or in Hugging Face's under our names; load them with `load_state_dict`, strictly.

    Raises:
        FormatError: a tensor has no place in EdgeTAM, or one of several that are one here is missing; the message names it.
    """
    perceiver = {key: tensor for key, tensor in state_dict.items() if key.startswith(_PERCEIVER)}
    others = {key: tensor for key, tensor in state_dict.items() if key not in perceiver}
    ours = renamed(others, _renamed_encoder)
    for key, tensor in perceiver.items():
        for name, part in _perceiver_parts(key, tensor).items():
            ours[f"memory.perceiver.{name}"] = part
    return ours


def _renamed_encoder(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of timm's RepViT under our names.

    Raises:
        FormatError: one is of another encoder.
    """
    ours = {}
    for key, tensor in state_dict.items():
        start = next((start for start in _ENCODERS if key.startswith(start)), None)
        if start is None:
            raise FormatError(
                f"the weights hold {key!r}, and the encoder of EdgeTAM is one of timm, whose names start with "
                f"'{_ENCODERS[0]}' or '{_ENCODERS[1]}': check that the file is of EdgeTAM"
            )
        ours[f"network.{key.removeprefix(start)}"] = tensor
    return ours


def _perceiver_parts(key: str, tensor: Tensor) -> dict[str, Tensor]:
    """What a tensor of the perceiver is here, by name: one tensor, or two where the authors have keys and values in one.

    Raises:
        FormatError: the perceiver has no such tensor.
    """
    inner = key.removeprefix(_PERCEIVER)
    if inner in _WHOLE:
        return {_WHOLE[inner]: tensor}
    layers, _, rest = inner.partition(".")
    number, _, rest = rest.partition(".")
    module, _, kind = rest.rpartition(".")
    if layers == "layers" and number.isdigit():
        if module in _MODULES:
            return {f"layers.{number}.{_MODULES[module]}.{kind}": tensor}
        attention, _, projection = module.rpartition(".")
        if projection == _JOINT and attention in _ATTENTIONS:
            names = (f"layers.{number}.{_ATTENTIONS[attention]}.{part}.{kind}" for part in ("key", "value"))
            return dict(zip(names, tensor.chunk(2), strict=True))
    raise FormatError(
        f"the weights hold {key!r}, which the perceiver of EdgeTAM does not; names like 'spatial_perceiver.latents_2d' or "
        "'spatial_perceiver.layers.0.attn.to_q.weight' are expected: check the file"
    )
