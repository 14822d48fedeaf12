"""What stands out in the fingerprint of a data set: good to know, and no disease."""

from segwright.data.fingerprint import Fingerprint
from segwright.inspection.finding import Finding, listed, plural

RARE = 0.001  # of the pixels: of such a class a batch of crops often holds nothing
SELDOM = 0.05  # of the images
FEW_IMAGES = 30  # below, the interval of a score on a sixth of them (5 images) is wider than most improvements
MUCH_VOID = 0.2
SHIFT = 1.0  # spread of the image means over the spread inside an image, see data.fingerprint
SPECK = 4  # pixels
SQUASHED = 2.0  # longest over shortest side of a voxel


def about_images(found: Fingerprint) -> list[Finding]:
    """Notes on number, brightness and the shape of pixels."""
    notes = []
    if found.count < FEW_IMAGES:
        remedy = "Read the intervals of scores, and compare on all samples in turn."
        evidence = f"Only {plural(found.count, 'image')}: scores will be uncertain."
        notes.append(Finding("few-samples", "note", evidence, remedy, {"images": found.count}))
    if found.mean_shift > SHIFT:
        evidence = f"Brightness differs between images by {found.mean_shift:.1f} times the contrast inside one."
        remedy = "Normalise each image by its own values, as plans then do."
        notes.append(Finding("brightness-shift", "note", evidence, remedy, {"shift": found.mean_shift}))
    spacing = found.spacing_mm
    if spacing is not None and max(spacing) > SQUASHED * min(spacing):
        times = max(spacing) / min(spacing)
        evidence = f"Pixels are {times:.1f} times as long along one axis as along another."
        remedy = "Look at predictions in millimetres; scores with distances take the spacing into account."
        notes.append(Finding("squashed-pixels", "note", evidence, remedy, {"spacing_mm": list(spacing)}))
    return notes


def about_masks(found: Fingerprint) -> list[Finding]:
    """Notes on rare and ragged classes and on void."""
    if not found.with_truth:
        return []
    names, shares, images = found.class_names, found.class_fractions, found.class_images
    present = [k for k in range(len(names)) if images[k]]
    rare = {names[k]: shares[k] for k in present if shares[k] < RARE}
    seldom = {names[k]: images[k] for k in present if images[k] < SELDOM * found.with_truth}
    ragged = [names[k] for k in present if 0 < found.objects[k].area_median <= SPECK]
    notes = []
    if rare:
        shown = listed([f"{name} ({100 * share:.2g} %)" for name, share in rare.items()])
        evidence = f"Under {100 * RARE:g} % of the pixels: {shown}."
        notes.append(Finding("rare-classes", "note", evidence, "Expect low and uncertain scores there.", {"shares": rare}))
    if seldom:
        shown = listed([f"{name} ({number} of {found.with_truth})" for name, number in seldom.items()])
        remedy = "Check that training and validation both have some."
        notes.append(Finding("seldom-classes", "note", f"In few of the images: {shown}.", remedy, {"images": seldom}))
    if found.void_fraction > MUCH_VOID:
        evidence = f"{100 * found.void_fraction:.0f} % of the pixels are void."
        remedy = "Nothing is learned or measured there: check that this is meant."
        notes.append(Finding("much-void", "note", evidence, remedy, {"share": found.void_fraction}))
    if ragged:
        evidence = f"Half of the pieces of {listed(ragged)} are specks of at most {SPECK} pixels."
        remedy = "Check how these masks were drawn, and whether they were resized as pictures."
        notes.append(Finding("ragged-masks", "note", evidence, remedy, {"classes": ragged}))
    return notes
