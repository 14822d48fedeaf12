"""SAM 2: Segment Anything in Images and Videos (Ravi et al. 2024, arXiv 2408.00714).

Segment Anything with a memory. An image is asked as there, by points, a box or an earlier mask. In a video the answer for a
frame is remembered: a small map of the frame and the mask, and a pointer, one vector for the object. Each next frame heeds what
is remembered of frames before it and of all that a person pointed at, and the decoder then answers it without being asked.

What is different from Segment Anything: a Hiera, of four scales, is the encoder; two finer maps join where masks are enlarged,
which draws edges better; boxes are two more points; a token says whether the object is seen at all; of a mask that is asked
alone but unsteady, the best of the other three takes the place. 2.1 knows how long ago pointers were, and marks frames in which
the object was not seen; 2.0 does neither.

Deviations: points and corners count in pixels whose centres lie at +0.5, where the authors' are numbers of pixels, to which
their code adds 0.5. An embedding is one tensor: the channels of a patch are its own and those of its pixels of the finer maps.
The two convolutions that these pass one after the other are made one. Any sides that a Hiera takes are taken; the authors' code
takes squares. Any encoder whose last four maps have the strides 4, 8, 16 and 16 or 32 can take the Hiera's place.

The authors' code and weights are Apache-2.0, as are Hugging Face's copies; nothing of their code is used here.

Axes: B batch, P prompts of an image or objects of a frame, T tokens of a prompt, M masks, C channels, E channels of the
embedding, R of memory, H, W sides of the image, h, w of its embedding, N = h * w patches, S maps of patches of an image (1
while all prompts share it, else P), K remembered frames, L pointers, D what is kept of a frame (N, unless it is condensed).
"""

from dataclasses import dataclass, field
from math import lcm
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import SettingError
from segwright.core.lookup import Kind
from segwright.core.weights import Weights
from segwright.encoders import Encoder, hiera
from segwright.layers.image_check import check_image
from segwright.layers.memory_attention import MemoryAttention
from segwright.layers.memory_encoder import MemoryEncoder
from segwright.layers.patch_pixels import enlarge_patches, gather_patches, lay_out_patches
from segwright.layers.prompt_encoder import PromptEncoder
from segwright.layers.prompts import PromptedMasks, Prompts, count_prompts
from segwright.layers.sine_positions import sine_positions
from segwright.layers.spatial_perceiver import SpatialPerceiver
from segwright.layers.two_way_transformer import CrossAttention, TwoWayBlock
from segwright.models._sam2_names import renamed

TASKS = ("promptable",)
STRIDE = 16  # pixels of the image for one of the embedding
WIDTH = 256  # of the embedding and of tokens
MLP_WIDTH = 2048  # inside the decoder's blocks
BLOCKS = 2  # of the decoder
HEADS = 8  # of its attention
MASKS = 4  # tokens of masks: one where the prompt tells what is meant, then three
SCORE_WIDTH = 256  # of the MLP that says how well masks fit
MEMORY_WIDTH = 64
MEMORY_DEPTH, MEMORY_MLP = 4, 2048  # layers of memory attention, and how wide these are inside
RECENT = 6  # frames that are remembered beside those that a person pointed at
POINTERS = 16  # frames, this one included, whose pointers are known
EPS = 1e-6  # of norms beside convolutions, in the authors' code
STEADY, MARGIN = 0.98, 0.05  # overlap of a mask's outlines at logits of +MARGIN and -MARGIN, below which it is unsteady
ABSENT = -1024.0  # the logit of every pixel where the object is not seen
SURE = 10.0  # the logit of a pixel of a mask that a person drew, and of one that is remembered
LONGEST = 10_000.0  # of sines of how long ago, as in Attention Is All You Need
CLEAR = 1  # points that may still mean several things; two or more, or a box, tell which


