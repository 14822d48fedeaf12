"""What the images tell that a reader cannot: files that fail, sizes that differ, types, channels and ranges that are mixed."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

from segwright.codecs.image_file import TIFF_SUFFIXES
from segwright.codecs.tiff_image import told_axes
from segwright.inspection.finding import Finding, Fix, listed, plural, some
from segwright.inspection.sample_scan import Failure, SampleScan, fits

ORDERS = 100.0  # times between the largest values of two images, two orders of magnitude: no fixed scale serves both
ASKS = ("write axes =", "write them as axes =")  # what the reader of stacks says that cannot tell slices from channels
APART, OTHER_SIZE = "voxels apart in the world", "export the mask again"  # what formats say of volumes and their masks
NO_ALPHA = (
    """python -c "import tifffile; t = tifffile.TiffFile('FILE.tif', mode='r+'); t.pages[0].tags[338].overwrite(0); """
    """t.close()\""""
)
ON_BLACK = (
    """python -c "from PIL import Image; i = Image.open('FILE.png').convert('RGBA'); """
    """Image.alpha_composite(Image.new('RGBA', i.size, 'black'), i).convert('RGB').save('FILE.png')\""""
)
BETTER = 1.3  # times stronger edges in the picture under the borders of a turned mask; by chance it is within 1.1


def about_failures(failures: Sequence[Failure]) -> list[Finding]:
    """Samples that cannot be read, and volumes whose mask lies elsewhere."""
    apart = [failure for failure in failures if APART in failure.message]
    sizes = [failure for failure in failures if OTHER_SIZE in failure.message and failure not in apart]
    asked = [failure for failure in failures if any(one in failure.message for one in ASKS)]
    rest = [failure for failure in failures if failure not in apart and failure not in sizes and failure not in asked]
    findings = []
    if asked:
        keys = tuple(failure.key for failure in asked)
        evidence = f"{plural(len(keys), 'sample')} cannot be read ({some(keys)}): {asked[0].message}"
        findings.append(Finding("stack-without-axes", "error", evidence, "Follow the message.", {"samples": len(keys)}, keys))
    for name, group, what, remedy in (
        ("unreadable", rest, "cannot be read", "Copy or export these files again"),
        ("affine-mismatch", apart, "have a mask that lies elsewhere", "Export these masks again on the grid of their images"),
        ("size-mismatch", sizes, "have a mask of another size", "Export these masks again on the grid of their images"),
    ):
        if group:
            keys = tuple(failure.key for failure in group)
            findings.append(
                Finding(
                    name,
                    "error",
                    f"{plural(len(keys), 'sample')} {what} ({some(keys)}): {group[0].message}",
                    f"{remedy}, or leave them out by drop in dataset.toml.",
                    {"samples": len(keys), "messages": {failure.key: failure.message for failure in group}},
                    keys,
                    Fix(drop=keys),
                )
            )
    return findings


def about_absent(looks: Sequence[SampleScan]) -> list[Finding]:
    """Samples that have a truth and no image."""
    keys = tuple(look.key for look in looks if not look.channels)
    if not keys:
        return []
    evidence = f"{len(keys)} of {plural(len(looks), 'sample')} have a truth and no image ({some(keys)})."
    remedy = "Nothing can be learned from them: add the images under exactly the names that their annotations have."
    return [Finding("no-images", "warning", evidence, remedy, {"samples": len(keys)}, keys)]


def about_sizes(looks: Sequence[SampleScan], images: Mapping[str, Path | None]) -> list[Finding]:
    """Masks of another size than their image, and masks that were not turned with it."""
    wrong = [look for look in looks if not fits(look, images.get(look.key))]
    findings = []
    if wrong:
        first, keys = wrong[0], tuple(look.key for look in wrong)
        mask = "" if first.mask is None else " x ".join(map(str, first.mask.shape))
        evidence = f"{plural(len(keys), 'mask')} differ in size from the image ({some(keys)}): that of {first.key} is "
        evidence += f"{mask}, the image {' x '.join(map(str, first.shape))} (rows x columns)."
        sizes = {
            look.key: {"image": list(look.shape), "mask": list(look.mask.shape)} for look in wrong if look.mask is not None
        }
        remedy = "Export the masks again at the size of the images, or leave these out by drop in dataset.toml."
        findings.append(Finding("size-mismatch", "error", evidence, remedy, {"sizes": sizes}, keys, Fix(drop=keys)))
    turned = [look for look in looks if look.mask is not None and look.mask.shape != look.shape and look not in wrong]
    doubtful = [look for look in looks if look.turned > BETTER]
    if turned or doubtful:
        keys = tuple(look.key for look in (*turned, *doubtful))
        said = [f"{plural(len(turned), 'mask')} have the size before the turn, and are turned when read"] if turned else []
        if doubtful:
            times = max(look.turned for look in doubtful)
            said.append(
                f"{plural(len(doubtful), 'mask')} fit the picture up to {times:.1f} times better when turned, but are not"
            )
        findings.append(
            Finding(
                "exif-not-applied",
                "warning" if doubtful else "note",
                f"{len(keys)} images are turned by their EXIF orientation ({some(keys)}): {'; '.join(said)}.",
                "Turn those masks as the images are shown, or leave them out by drop in dataset.toml."
                if doubtful
                else "Nothing has to be done.",
                {"turned_when_read": len(turned), "left_as_they_are": len(doubtful)},
                keys,
                Fix(drop=tuple(look.key for look in doubtful)) if doubtful else None,
            )
        )
    return findings


