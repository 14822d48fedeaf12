"""EoMT: Your ViT is Secretly an Image Segmentation Model (Kerssies et al. 2025, arXiv 2503.19108).

A plain Vision Transformer, and nothing else that is large: before its last blocks, learned queries join its tokens, and from
there on the same blocks let patches and queries look at each other. Each query that comes out is a class and, multiplied with
the patches at a quarter of the image's sides, a mask. There is no adapter, no pixel decoder and no transformer decoder, which a
ViT that saw enough images learns to do without: ViT-L at 640 x 640 reaches 56.0 PQ on COCO at 128 images a second on an H100,
four times as many as with ViT-Adapter and Mask2Former's decoders. Smaller encoders, and such that saw less, lose more by it.

What is different here is mask annealing. Masked attention, by which a query sees the patches of its own mask alone, helps
queries to learn but costs time, since before each of the last blocks all masks must be known. So in training a block masks each
query with a probability that falls from 1 to 0, block after block (`masking`); a network that is trained masks nothing. Whoever
trains says what share of the training has passed (`set_progress`). In evaluation a block masks while that is still the rule;
the authors draw queries then too, and their published weights are annealed to the end, as far as which both are the same.

All else is learned as in Mask2Former: by the set criterion on points, for the answer before each of the last blocks and the
final one. The authors chose their learning rate for 16 images at a time on four GPUs; nothing in the network needs as many, and
it learns from one image at a time on one device. They also let blocks learn more slowly the earlier they come, by a fifth each;
plans have one rate for all.

Other deviations: DINOv3's form anneals as DINOv2's does, where the authors let its first block mask for 3000 steps alone; and
images may have any sides that are multiples of 16, also with learned positions (encoders/vit.py).

The presets are those of the authors' files, whose number is the side that their learned positions are for. `eomt_small`,
`eomt_base` and `eomt_large` begin from DINOv2's own weights (`dinov2_small` and so on), and `eomt_tiny` is ours, for minutes on
a CPU. The authors' files on DINOv3 hold differences from DINOv3's weights, which need a licence of their own; networks that
transformers has put together of both are read by `rename`.

The authors' code and weights are MIT, transformers' code is Apache-2.0; nothing of either is used here.

Axes: B batch, C channels, Q queries, K classes, H, W sides of the image in pixels, h, w in patches, N tokens.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.core.weights import Weights
from segwright.encoders import vit
from segwright.layers.image_check import check_image
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.query_masks import QueryMasks
from segwright.layers.set_criterion import set_losses

TASKS = ("panoptic", "instance", "semantic")
DOUBLINGS = 2  # from the patches' stride of 16 to the masks' of 4
SIXTHS, FIRST_START, LAST_START = 6, 1, 4  # of the training: blocks begin to mask less after one to four, for one each
POWER = 0.9  # of the decay, as of the learning rate


@dataclass(frozen=True, kw_only=True)
class Config:
    """EoMT; the defaults are EoMT-L for images of 640 x 640 and the 133 classes of COCO panoptic.

    The last `joint_blocks` of the encoder see the queries. `points` are those of a mask that a loss looks at.
    """

    in_channels: int = 3
    num_classes: int = 133
    encoder: vit.Config = field(default_factory=lambda: vit.Config(grid=40))
    num_queries: int = 200
    joint_blocks: int = 4
    points: int = 12544

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_classes", "num_queries", "joint_blocks", "points"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; give 1 or more")
        if self.joint_blocks > self.encoder.depth:
            raise SettingError(
                f"joint_blocks is {self.joint_blocks} and the encoder has {self.encoder.depth} blocks; give "
                f"{self.encoder.depth} at most, such as {max(1, self.encoder.depth // 6)}"
            )

    def build(self) -> "EoMT":
        """The network, its weights drawn from torch's global generator."""
        return EoMT(self)