@dataclass(frozen=True, kw_only=True)
class Config:
    """SAM 2 on any encoder; the defaults are 2.1 on the tiny Hiera."""

    in_channels: int = 3
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=hiera.Config)
    version: Literal["2.0", "2.1"] = "2.1"
    remembers: ClassVar[bool] = True  # frames of a video

    def __post_init__(self) -> None:
        if self.in_channels < 1:
            raise SettingError(f"in_channels is {self.in_channels}; it must be 1 or more")
        if self.version not in ("2.0", "2.1"):
            raise SettingError(f"version is {self.version!r}; there are '2.0' and '2.1'")

    def build(self) -> "Sam2":
        """The network, its weights drawn from torch's global generator."""
        memory = ObjectMemory(MEMORY_DEPTH, has_times=self.version == "2.1")
        return Sam2(self, self.encoder.build(self.in_channels), memory)


class ObjectAnswers(NamedTuple):
    """What is said of the P objects of a frame.

    `mask_logits` (P, 4 * h, 4 * w) cover the image; where `presence` (P,) is 0 or less, the object is not seen and they are all
    -1024. `scores` (P,) are the overlaps with the truth (IoU) that the network expects, `pointers` (P, E) stand for objects.
    """

    mask_logits: Tensor
    scores: Tensor
    presence: Tensor
    pointers: Tensor


class Memory(NamedTuple):
    """What P objects are known by in other frames.

    `maps` (P, K, D, R) were remembered `ages` frames ago, 1 to 6, or 0 for those that a person pointed at, however long ago.
    `pointers` (P, L, E) are of `distances` frames ago, as shares of the longest known.
    """

    maps: Tensor
    ages: tuple[int, ...]
    pointers: Tensor
    distances: tuple[float, ...]


