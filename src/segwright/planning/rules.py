"""What follows from a fingerprint alone: channels, normalisation, augmentation, loss and crop."""

import math

from segwright.losses import Loss
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.dice import Dice
from segwright.losses.weighted_sum import WeightedSum
from segwright.planning.fingerprint import Fingerprint
from segwright.plans import Data
from segwright.transforms.geometric import Geometric
from segwright.transforms.intensity import Intensity
from segwright.transforms.normalise import Normalise

LARGEST_CROP = 512  # pixels a side: small networks hardly use more context, and a step stays short
LARGEST_CROP_TEXTURE = 256  # where there is no up, context is near, and a batch of several places learns more
LARGEST_CROP_3D = 128
CROP_SHARE = 0.9  # of the image: a little less than all, so that crops differ
LARGEST_BEND = 4.0  # pixels: what sections and cells show anyway
BENDS = 60  # of a side: at a 40th of a crop the image begins to fold, and crops are smaller than images
ALIKE = 0.5  # of the spread inside an image: image means closer than that allow one normalisation for all
CENTRED = 0.08  # of a side: how far a class's mean place may lie from the middle before that axis has a direction
RARE = 0.02  # of the pixels: below, a class is found by looking for it


def data_rules(found: Fingerprint, train: str, val: str | None) -> tuple[Data, dict[str, str]]:
    """Channels and normalisation, with reasons."""
    kinds = sorted(found.channels)
    channels = 3 if set(kinds) <= {1, 3, 4} and kinds != [1] and kinds != [4] else kinds[-1]
    reasons = {"data.channels": ", ".join(f"{count} images have {channels}" for channels, count in found.channels.items())}
    fixed = set(found.dtypes) == {"uint8"} and found.mean_shift < ALIKE and len(kinds) == 1
    reasons["data.normalise"] = (
        f"8-bit images alike in brightness (their means differ by {found.mean_shift:.2f} of the spread inside one)"
        if fixed
        else f"measured on each image: {'/'.join(found.dtypes)} images whose means differ by {found.mean_shift:.2f} of it"
    )
    normalise = Normalise()
    if fixed:
        normalise = Normalise(
            mean=tuple(round(c.mean, 3) for c in found.intensity), std=tuple(round(max(c.std, 1.0), 3) for c in found.intensity)
        )
    return Data(train=train, val=val, channels=channels, normalise=normalise), reasons


def augmentation_rules(found: Fingerprint, channels: int) -> tuple[Geometric, Intensity, dict[str, str]]:
    """How images may be changed without changing their meaning, with reasons.

    An axis along which some class lies off the middle has a direction: sky is up. It is not flipped, and images are
    turned by little; where no axis has one, as under a microscope, they are turned all the way.
    """
    free = free_axes(found)
    has_direction = has_up(found)
    rare = any(0 < share < RARE for share in found.class_fractions)
    geometric = Geometric(
        scale=(0.7, 1.5) if found.axes == 2 else (0.85, 1.2),
        rotate_deg=8.0 if has_direction or found.axes == 3 else 180.0,
        flip_axes=free,
        elastic_px=0.0 if has_direction else round(min(LARGEST_BEND, min(found.size_median) / BENDS), 2),
        focus=0.3 if rare else 0.0,
    )
    intensity = Intensity(saturation=0.3 if channels == 3 else 0.0)
    reasons = {
        "geometric.flip_axes": f"the classes lie off the middle by {', '.join(f'{part:.2f}' for part in off_centre(found))} "
        f"of a side at most; an axis under {CENTRED} has no direction",
        "geometric.rotate_deg": "the images have an up" if has_direction else "the images have no up",
        "geometric.focus": f"the rarest class has {min(s for s in found.class_fractions if s > 0):.2%} of the pixels",
    }
    return geometric, intensity, reasons


def off_centre(found: Fingerprint) -> list[float]:
    """How far the mean place of a class lies from the middle, per axis, for the class that lies farthest off."""
    centres = [centre for centre, share in zip(found.class_centres, found.class_fractions, strict=True) if share > 0]
    return [max(abs(centre[axis] - 0.5) for centre in centres) for axis in range(found.axes)]


def free_axes(found: Fingerprint) -> tuple[int, ...]:
    """The axes without a direction, counted from the end; an image may always be mirrored left to right."""
    free = {axis - found.axes for axis, offset in enumerate(off_centre(found)) if offset < CENTRED}
    return tuple(sorted(free | {-1} if found.axes == 2 else free))


def has_up(found: Fingerprint) -> bool:
    """Whether the scene has a direction: some class lies off the middle along an axis that may not be mirrored."""
    return len(free_axes(found)) < found.axes


def loss_rules(found: Fingerprint) -> tuple[Loss, dict[str, str]]:
    """Cross-entropy plus Dice; classes that are rare weigh more in the first, by the root of how rare they are."""
    shares = [max(share, 1e-5) for share in found.class_fractions]  # 1e-5: a class that was not seen gets no endless weight
    roots = [1 / math.sqrt(share) for share in shares]
    mean = sum(share * root for share, root in zip(shares, roots, strict=True))  # the mean weight over all pixels becomes 1
    weights = tuple(round(root / mean, 4) for root in roots)
    loss = WeightedSum(terms=(CrossEntropy(class_weights=weights), Dice()), weights=(1.0, 1.0))
    return loss, {"loss": "mean IoU counts a rare class as much as a common one, so the loss does too"}


def crop_for(found: Fingerprint, zoom: float, divisor: int) -> tuple[int, ...]:
    """The spatial shape of a training crop: nearly the usual image, in multiples of what the network takes."""
    largest = LARGEST_CROP_3D if found.axes == 3 else LARGEST_CROP if has_up(found) else LARGEST_CROP_TEXTURE
    sides = [min(largest, side * zoom * CROP_SHARE) for side in found.size_median]
    return tuple(max(1, round(side / divisor)) * divisor for side in sides)