class EoMT(nn.Module):
    """Image (B, C, H, W) to `QueryMasks` at a quarter of its sides, or with the truth to losses; sides are multiples of 16."""

    OUTPUT = "queries"
    divisors = (vit.PATCH,) * 2
    is_masked: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width = config.encoder.width
        self.encoder = config.encoder.build(config.in_channels)
        self.queries = nn.Parameter(torch.randn(config.num_queries, width))
        self.classify = nn.Linear(width, config.num_classes + 1)
        self.mask_head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.enlarge = nn.Sequential(*(_Double(width) for _ in range(DOUBLINGS)))
        self.masking = (1.0,) * config.joint_blocks  # the probability in training
        self.register_buffer("is_masked", torch.ones(config.joint_blocks, dtype=torch.bool))  # in evaluation

    def set_progress(self, progress: float) -> None:
        """Mask as befits a share of the training, 0 to 1."""
        self.masking = masking(progress, self.config.joint_blocks)
        self.is_masked.copy_(torch.tensor([probability >= 0.5 for probability in self.masking]))

    def forward(
        self, image: Tensor, truth: Sequence[ObjectTruth] | None = None, generator: torch.Generator | None = None
    ) -> QueryMasks | dict[str, Tensor]:
        """The final answer; with the truth of each image, the terms of the loss of all answers, drawn with the generator."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        if truth is None:
            return self.answers(image, every=False)[-1]
        answers = self.answers(image, every=True, generator=generator)
        sides = (image.shape[2], image.shape[3])
        return set_losses(answers, truth, sides, points=self.config.points, generator=generator)

    def answers(self, image: Tensor, *, every: bool, generator: torch.Generator | None = None) -> list[QueryMasks]:
        """What queries say before each of the last blocks, if it is to be known or masks something, and in the end."""
        tokens, rotation = self.encoder.embed(image, generator)
        alone, joint = len(self.encoder.blocks) - self.config.joint_blocks, self.masking_now()
        for block in self.encoder.blocks[:alone]:
            tokens = block(tokens, rotation)
        tokens = torch.cat([self.queries.to(tokens.dtype).expand(len(image), -1, -1), tokens], dim=1)
        rotation = rotation if rotation is None else rotation.after(self.config.num_queries)
        h, w = (int(side) // vit.PATCH for side in image.shape[2:])
        answers = []
        for block, probability in zip(self.encoder.blocks[alone:], joint, strict=True):
            visible = None
            if every or probability > 0:
                answers.append(self._answer(tokens, h, w))
            if probability > 0:
                visible = self._visible(answers[-1].mask_logits, h, w, probability, generator)
            tokens = block(tokens, rotation, visible)
        return [*answers, self._answer(tokens, h, w)]

    def masking_now(self) -> Sequence[float]:
        """The probability with which each of the last blocks masks a query; 1 or 0 in evaluation."""
        if self.training:
            return self.masking
        if self.is_masked.device.type == "meta":  # which knows no values; those of a trained network are 0
            return (0.0,) * len(self.is_masked)
        return [float(value) for value in self.is_masked.tolist()]

    def _answer(self, tokens: Tensor, h: int, w: int) -> QueryMasks:
        """Classes (B, Q, K + 1) and masks (B, Q, 4h, 4w) of tokens (B, Q + N, C)."""
        queries = self.encoder.norm(tokens[:, : self.config.num_queries])
        patches = self.encoder.norm(tokens[:, -h * w :]).unflatten(1, (h, w))  # in a memory of their own, as an image's
        pixels = self.enlarge(patches.permute(0, 3, 1, 2))  # (B, C, 4h, 4w)
        masks = self.mask_head(queries) @ pixels.flatten(2)
        return QueryMasks(self.classify(queries), masks.unflatten(2, pixels.shape[2:]))

    def _visible(self, mask_logits: Tensor, h: int, w: int, probability: float, generator: torch.Generator | None) -> Tensor:
        """Which tokens each query may look at (B, Q, Q + N): of patches, those that are more in its mask than not.

        With 1 - probability a query sees all of them. Other queries, the class token and registers are always seen.
        """
        inside = F.interpolate(mask_logits.detach(), size=(h, w), mode="bilinear", align_corners=False).flatten(2) > 0
        if probability < 1:
            device = inside.device if generator is None else generator.device
            drawn = torch.rand(inside.shape[:2], generator=generator, device=device).to(inside.device)
            inside = inside | (drawn > probability)[..., None]
        others = inside.new_ones(*inside.shape[:2], self.config.num_queries + 1 + vit.REGISTERS)
        return torch.cat([others, inside], dim=2)


class _Double(nn.Module):
    """A map (B, C, h, w) at twice its sides."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.smooth = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = nn.LayerNorm(width, eps=1e-6)  # in both forms

    def forward(self, x: Tensor) -> Tensor:
        x = self.smooth(F.gelu(self.enlarge(x)))
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def masking(progress: float, blocks: int) -> tuple[float, ...]:
    """The probability with which each of the last blocks masks a query at a share of the training, 0 to 1.

    Blocks anneal for a sixth of the training each. The first begins after one sixth, the last after four, the others between
    at even distances; so have all of the authors' files.
    """
    step = (LAST_START - FIRST_START) / max(blocks - 1, 1)
    passed = [SIXTHS * progress - FIRST_START - step * block for block in range(blocks)]
    return tuple((1 - min(max(share, 0.0), 1.0)) ** POWER for share in passed)


