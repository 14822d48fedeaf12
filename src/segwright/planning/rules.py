"""What follows from a fingerprint alone: channels, spacing, normalisation, sampling, augmentation, crop and batch."""

import math
from collections.abc import Sequence

import numpy as np

from segwright.core.classes import BACKGROUND, plain
from segwright.data.fingerprint import CENTRED, Fingerprint, free_axes, has_up, off_centre
from segwright.data.samplers import Sampler
from segwright.data.samplers.foreground_patches import ForegroundPatches
from segwright.data.samplers.repeat_factor import RepeatFactor
from segwright.data.samplers.uniform import Uniform
from segwright.data.store import RARE
from segwright.planning.nnunet_topology import target_spacing
from segwright.plans.plan import Augmentation
from segwright.transforms.gaussian_blur import GaussianBlur
from segwright.transforms.geometric import Geometric
from segwright.transforms.intensity import Intensity
from segwright.transforms.low_resolution import LowResolution
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess

LARGEST_CROP = 512  # pixels a side: small networks hardly use more context, and a step stays short
LARGEST_CROP_TEXTURE = 256  # where there is no up, context is near, and a batch of several places learns more
LARGEST_CROP_3D = 128  # voxels a side, if all are equal in mm: a step of more takes a CPU many seconds
LEAST_VOXELS = 2 * LARGEST_CROP_3D**3  # in a batch of volumes: nnU-Net's smallest batch of such crops
SMALLEST_BATCH = 2  # as in nnU-Net: one crop alone makes a step too rough
ONE_SPACING = 1.1  # times between the finest and the coarsest: less, augmentation scales volumes by anyway
CROP_SHARE = 0.9  # of the image: a little less than all, so that crops differ
LARGEST_BEND = 4.0  # pixels: what sections and cells show anyway
BENDS = 60  # of a side: at a 40th of a crop the image begins to fold, and crops are smaller than images
SELDOM = 0.3  # of the crops each change of place is made on, where each takes detail and the scale that prediction has
VOLUMES_SELDOM = "a third of the crops stay as volumes are at prediction, as a change of place takes detail from all it touches"
SCENES_SELDOM = "half of the crops stay as images are at prediction, whose things have the size that their place makes likely"
ALIKE = 0.5  # of the spread inside an image: image means closer than that allow one normalisation for all
FEW_IMAGES = 0.1  # of those with a truth: a class that fewer hold is seldom met, wherever a crop lies in an image
MOST_INDEXED = 2000  # images: to know which hold a class, all masks are read once more, twice in a run
CENTRED_SHARE = 1 / 3  # of the crops, as in nnU-Net: the others keep telling how often classes are


def preprocess_rules(found: Fingerprint) -> tuple[Preprocess, dict[str, str]]:
    """Channels and normalisation, with reasons."""
    kinds = sorted(found.channels)
    channels = 3 if set(kinds) <= {1, 3, 4} and kinds != [1] and kinds != [4] else kinds[-1]
    reasons = {
        "data.preprocess.channels": ", ".join(f"{count} images have {channels}" for channels, count in found.channels.items())
    }
    fixed = set(found.dtypes) == {"uint8"} and found.mean_shift < ALIKE and len(kinds) == 1
    reasons["data.preprocess.normalise"] = (
        f"8-bit images alike in brightness (their means differ by {found.mean_shift:.2f} of the spread inside one)"
        if fixed
        else f"measured on each image: {'/'.join(found.dtypes)} images whose means differ by {found.mean_shift:.2f} of it"
    )
    normalise = Normalise()
    if fixed:
        normalise = Normalise(
            mean=tuple(round(c.mean, 3) for c in found.intensity), std=tuple(round(max(c.std, 1.0), 3) for c in found.intensity)
        )
    spacing_mm, why_spacing = spacing_rules(found)
    return Preprocess(channels=channels, spacing_mm=spacing_mm, normalise=normalise), reasons | why_spacing


def spacing_rules(found: Fingerprint) -> tuple[tuple[float, ...] | None, dict[str, str]]:
    """The spacing (n,) that volumes of several spacings are resampled to, as nnU-Net chooses it; None to leave all as they are.

    Images have none: the sizes of their pixels say how a file was made rather than how large things are.
    """
    path = "data.preprocess.spacing_mm"
    if found.axes != 3 or not found.spacings_mm:
        return None, {}
    spacings = np.array(found.spacings_mm)
    if len(spacings) < found.looked_at:
        return None, {path: f"{found.looked_at - len(spacings)} of {found.looked_at} volumes do not know theirs"}
    spread = float((spacings.max(axis=0) / spacings.min(axis=0)).max())
    if spread < ONE_SPACING:
        return None, {path: f"volumes differ by {spread - 1:.0%} at most, and stay as they are"}
    target, why = target_spacing(spacings, np.array([found.size_median]))
    return tuple(round(float(step), 4) for step in target), {path: f"{why}; volumes differ up to {spread:.2g} times"}


def on_grid(found: Fingerprint, preprocess: Preprocess) -> Fingerprint:
    """The fingerprint of the volumes as they are prepared: at one spacing, where there is one."""
    return found if preprocess.spacing_mm is None else found.at_spacing(preprocess.spacing_mm)