def about_stacks(looks: Sequence[SampleScan], images: Mapping[str, Path | None]) -> list[Finding]:
    """Stacks whose axes have no names, and which are read as volumes because their masks are such."""
    told = {
        look.key: names
        for look in looks
        if len(look.shape) == 3 and (image := images.get(look.key)) is not None and image.suffix.lower() in TIFF_SUFFIXES
        if (names := told_axes(image, look.shape)) is not None
    }
    if not told:
        return []
    keys, names = tuple(told), Counter(told.values()).most_common(1)[0][0]
    evidence = f"{plural(len(keys), 'image')} are stacks whose axes have no names ({some(keys)}): they are read as {names}, as"
    evidence += " their masks are volumes."
    remedy = f'Say axes = "{names}" in dataset.toml: then images without masks are read so, too.'
    return [Finding("stack-without-axes", "note", evidence, remedy, {"images": len(keys)}, keys, Fix(axes=names))]


def about_alpha(looks: Sequence[SampleScan]) -> list[Finding]:
    """A note on alpha channels that are left out though they tell something, and a warning of those of masks."""
    masks = [(look.key, look.mask.num_hidden) for look in looks if look.mask is not None and look.mask.num_hidden]
    return [*_alpha([look for look in looks if look.transparent], len(looks)), *_alpha_of_masks(dict(masks))]


def _alpha_of_masks(hidden: Mapping[str, int]) -> list[Finding]:
    if not hidden:
        return []
    return [
        Finding(
            "transparent-masks",
            "warning",
            f"In {plural(len(hidden), 'mask')} ({some([*hidden])}), alpha hides {sum(hidden.values())} pixels that are not "
            "black underneath: alpha is left out, and they are read as what stands there.",
            f"Where they are background, save the masks without alpha, on black: {ON_BLACK}",
            {"masks": len(hidden), "pixels": sum(hidden.values())},
            tuple(hidden),
        )
    ]


def _alpha(found: Sequence[SampleScan], count: int) -> list[Finding]:
    if not found:
        return []
    share = sum(look.transparent for look in found) / sum(prod(look.shape) for look in found)
    keys = tuple(look.key for look in found)
    return [
        Finding(
            "transparent",
            "note",
            f"{len(found)} of {plural(count, 'image')} ({some(keys)}) have an alpha channel by which {100 * share:.3g} % of "
            "their pixels are transparent or half so: it is left out, and the colours are read, also where nothing is seen.",
            "Nothing has to be done where it is alpha. Where it is a band, such as near infrared, save the images as TIFF and "
            f"say there that it is no alpha: {NO_ALPHA}",
            {"images": len(found), "share": share},
            keys,
        )
    ]


def about_values(looks: Sequence[SampleScan]) -> list[Finding]:
    """Types, channels and ranges that differ from image to image."""
    findings = []
    whole = [look for look in looks if not look.missing]  # with holes, integers become float
    for name, what, seen, kinds, remedy in (
        (
            "mixed-bit-depths",
            "in different types",
            whole,
            [look.dtype for look in whole],
            "Check that their values mean the same, and normalise each image by its own values, as plans do by default.",
        ),
        (
            "mixed-channels",
            "with different numbers of channels",
            looks,
            [str(look.channels) for look in looks],
            "All are brought to the number of channels of the plan: grey is repeated, colour averaged. Check that they"
            " show the same.",
        ),
    ):
        counted = Counter(kinds)
        if len(counted) > 1:
            said = listed(
                [
                    f"{number} as {kind}" if "types" in what else f"{number} with {kind}"
                    for kind, number in counted.most_common()
                ]
            )
            rarest = counted.most_common()[-1][0]
            keys = tuple(look.key for look, kind in zip(seen, kinds, strict=True) if kind == rarest)
            findings.append(
                Finding(
                    name,
                    "warning",
                    f"Images are stored {what}: {said} (the rarest: {some(keys)}).",
                    remedy,
                    {"images": dict(counted)},
                    keys,
                )
            )
    return findings + _scales(looks)


def _scales(looks: Sequence[SampleScan]) -> list[Finding]:
    """Ranges are compared inside one type: between types they differ by nature. 8 bits have room for few orders."""
    groups: dict[str, list[SampleScan]] = defaultdict(list)
    for look in looks:
        if look.scale > 0 and look.dtype != "uint8":
            groups[look.dtype].append(look)
    for dtype, group in groups.items():
        ordered = sorted(group, key=lambda look: look.scale)
        low, high = ordered[0], ordered[-1]
        if high.scale >= ORDERS * low.scale:
            middle = ordered[len(ordered) // 2].scale
            return [
                Finding(
                    "intensity-scales",
                    "warning",
                    f"Largest values of {len(group)} {dtype} images: from {low.scale:.4g} ({low.key}) over {middle:.4g} to "
                    f"{high.scale:.4g} ({high.key}), {high.scale / low.scale:,.0f} times as much.",
                    "Normalise each image by its own mean and spread, as plans do by default; one fixed range would lose most.",
                    {"lowest": low.scale, "median": middle, "highest": high.scale},
                    (low.key, high.key),
                )
            ]
    return []