class Sam2(nn.Module):
    """Image (B, C, H, W) and prompts to masks (B, P, M, H/4, W/4) and their scores; sides must be multiples of `divisors`."""

    OUTPUT = "prompted_masks"
    fills_squares = True  # images were brought to squares when it was trained, whatever their sides
    divisors = (2 * STRIDE,) * 2

    def __init__(self, config: Any, encoder: Any, memory: "ObjectMemory") -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        strides = tuple(self.encoder.strides[-4:])
        if strides[:3] != (4, 8, STRIDE):
            raise SettingError(
                f"the encoder's last maps have strides {', '.join(map(str, strides))}, and 4, 8, 16 and 16 or 32 are needed; "
                "give an encoder of output_stride 16 or 32"
            )
        self.neck = _Neck(tuple(self.encoder.channels[-4:]))
        self.prompts = PromptEncoder(WIDTH, ends_boxes=True)
        self.decoder = _MaskDecoder()
        self.no_memory = nn.Parameter(0.02 * torch.randn(WIDTH))
        self.memory = memory

    @property
    def frame_divisors(self) -> tuple[int, int]:
        """What the sides of frames that are remembered must be multiples of."""
        grid = (1, 1) if self.memory.perceiver is None else self.memory.perceiver.grid
        return lcm(self.divisors[0], STRIDE * grid[0]), lcm(self.divisors[1], STRIDE * grid[1])

    def forward(self, image: Tensor, prompts: Prompts | None = None) -> PromptedMasks:
        """Three answers to each prompt for images; without prompts, to one that says nothing."""
        return self.decode(self.encode(image), prompts)

    def encode(self, image: Tensor) -> Tensor:
        """The embedding (B, 4 * E, H/16, W/16) of an image (B, C, H, W), which all prompts for it share.

        Raises:
            ShapeError: the image has other channels or sides than the network takes.
        """
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        return self.neck(self.encoder(image)[-4:])

    def decode(self, embedding: Tensor, prompts: Prompts | None = None, *, multimask: bool = True) -> PromptedMasks:
        """The answers to prompts for an embedding (B, 4 * E, h, w) of an image: three masks each or, without `multimask`, one.

        A prompt may leave out any of its parts, and all of them.

        Raises:
            ShapeError: the parts of the prompts do not go with each other or with the embedding.
        """
        image, fine = _parted(embedding)
        answer = self._decoded(image + self.no_memory, fine, prompts or Prompts(), embedding)
        masks, scores = answer.masks[:, :, 1:], answer.scores[:, :, 1:]
        if not multimask:
            masks, scores = steady_mask(answer.masks, answer.scores, is_training=self.training)
        return PromptedMasks(lay_out_patches(masks, *_sides(embedding)), scores)

    def answer(self, embedding: Tensor, prompts: Prompts | None = None, *, memory: Memory | None = None) -> ObjectAnswers:
        """What is said of the P objects of a frame, by its embedding (1, 4 * E, h, w), by prompts, by memory, or by both.

        Raises:
            ShapeError: the parts of the prompts do not go with each other or with the embedding.
        """
        image, fine = _parted(embedding)
        known = image + self.no_memory if memory is None else self.memory.heed(image[0], _sides(embedding), memory)[None]
        return self._answered(known, fine, prompts, embedding)  # known (1, 1 or P, N, E)

    def adopt(self, embedding: Tensor, masks: Tensor) -> ObjectAnswers:
        """What is said of the P objects of a frame whose masks bool (P, 16 * h, 16 * w) a person gave: these masks."""
        image, fine = _parted(embedding)
        shares = masks[:, None].to(embedding.dtype)
        said = Prompts(mask_logits=self.memory.shrink_mask(shares)[:, 0][None])
        pointers = self._answered(image, fine, said, embedding, is_clear=True).pointers
        sides = [4 * side for side in _sides(embedding)]
        logits = F.interpolate(SURE * (2 * shares - 1), sides, mode="bilinear", antialias=True, align_corners=False)[:, 0]
        is_seen = masks.flatten(1).any(dim=1)
        pointers = torch.where(is_seen[:, None], pointers, self.memory.no_pointer)
        presence = SURE * (2 * is_seen.to(embedding.dtype) - 1)
        return ObjectAnswers(logits, torch.ones_like(presence), presence, pointers)

    def remember(self, embedding: Tensor, answers: ObjectAnswers, *, is_asked: bool) -> Tensor:
        """What is remembered of the P objects of a frame (P, D, R), by its embedding (1, 4 * E, h, w) and what was said.

        With `is_asked`, where a person pointed, masks are remembered as they are seen, and not as how sure the network was.
        """
        h, w = _sides(embedding)
        whole = F.interpolate(answers.mask_logits[:, None], (STRIDE * h, STRIDE * w), mode="bilinear", align_corners=False)
        shares = (whole > 0).to(whole.dtype) if is_asked else whole.sigmoid()
        found = self.memory.encoder(embedding[:, :WIDTH], SURE * (2 * shares - 1))
        if self.memory.absent is not None:
            found = found + (answers.presence <= 0)[:, None, None] * self.memory.absent
        return found if self.memory.perceiver is None else self.memory.perceiver(found, (h, w))

    def _answered(
        self, image: Tensor, fine: Tensor, prompts: Prompts | None, embedding: Tensor, *, is_clear: bool = False
    ) -> ObjectAnswers:
        """The answers for objects by patches (1, S, N, E); what `is_clear`, or told by a box or two points, has one answer."""
        given = prompts or Prompts()
        count = max(count_prompts(given, 1, _mask_sides(embedding)), image.shape[1])
        if given.points_xy is None and given.boxes_xyxy is None:  # the authors then say twice that there is no point
            given = given._replace(points_xy=image.new_zeros(1, count, 1, 2), labels=_no_labels(image, count))
        said = self._decoded(image, fine, given, embedding)
        told = 0 if given.points_xy is None else given.points_xy.shape[2]
        if is_clear or given.boxes_xyxy is not None or told > CLEAR:
            masks, scores = steady_mask(said.masks, said.scores, is_training=False)
            masks, scores, tokens = masks[0, :, 0], scores[0, :, 0], said.tokens[0, :, 0]
        else:
            rows, best = torch.arange(count, device=image.device), said.scores[0, :, 1:].argmax(dim=1) + 1
            masks, scores, tokens = (part[0, rows, best] for part in (said.masks, said.scores, said.tokens))
        presence = self.memory.presence(said.presence)[0, :, 0]
        is_seen = (presence > 0)[:, None]
        masks = torch.where(is_seen, masks, ABSENT)
        pointers = torch.where(is_seen, self.memory.pointer(tokens), self.memory.no_pointer)
        return ObjectAnswers(lay_out_patches(masks, *_sides(embedding)), scores, presence, pointers)

    def _decoded(self, image: Tensor, fine: Tensor, prompts: Prompts, embedding: Tensor) -> "_Decoded":
        """All four masks of each prompt, by patches (B, S, N, E) and what is finer of them (B, 1, N, 3 * E)."""
        h, w = _sides(embedding)
        counts = len(embedding), count_prompts(prompts, len(embedding), _mask_sides(embedding))
        tokens = self.prompts.tokens(prompts, counts, (w * STRIDE, h * STRIDE))  # (B, P, T, E)
        return self.decoder(image + self.prompts.dense(prompts, image.dtype), fine, self.prompts.grid(h, w), tokens)