def view_factors(preprocess: Preprocess, found: Fingerprint) -> tuple[float, ...]:
    """The pixels of a view for each of the fingerprint, along each axis."""
    axes = found.axes
    if preprocess.spacing_mm is not None and found.spacing_mm is not None and len(preprocess.spacing_mm) == axes:
        return tuple(has / wants for has, wants in zip(found.spacing_mm, preprocess.spacing_mm, strict=True))
    return preprocess.scale or (1.0,) * axes


def augmentation_rules(found: Fingerprint, channels: int) -> tuple[Augmentation, dict[str, str]]:
    """How images may be changed without changing their meaning, with reasons.

    An axis along which some class lies off the middle has a direction: sky is up. It is not flipped, and images are
    turned by little; where no axis has one, as under a microscope, they are turned all the way. Blur, lower resolution,
    shadows and JPEG, which recipes for days of training have, are left to who asks for them: runs of minutes see few images.
    """
    has_direction = has_up(found)
    flip_axes, reasons = free_axes(found), dict[str, str]()
    reasons["augmentation.geometric.flip_axes"] = (
        "the classes lie off the middle by "
        f"{', '.join(f'{part:.2f}' for part in off_centre(found))} of a side at most; an axis under {CENTRED} has no direction"
    )
    bend_px = round(min(LARGEST_BEND, min(found.size_median) / BENDS), 2)
    if found.axes == 3:
        reasons["augmentation.geometric.scale_probability"] = VOLUMES_SELDOM
        return _of_volumes(flip_axes, bend_px), reasons
    if has_direction:
        rare = {"scale_probability": SELDOM, "rotate_probability": SELDOM}
        geometric = Geometric(scale=(0.7, 1.5), rotate_deg=8.0, flip_axes=flip_axes, **rare)
        reasons["augmentation.geometric.scale_probability"] = SCENES_SELDOM
    else:
        geometric = Geometric(scale=(0.7, 1.5), rotate_deg=180.0, flip_axes=flip_axes, elastic_px=bend_px)
    reasons["augmentation.geometric.rotate_deg"] = "the images have an up" if has_direction else "the images have no up"
    return Augmentation(geometric=geometric, intensity=Intensity(saturation=0.3 if channels == 3 else 0.0)), reasons


def _of_volumes(flip_axes: tuple[int, ...], bend_px: float) -> Augmentation:
    """How volumes are changed: nnU-Net's ranges, and a bend; the three changes of place a little more often than there."""
    return Augmentation(
        geometric=Geometric(
            scale=(0.7, 1.4),
            rotate_deg=30.0,
            flip_axes=flip_axes,
            elastic_px=bend_px,
            scale_probability=SELDOM,
            rotate_probability=SELDOM,
            elastic_probability=SELDOM,
        ),
        intensity=Intensity(
            brightness=0.25,
            contrast=0.25,
            gamma=0.4,
            saturation=0.0,
            noise=0.3,
            brightness_probability=0.15,
            contrast_probability=0.15,
            gamma_probability=0.3,
            inverted_gamma_probability=0.1,
            noise_probability=0.1,
        ),
        blur=GaussianBlur(probability=0.1),
        low_resolution=LowResolution(probability=0.125),
    )


def sampler_rules(found: Fingerprint) -> tuple[Sampler, dict[str, str]]:
    """Crops on the foreground where a class is rare, and images with a class that few hold more often, with the reason."""
    facts = zip(found.class_fractions, found.class_images, found.class_names, strict=True)
    foreground = [(share, images, name) for share, images, name in facts if share > 0 and plain(name) != BACKGROUND]
    if not foreground:
        return Uniform(), {"sampler": "no class but the background was seen"}
    rarest, _, name = min(foreground)
    _, images, scarce = min(foreground, key=lambda each: each[1])
    share = CENTRED_SHARE if rarest < RARE else 0.0
    if images < FEW_IMAGES * found.with_truth and found.count <= MOST_INDEXED:
        reason = f"{scarce!r} is in {images} of {found.with_truth} images, which come more often for it"
        return RepeatFactor(threshold=FEW_IMAGES, share=share), {"sampler": reason}
    reason = f"{name!r} is the rarest class, with {rarest:.2%} of the pixels"
    return ForegroundPatches(share=share) if share else Uniform(), {"sampler": reason}


def crop_for(found: Fingerprint, scale: float, divisors: tuple[int, ...]) -> tuple[int, ...]:
    """The spatial shape of a training crop: nearly the usual image, in multiples of what the network takes.

    Of volumes too large for that it has about as many mm along each axis, as nnU-Net's patches.
    """
    if found.axes == 3:
        steps = [1 / step for step in found.spacing_mm or (1.0,) * found.axes]
        largest = [LARGEST_CROP_3D * step / math.prod(steps) ** (1 / found.axes) for step in steps]
    else:
        largest = [LARGEST_CROP if has_up(found) else LARGEST_CROP_TEXTURE] * found.axes
    usual = [side * scale * CROP_SHARE for side in found.size_median]
    sides = list(map(min, largest, usual))
    return tuple(max(1, round(side / divisor)) * divisor for side, divisor in zip(sides, divisors, strict=True))


def batch_for_volumes(crop: Sequence[int], most: int) -> int:
    """The crops of volumes in a batch: two of the largest, `most` of small ones, which are less of a volume each."""
    return min(max(round(LEAST_VOXELS / math.prod(crop)), SMALLEST_BATCH), most)