def _of_authors(encoder: str, grid: int, **settings: int) -> Config:
    """A preset of a side of so many patches."""
    return Config(encoder=replace(vit.PRESETS[f"vit_{encoder}"], grid=grid), **settings)


SMALL, GIANT = {"joint_blocks": 3}, {"joint_blocks": 5}
PRESETS = {
    "eomt_tiny": Config(encoder=vit.Config(width=128, depth=6, grid=16), num_queries=50, joint_blocks=3, points=2048),
    "eomt_small": _of_authors("small_dinov2", 37, **SMALL),
    "eomt_base": _of_authors("base_dinov2", 37, **SMALL),
    "eomt_large": _of_authors("large_dinov2", 37),
    "eomt_small_640": _of_authors("small_dinov2", 40, **SMALL),
    "eomt_base_640": _of_authors("base_dinov2", 40, **SMALL),
    "eomt_large_640": Config(),
    "eomt_large_1280": _of_authors("large_dinov2", 80),
    "eomt_giant_640": _of_authors("giant_dinov2", 40, **GIANT),
    "eomt_giant_1280": _of_authors("giant_dinov2", 80, **GIANT),
    "eomt_large_512": _of_authors("large_dinov2", 32, num_classes=150, num_queries=100),
    "eomt_large_1024": _of_authors("large_dinov2", 64, num_classes=19, num_queries=100),
    "eomt_small_dinov3": _of_authors("small_dinov3", 40, **SMALL),
    "eomt_base_dinov3": _of_authors("base_dinov3", 40, **SMALL),
    "eomt_large_dinov3": _of_authors("large_dinov3", 40),
}