def _sides(embedding: Tensor) -> tuple[int, int]:
    """The sides (h, w) of an embedding, as whole numbers for an exporter too."""
    return int(embedding.shape[2]), int(embedding.shape[3])


def _mask_sides(embedding: Tensor) -> tuple[int, int]:
    """The sides of masks for an embedding."""
    return 4 * int(embedding.shape[2]), 4 * int(embedding.shape[3])


def _parted(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """The patches of an embedding (B, 1, N, E), and what is finer of them (B, 1, N, 3 * E)."""
    image, fine = embedding.flatten(2).transpose(-2, -1)[:, None].split([WIDTH, 3 * WIDTH], dim=3)
    return image, fine


def _no_labels(image: Tensor, count: int) -> Tensor:
    """The labels of one place for each of so many objects, that holds no point: (1, P, 1)."""
    return torch.full((1, count, 1), -1, dtype=torch.int64, device=image.device)


def steady_mask(masks: Tensor, scores: Tensor, *, is_training: bool) -> tuple[Tensor, Tensor]:
    """The first of four masks (B, P, 4, 16 * N) with its score or, where it is unsteady, the best of the others: M = 1.

    Its outline is unsteady where a little more or less of the logits moves it much. In training it is always the first.
    """
    first, score = masks[:, :, :1], scores[:, :, :1]
    if is_training:
        return first, score
    inner, outer = ((first > limit).sum(dim=3) for limit in (MARGIN, -MARGIN))  # (B, P, 1)
    is_steady = torch.where(outer > 0, inner / outer, 1.0) >= STEADY
    best = scores[:, :, 1:].argmax(dim=2, keepdim=True) + 1
    other = masks.gather(2, best[..., None].expand(-1, -1, -1, masks.shape[3]))
    return torch.where(is_steady[..., None], first, other), torch.where(is_steady, score, scores.gather(2, best))


class _Neck(nn.Module):
    """Maps of the strides 4, 8, 16 and 32 to the embedding (B, 4 * E, h, w) of stride 16, which holds the finer ones."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(before, WIDTH, 1) for before in channels)
        self.finest = nn.Conv2d(WIDTH, WIDTH // 8, 1)
        self.fine = nn.Conv2d(WIDTH, WIDTH // 4, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        finest, fine, image, deepest = maps
        image = self.lateral[2](image)
        image = image + F.interpolate(self.lateral[3](deepest), image.shape[2:], mode="nearest")
        fine = _both(self.lateral[1], self.fine, fine)
        finest = _both(self.lateral[0], self.finest, finest)
        return torch.cat([image, gather_patches(fine, 1), gather_patches(finest, 2)], dim=1)


def _both(first: nn.Module, second: nn.Module, x: Tensor) -> Tensor:
    """Two convolutions of 1 x 1, one after the other, as the one that they amount to."""
    inner, outer = (conv.get_parameter("weight").flatten(1) for conv in (first, second))
    bias = outer @ first.get_parameter("bias") + second.get_parameter("bias")
    return F.conv2d(x, (outer @ inner)[..., None, None], bias)


class _Decoded(NamedTuple):
    """Four masks (B, P, 4, 16 * N), their scores (B, P, 4) and tokens (B, P, 4, E), and the token of presence (B, P, E)."""

    masks: Tensor
    scores: Tensor
    tokens: Tensor
    presence: Tensor


class _MaskDecoder(nn.Module):
    """Patches (B, S, N, E), finer ones (B, 1, N, 3 * E), places (N, E) and tokens of prompts (B, P, T, E) to four masks."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(2 + MASKS, WIDTH))  # of presence, of the scores, then of each mask
        self.blocks = nn.ModuleList(TwoWayBlock(WIDTH, MLP_WIDTH, HEADS, is_first=not index) for index in range(BLOCKS))
        self.last = CrossAttention(WIDTH, HEADS)
        self.last_norm = nn.LayerNorm(WIDTH)
        self.enlarge = nn.ConvTranspose2d(WIDTH, WIDTH // 4, 2, stride=2)
        self.enlarge_norm = nn.LayerNorm(WIDTH // 4, eps=EPS)
        self.enlarge_again = nn.ConvTranspose2d(WIDTH // 4, WIDTH // 8, 2, stride=2)
        self.masks = nn.ModuleList(_mlp(WIDTH, WIDTH, WIDTH // 8) for _ in range(MASKS))
        self.scores = _mlp(WIDTH, SCORE_WIDTH, MASKS)

    def forward(self, image: Tensor, fine: Tensor, places: Tensor, prompts: Tensor) -> _Decoded:
        queries = self.queries.expand(*prompts.shape[:2], -1, -1)
        begun = tokens = torch.cat([queries, prompts] if prompts.shape[2] else [queries], dim=2)
        for block in self.blocks:
            tokens, image = block(tokens, begun, image, places)
        tokens = self.last_norm(tokens + self.last.of_tokens(tokens + begun, image + places, image))
        quarters, pixels = fine.split([WIDTH, 2 * WIDTH], dim=3)
        x = enlarge_patches(self.enlarge, image) + quarters.unflatten(3, (4, -1))  # (B, P, N, 4, E/4)
        x = F.gelu(self.enlarge_norm(x))
        x = F.gelu(enlarge_patches(self.enlarge_again, x) + pixels.unflatten(3, (4, 4, -1)))  # (B, P, N, 4, 4, E/8)
        said = tokens[:, :, 2 : 2 + MASKS]
        weights = torch.stack([mlp(said[:, :, index]) for index, mlp in enumerate(self.masks)], dim=3)  # (B, P, E/8, 4)
        masks = (x.flatten(2, 4) @ weights).transpose(-2, -1)
        return _Decoded(masks, self.scores(tokens[:, :, 1]).sigmoid(), said, tokens[:, :, 0])


class ObjectMemory(nn.Module):
    """All that a video needs and an image does not; with `has_times`, as 2.1.

    Of a frame all its patches are kept or, with a `perceiver`, its tokens, of which the first are of a grid of windows.
    """

    def __init__(self, depth: int, *, has_times: bool, perceiver: SpatialPerceiver | None = None) -> None:
        super().__init__()
        self.attention = MemoryAttention(WIDTH, MEMORY_WIDTH, MEMORY_MLP, depth)
        self.encoder = MemoryEncoder(WIDTH, MEMORY_WIDTH)
        self.perceiver = perceiver
        self.times = nn.Parameter(0.02 * torch.randn(RECENT + 1, MEMORY_WIDTH))  # 1 to 6 frames ago, then what was pointed at
        self.pointer = _mlp(WIDTH, WIDTH, WIDTH)
        self.no_pointer = nn.Parameter(0.02 * torch.randn(WIDTH))
        self.presence = _mlp(WIDTH, WIDTH, 1)
        self.shrink_mask = nn.Conv2d(1, 1, 4, stride=4)
        self.pointer_times = nn.Linear(WIDTH, MEMORY_WIDTH) if has_times else None
        self.absent = nn.Parameter(0.02 * torch.randn(MEMORY_WIDTH)) if has_times else None

    def heed(self, image: Tensor, sides: tuple[int, int], memory: Memory) -> Tensor:
        """Patches (1, N, E) of a frame with `sides` (h, w), for each object by what is known of it: (P, N, E)."""
        P, _, D, R = memory.maps.shape
        grid = sides if self.perceiver is None else self.perceiver.grid
        parts = grid[0] * grid[1], D - grid[0] * grid[1]  # of each frame, on the grid and anywhere
        times = self.times[[age - 1 for age in memory.ages]]  # the last for 0
        places = F.pad(sine_positions(grid, R, image), (0, 0, 0, parts[1])) + times[:, None]  # (K, D, R)
        tokens = memory.pointers.unflatten(2, (-1, R)).flatten(1, 2)  # (P, L * E / R, R)
        if self.pointer_times is None or not memory.distances:
            later = tokens.new_zeros(tokens.shape[1], R)
        else:
            apart = _sines(tokens.new_tensor(memory.distances))
            later = self.pointer_times(apart).repeat_interleave(WIDTH // R, dim=0)
        known = torch.cat([*(part.flatten(1, 2) for part in memory.maps.split(parts, dim=2)), tokens], dim=1)
        places = torch.cat([*(part.flatten(0, 1) for part in places.split(parts, dim=1)), later]).expand(P, -1, -1)
        anywhere = len(memory.ages) * parts[1] + tokens.shape[1]
        return self.attention(image, sides, known, places, anywhere, memory_sides=grid)


def _sines(distances: Tensor) -> Tensor:
    """Distances (L,) as sines and cosines of many wave lengths (L, E)."""
    half = WIDTH // 2
    pair = torch.arange(half, device=distances.device).div(2, rounding_mode="floor")
    angles = distances[:, None] / LONGEST ** (2 * pair.to(distances.dtype) / half)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _mlp(channels: int, inside: int, out: int) -> nn.Sequential:
    """Three linear layers with ReLU between them."""
    return nn.Sequential(nn.Linear(channels, inside), nn.ReLU(), nn.Linear(inside, inside), nn.ReLU(), nn.Linear(inside, out))


SIZES = ("tiny", "small", "base_plus", "large")
PRESETS = {
    f"sam{version}_hiera_{size}": Config(encoder=hiera.PRESETS[f"hiera_{size}"], version=version)
    for version in ("2.0", "2.1")
    for size in SIZES
}


def _weights(version: Literal["2.0", "2.1"], size: str) -> dict[str, Weights]:
    """A file that the authors publish, and the same on the Hugging Face hub, under its names, as a file that holds no code."""
    short, date = ("sam2", "072824") if version == "2.0" else ("sam2.1", "092824")
    addresses = {
        "": f"https://dl.fbaipublicfiles.com/segment_anything_2/{date}/{short}_hiera_{size}.pt",
        "_hub": f"hf://facebook/{short}-hiera-{size.replace('_', '-')}/model.safetensors",
    }
    name = f"sam{version}_hiera_{size}"
    return {
        f"{name}_sav{ending}": Weights(preset=name, address=address, licence="Apache-2.0", trained_on="SA-V, SA-1B", classes=0)
        for ending, address in addresses.items()
    }


WEIGHTS = {
    name: each for size in SIZES for known in (_weights("2.0", size), _weights("2.1", size)) for name, each in known.items()
}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the authors' layout or in Hugging Face's under our names; load them with `load_state_dict`, strictly.

    Raises:
        FormatError: a tensor has no place in SAM 2, or one of several that are one here is missing; the message names it.
    """
    return renamed(state_dict, hiera.rename)
