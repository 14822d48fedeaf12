"""What stands out in a data set, in plain words."""

from collections.abc import Sequence

from segwright.planning.fingerprint import Fingerprint

RARE = 0.001  # of the pixels: of such a class a batch of crops often holds nothing
SELDOM = 0.05  # of the images
DOMINANT = 0.95  # of the pixels: the answer "this class everywhere" then looks good by pixel accuracy
FEW_IMAGES = 30  # below, the interval of a score on a sixth of them (5 images) is wider than most improvements
MUCH_VOID = 0.2
SHIFT = 1.0  # spread of the image means over the spread inside an image, see planning.fingerprint
SPECK = 4  # pixels
SQUASHED = 2.0  # longest over shortest side of a voxel
MAX_NAMES = 6  # names in one sentence


def findings(found: Fingerprint) -> list[tuple[bool, str]]:
    """Sentences on what a `planning.fingerprint.Fingerprint` shows, each with True where it asks for care."""
    notes = [*about_images(found), *(about_classes(found) if found.with_truth else [])]
    return notes or [(False, "Nothing unusual: one size, one kind of image, every class present and frequent enough.")]


def about_images(found: Fingerprint) -> list[tuple[bool, str]]:
    """Sentences on number, size, channels, types and brightness."""
    notes: list[tuple[bool, str]] = []
    if found.count < FEW_IMAGES:
        notes.append((True, f"Only {plural(found.count, 'image')}: scores will be uncertain; read their intervals."))
    missing = found.looked_at - found.with_truth
    if missing:
        notes.append((True, f"{missing} of the {found.looked_at} images looked at have no mask; they cannot be learned from."))
    if found.size_count > 1:
        small, large = size_text(found.size_min), size_text(found.size_max)
        text = f"{found.size_count} sizes, sides from {small} to {large}, most often {size_text(found.size_common)}."
        notes.append((False, text))
    if len(found.channels) > 1:
        kinds = " and ".join(f"{plural(number, 'image')} with {channels}" for channels, number in found.channels.items())
        notes.append((True, f"The number of channels differs: {kinds}. All are brought to one number before the network."))
    if len(found.dtypes) > 1:
        kinds = " and ".join(f"{number} as {dtype}" for dtype, number in found.dtypes.items())
        notes.append((True, f"Pixels are stored in different types ({kinds}): check that their values mean the same."))
    if found.mean_shift > SHIFT:
        times = f"{found.mean_shift:.1f} times the contrast inside one"
        notes.append((True, f"Brightness differs between images by {times}: normalise each image by its own values."))
    spacing = found.spacing_mm
    if spacing is not None and max(spacing) > SQUASHED * min(spacing):
        notes.append((True, f"Pixels are {max(spacing) / min(spacing):.1f} times as long along one axis as along another."))
    return notes


def about_classes(found: Fingerprint) -> list[tuple[bool, str]]:
    """Sentences on absent, rare, dominant and ragged classes, on void and on instances."""
    names, shares, images = found.class_names, found.class_fractions, found.class_images
    present = [k for k in range(len(names)) if images[k]]
    absent = [names[k] for k in range(len(names)) if not images[k]]
    rare = [f"{names[k]} ({100 * shares[k]:.2g} %)" for k in present if shares[k] < RARE]
    seldom = [f"{names[k]} ({images[k]} of {found.with_truth})" for k in present if images[k] < SELDOM * found.with_truth]
    ragged = [names[k] for k in present if 0 < found.objects[k].area_median <= SPECK]
    notes: list[tuple[bool, str]] = []
    if absent:
        notes.append((True, f"Not one pixel of {listed(absent)}: a model can neither learn nor be measured on that."))
    if rare:
        notes.append((True, f"Under {100 * RARE:g} % of the pixels: {listed(rare)}. Expect low and uncertain scores there."))
    if seldom:
        notes.append((True, f"In few of the images: {listed(seldom)}. Check that training and validation both have some."))
    for k in present:
        if shares[k] > DOMINANT:
            text = (
                f"{names[k]} covers {100 * shares[k]:.1f} % of the pixels: pixel accuracy says little here, IoU and Dice more."
            )
            notes.append((True, text))
    if found.void_fraction > MUCH_VOID:
        text = f"{100 * found.void_fraction:.0f} % of the pixels are void: nothing is learned or measured there."
        notes.append((True, text))
    if ragged:
        notes.append(
            (True, f"Half of the pieces of {listed(ragged)} are specks of at most {SPECK} pixels: the masks are ragged there.")
        )
    if found.has_instances:
        notes.append((False, "The masks tell objects of one class apart, even where they touch."))
    return notes


def listed(names: Sequence[str]) -> str:
    """Names in a sentence, with a count of those that do not fit."""
    shown = [*names[:MAX_NAMES], f"{len(names) - MAX_NAMES} more"] if len(names) > MAX_NAMES else list(names)
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def plural(count: int, noun: str) -> str:
    """A number with its noun."""
    return f"{count} {noun if count == 1 else noun + ('es' if noun.endswith('s') else 's')}"


def size_text(size: Sequence[int]) -> str:
    """A spatial shape as people write it, height first as everywhere in arrays."""
    return " × ".join(map(str, size))