COCO_PANOPTIC = ("MS COCO train2017, panoptic", 133, "PQ on COCO val2017")
COCO_INSTANCE = ("MS COCO train2017, instance", 80, "mask AP on COCO val2017")
ADE20K_PANOPTIC = ("ADE20K, panoptic, from weights of COCO panoptic", 150, "PQ on ADE20K val")
ADE20K_SEMANTIC = ("ADE20K, semantic", 150, "mIoU on ADE20K val")
CITYSCAPES_SEMANTIC = ("Cityscapes, semantic", 19, "mIoU on Cityscapes val")
WEIGHTS = {
    name: Weights(
        preset=preset,
        address=f"hf://tue-mps/{name}/pytorch_model.bin",
        licence="MIT",
        trained_on=trained_on,
        classes=classes,
        score=f"{score} {metric}",
    )
    for name, preset, (trained_on, classes, metric), score in (
        ("coco_panoptic_eomt_small_640_2x", "eomt_small_640", COCO_PANOPTIC, 46.7),
        ("coco_panoptic_eomt_base_640_2x", "eomt_base_640", COCO_PANOPTIC, 51.6),
        ("coco_panoptic_eomt_large_640", "eomt_large_640", COCO_PANOPTIC, 56.0),
        ("coco_panoptic_eomt_large_1280", "eomt_large_1280", COCO_PANOPTIC, 58.3),
        ("coco_panoptic_eomt_giant_640", "eomt_giant_640", COCO_PANOPTIC, 57.0),
        ("coco_panoptic_eomt_giant_1280", "eomt_giant_1280", COCO_PANOPTIC, 59.2),
        ("ade20k_panoptic_eomt_large_640", "eomt_large_640", ADE20K_PANOPTIC, 50.6),
        ("ade20k_panoptic_eomt_large_1280", "eomt_large_1280", ADE20K_PANOPTIC, 51.7),
        ("ade20k_panoptic_eomt_giant_640", "eomt_giant_640", ADE20K_PANOPTIC, 51.3),
        ("ade20k_panoptic_eomt_giant_1280", "eomt_giant_1280", ADE20K_PANOPTIC, 52.8),
        ("cityscapes_semantic_eomt_large_1024", "eomt_large_1024", CITYSCAPES_SEMANTIC, 84.2),
        ("ade20k_semantic_eomt_large_512", "eomt_large_512", ADE20K_SEMANTIC, 58.4),
        ("coco_instance_eomt_large_640", "eomt_large_640", COCO_INSTANCE, 45.2),
        ("coco_instance_eomt_large_1280", "eomt_large_1280", COCO_INSTANCE, 48.8),
    )
}

UNUSED = re.compile(r"criterion\..+|encoder\.pixel_(mean|std)")  # how classes weigh, and how images are normalised
HEADS = {  # the authors', then transformers', and ours
    r"(?:q|query)\.weight": "queries",
    r"(?:class_head|class_predictor)\.(\w+)": r"classify.\1",
    r"mask_head\.([024])\.(\w+)": r"mask_head.\1.\2",
    r"mask_head\.fc1\.(\w+)": r"mask_head.0.\1",
    r"mask_head\.fc2\.(\w+)": r"mask_head.2.\1",
    r"mask_head\.fc3\.(\w+)": r"mask_head.4.\1",
    r"(?:upscale|upscale_block\.block)\.(\d)\.conv1\.(\w+)": r"enlarge.\1.enlarge.\2",
    r"(?:upscale|upscale_block\.block)\.(\d)\.conv2\.(\w+)": r"enlarge.\1.smooth.\2",
    r"(?:upscale|upscale_block\.block)\.(\d)\.(?:norm|layernorm2d)\.(\w+)": r"enlarge.\1.norm.\2",
}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the layout of the authors or of transformers under our names, to be loaded strictly.

    A block masks in evaluation where the file's probability is one half or more; files without any are of trained networks.

    Raises:
        FormatError: a tensor has no place in an EoMT, or the queries are missing; the message names it.
    """
    ours, encoder = {}, {}
    for key, tensor in state_dict.items():
        inner = key.removeprefix("network.")
        names = [found.expand(name) for pattern, name in HEADS.items() if (found := re.fullmatch(pattern, inner))]
        if names:
            ours[names[0]] = tensor
        elif inner == "attn_mask_probs":
            ours["is_masked"] = tensor >= 0.5
        elif not UNUSED.fullmatch(inner):
            encoder[inner.removeprefix("encoder.backbone.")] = tensor
    if "queries" not in ours:
        raise FormatError(
            "the weights hold no queries, which an EoMT has as 'network.q.weight' or 'query.weight'; check that the file is of "
            "an EoMT and not of its encoder alone"
        )
    return ours | {f"encoder.{name}": tensor for name, tensor in vit.rename(encoder).items()}
