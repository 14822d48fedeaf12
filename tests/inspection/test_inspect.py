"""A zoo of broken data sets: each disease by its name and by no other, and after its remedy no longer."""

import json
import shutil

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from segwright.codecs.image_file import read_mask
from segwright.codecs.image_writer import write_values
from segwright.core.errors import FormatError
from segwright.data.splits import open_splits
from segwright.formats import coco, mask_folder, open_dataset, readers, synthetic
from segwright.inspection.finding import MEANING
from segwright.inspection.fixes import write_config
from segwright.inspection.inspect import inspect

RED_ON_BLACK = [[0, 0, 0], [0, 0, 0], [255, 0, 0]]  # of the numbers 0, 1, 2
PALETTE = np.array([[10, 20, 30], [200, 0, 0], [0, 90, 250]], np.uint8)


def paint(mask):
    return PALETTE[mask]


def save_colors(patient):
    for _, path in patient.pairs():
        with Image.open(path) as picture:
            mask = np.array(picture)
        Image.fromarray(paint(mask)).save(path)


def turn(image_path, orientation):
    """The picture as a camera on its side stores it: pixels turned, and EXIF says so."""
    with Image.open(image_path) as picture:
        upright = picture.copy()
    exif = Image.Exif()
    exif[274] = orientation
    stored = upright.transpose({3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation])
    stored.save(image_path, exif=exif)
    return stored


def ade(patient):
    """0 along all borders of classes, the classes 1, 2 and 3."""

    def change(mask):
        is_edge = np.zeros(mask.shape, bool)
        is_edge[1:] |= mask[1:] != mask[:-1]
        is_edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
        return np.where(is_edge, 0, mask + 1).astype(np.uint8)

    patient.each_mask(change)


def masks_0_255(patient):
    patient.name(["sky", "car"])
    patient.each_mask(lambda mask: np.where(mask == 2, 255, 0).astype(np.uint8))


def masks_0_255_unnamed(patient):
    patient.name(None)
    patient.each_mask(lambda mask: np.where(mask == 2, 255, 0).astype(np.uint8))


def masks_0_255_ignored(patient):
    masks_0_255(patient)
    patient.name({"classes": ["sky", "car"], "ignore_index": 255})


def zero_unnamed(patient):
    patient.name(None)
    ade(patient)
    patient.each_mask(lambda mask: np.where((mask == 3) & (np.arange(64) % 40 > 20), 4, mask).astype(np.uint8))


def off_by_one(patient):
    patient.each_mask(lambda mask: mask + np.uint8(1))


def off_by_one_unnamed(patient):
    patient.name(None)
    off_by_one(patient)


def off_by_one_ignored(patient):
    patient.name({"classes": ["sky", "road", "car"], "ignore_index": 0})
    off_by_one(patient)


def ignore_inside(patient):
    patient.name({"classes": ["sky", "road", "car"], "ignore_index": 1})


def without_class(patient):
    patient.put(4, mask=np.where(patient.mask(4) == 2, 77, patient.mask(4)).astype(np.uint8))


def two_without_class(patient):
    patient.name({"classes": ["sky", "road", "car"], "ignore_index": 255, "palette": PALETTE.tolist()})
    number = np.array([77, 78, 2, 2])[np.arange(64) // 4 % 4]
    patient.each_mask(lambda mask: np.where(mask == 2, number, mask).astype(np.uint8))


def forgotten_void(patient):
    """As CamVid without its ignore_index: the number after the last class is thin and lies everywhere."""
    ade(patient)
    patient.each_mask(lambda mask: np.where(mask == 0, 3, mask - 1).astype(np.uint8))


def scattered(patient):
    patient.each_mask(lambda mask: mask * np.uint8(60) + np.uint8(5))


def scattered_unnamed(patient):
    patient.name(None)
    scattered(patient)


def never_seen(patient):
    patient.name({"classes": ["sky", "road", "car", "boat"], "palette": [*PALETTE.tolist(), [9, 9, 9]]})


def absent(patient):
    for index, (image, mask) in enumerate(patient.pairs()):
        if image.parent.parent.name == "val":
            write_values(mask, np.minimum(patient.mask(index), 1).astype(np.uint8))


def empty(patient):
    patient.name(["background", "road", "car"])
    patient.put(3, mask=np.zeros((48, 64), np.uint8))


def all_void(patient):
    patient.name({"classes": ["sky", "road", "car"], "ignore_index": 255})
    patient.put(3, mask=np.full((48, 64), 255, np.uint8))


def tiny(patient):
    patient.name(["background", "car"])
    for index in range(len(patient.pairs())):
        mask = np.zeros((48, 64), np.uint8)
        mask[index, index : index + 4] = 1
        patient.put(index, mask=mask)


def dominant(patient):
    tiny(patient)
    patient.name(["road", "car"])


def size_mismatch(patient):
    patient.put(2, mask=np.zeros((24, 32), np.uint8))


def turned_sizes(patient):
    turn(patient.pairs()[5][0], 6)
    mask = patient.pairs()[5][1]
    write_values(mask, np.ascontiguousarray(np.rot90(patient.mask(5))))


def turned_unseen(patient):
    image, mask = patient.pairs()[5]
    turn(image, 3)
    write_values(mask, np.ascontiguousarray(patient.mask(5)[::-1, ::-1]))


def unreadable_image(patient):
    path = patient.pairs()[7][0]
    path.write_bytes(path.read_bytes()[:200])


def unreadable_mask(patient):
    path = patient.pairs()[7][1]
    path.write_bytes(b"no picture")


def nothing_in_it(patient):
    patient.pairs()[7][0].write_bytes(b"")


def no_mask(patient):
    patient.pairs()[1][1].unlink()


def no_image(patient):
    patient.pairs()[1][0].unlink()


def depths(patient):
    patient.put(6, image=patient.image(6).astype(np.uint16) * 257)


def channels(patient):
    patient.put(6, image=patient.image(6)[:1])


def scales(patient):
    for index in range(len(patient.pairs())):
        image = patient.image(index).astype(np.float32) / 3
        patient.put(index, image=image * np.float32(4000 if index == 4 else 1))


def heights(patient, number=None):
    """Every image as float heights, with a strip of a number along one side of some."""
    for index in range(len(patient.pairs())):
        image = patient.image(index).astype(np.float32) / 8 + 300
        if number is not None and index % 3 < 2:
            image[:, :, : 6 + index % 4] = number
        patient.put(index, image=image)


def holes(patient):
    heights(patient, np.nan)


def infinite(patient):
    heights(patient, np.inf)


def undeclared(patient):
    heights(patient, -9999)


def undeclared_in_one(patient):
    heights(patient)
    image = patient.image(3)
    image[:, :9] = -3.4028234663852886e38
    patient.put(3, image=image)


def zero_nodata(patient):
    for _, mask in patient.pairs():
        tag = (42113, "s", 0, "0", True)
        tifffile.imwrite(mask.with_suffix(".tif"), read_mask(mask), photometric="minisblack", extratags=[tag])
        mask.unlink()


def twice(patient):
    patient.put(8, image=patient.image(2))


def twice_across(patient):
    patient.put(33, image=patient.image(2), mask=patient.mask(2))


def nearly_across(patient):
    rng = np.random.default_rng(5)
    patient.put(33, image=np.clip(patient.image(2) * 0.8 + 20 + rng.integers(-4, 5, (3, 48, 64)), 0, 255).astype(np.uint8))


def nearly(patient):
    patient.put(8, image=np.clip(patient.image(2).astype(int) + 9, 0, 255).astype(np.uint8))


def large(seed, shape=(200, 200)):
    """Soft spots, as of cells, so that neighbouring lines of pixels are alike."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    picture = np.zeros(shape)
    for _ in range(shape[0] * shape[1] // 80):
        row, column, size = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(2.5, 6)
        picture += rng.uniform(50, 120) * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * size**2))
    return np.clip(picture, 0, 255).astype(np.uint8)[None].repeat(3, axis=0)


def cut(patient, picture, places, corners):
    for place, (row, column) in zip(places, corners, strict=True):
        tile = picture[:, row : row + 100, column : column + 100]
        patient.put(place, image=tile, mask=(tile[0] > 128).astype(np.uint8) + np.uint8(place % 2))


def tiles_across(patient):
    cut(patient, large(0), (1, 3, 31, 33), ((0, 0), (0, 100), (100, 0), (100, 100)))


def tiles(patient):
    cut(patient, large(1), (1, 3), ((0, 0), (0, 100)))


def persons(patient, across):
    for index, (image, mask) in enumerate(patient.pairs()):
        in_val = image.parent.parent.name == "val"
        person = index % 5 if across else index // 3 + (100 if in_val else 0)
        for path in (image, mask):
            path.rename(path.with_name(f"p{person:03}_scan{index:02}{path.suffix}"))


def persons_across(patient):
    persons(patient, across=True)


def persons_within(patient):
    persons(patient, across=False)


def clip(patient):
    """Two drives, of which the second goes on in val; every frame is the one before, a little farther."""
    for index, (image, mask) in enumerate(patient.pairs()):
        drive = 1 if index < 12 else 2
        large_picture = large(10 * drive, (48, 128))
        frame = large_picture[:, :48, 2 * (index % 26) : 2 * (index % 26) + 64]
        patient.put(index, image=np.ascontiguousarray(frame))
        for path in (image, mask):
            path.rename(path.with_name(f"drive{drive}_{100 + index}{path.suffix}"))


def is_car(mask):
    return (mask == 2).astype(np.uint8)


def smooth(greys):
    """How masks of these greys for the numbers 0, 1, 2 look after smoothing."""
    return lambda mask: cv2.GaussianBlur(np.array(greys, np.uint8)[mask], (5, 5), 1)


def smoothed(patient):
    patient.name(None)
    patient.each_mask(smooth([0, 0, 255]))


def smoothed_named(patient):
    patient.name({"classes": ["ground", "car"], "ignore_index": 255})
    patient.each_mask(smooth([0, 0, 255]))


def smoothed_16_bit(patient):
    patient.name(None)
    patient.each_mask(lambda mask: smooth([0, 0, 255])(mask).astype(np.uint16) * 257)


def smoothed_three(patient):
    patient.name(None)
    patient.each_mask(smooth([0, 100, 200]))


def smoothed_in_doubt(patient):
    """255 may be a class or void."""
    patient.name(None)
    patient.each_mask(smooth([0, 100, 255]))


def few_of_254(patient):
    patient.name(None)
    patient.each_mask(lambda mask: is_car(mask) * np.uint8(255))
    for index in range(3):
        mask = patient.mask(index)
        rows, columns = np.nonzero(mask)
        mask[rows[:3], columns[:3]] = 254
        patient.put(index, mask=mask)


def in_colors(patient, colors, change, suffix, **options):
    """The masks as pictures in these colours for the numbers 0, 1, 2."""
    for index, (_, path) in enumerate(patient.pairs()):
        picture = change(np.array(colors, np.uint8)[patient.mask(index)])
        path.unlink()
        Image.fromarray(picture).save(path.with_suffix(suffix), **options)


def as_jpeg(patient):
    patient.name(None)
    in_colors(patient, [0, 0, 255], np.array, ".jpg", quality=10)


def as_jpeg_named(patient):
    patient.name(["ground", "car"])
    in_colors(patient, [0, 0, 255], np.array, ".jpg")


def jpeg_called_png(patient):
    patient.name(None)
    in_colors(patient, [0, 0, 255], np.array, ".png", format="JPEG")


def as_webp(patient):
    patient.name(None)
    in_colors(patient, [[0] * 3, [0] * 3, [255] * 3], np.array, ".webp", quality=60)


def jpeg_of_three(patient):
    patient.name(None)
    in_colors(patient, [0, 120, 240], np.array, ".jpg", quality=95)


def jpeg_of_colors(patient):
    patient.name(None)
    in_colors(patient, RED_ON_BLACK, np.array, ".jpg", quality=90)


def jpeg_of_a_palette(patient):
    patient.name({"classes": ["ground", "car"], "palette": RED_ON_BLACK[1:]})
    in_colors(patient, RED_ON_BLACK, np.array, ".jpg", quality=90)


def blurred_colors(patient):
    patient.name(None)
    in_colors(patient, RED_ON_BLACK, lambda picture: cv2.GaussianBlur(picture, (5, 5), 1), ".png")


def blurred_palette(patient):
    patient.name({"classes": ["ground", "car"], "palette": RED_ON_BLACK[1:]})
    in_colors(patient, RED_ON_BLACK, lambda picture: cv2.GaussianBlur(picture, (5, 5), 1), ".png")


def save_indices(path, indices, palette, **options):
    picture = Image.fromarray(indices)
    picture.putpalette(np.array(palette, np.uint8).tobytes())
    picture.save(path, **options)


def white_first(patient):
    patient.name(None)
    for index, (_, path) in enumerate(patient.pairs()):
        save_indices(path, 1 - is_car(patient.mask(index)), [[255] * 3, [0] * 3])


def white_first_in_some(patient):
    patient.name(None)
    for index, (_, path) in enumerate(patient.pairs()):
        mask = is_car(patient.mask(index))
        path.unlink()
        indices, palette = (1 - mask, [[255] * 3, [0] * 3]) if index == 4 else (mask, [[0] * 3, [255] * 3])
        save_indices(path.with_suffix(".gif"), indices, palette)


def red_first(patient):
    patient.name(None)
    for index, (_, path) in enumerate(patient.pairs()):
        save_indices(path, 1 - is_car(patient.mask(index)), [[255, 0, 0], [0] * 3])


def palettes_differ(patient):
    patient.name(None)
    for index, (_, path) in enumerate(patient.pairs()):
        order = [0, 2, 1] if index % 3 else [0, 1, 2]
        save_indices(path, np.array(order, np.uint8)[patient.mask(index)], PALETTE[order])


def ones_and_255(patient):
    patient.name(None)
    for index in range(len(patient.pairs())):
        patient.put(index, mask=is_car(patient.mask(index)) * np.uint8(255 if index % 3 else 1))


def greys_and_255(patient):
    patient.name(None)
    patient.each_mask(lambda mask: np.array([0, 100, 255], np.uint8)[mask])


def spread_greys(patient):
    patient.name(None)
    patient.each_mask(lambda mask: np.array([0, 128, 255], np.uint8)[mask])


def gap(patient):
    patient.name(None)
    patient.each_mask(lambda mask: np.where((mask == 1) & (np.arange(64) > 40), 4, mask).astype(np.uint8))


def none_readable(patient):
    for _, path in patient.pairs():
        path.write_bytes(b"no picture")


def none_fits(patient):
    for index in range(len(patient.pairs())):
        patient.put(index, mask=np.zeros((24, 32), np.uint8))


def annotated(patient, step, **change):
    """The set as COCO's, in which each annotation after so many is changed: a value under a key, or a function of it."""
    if (patient.root / "train").is_dir():
        drawn = patient.root.with_name("drawn")
        coco.write(drawn, open_dataset(patient.root))
        shutil.rmtree(patient.root)
        drawn.rename(patient.root)
    for path in (patient.root / "annotations").iterdir():
        content = json.loads(path.read_text())
        for entry in content["annotations"][::step]:
            entry |= {key: value(entry) if callable(value) else value for key, value in change.items()}
        path.write_text(json.dumps(content))


def larger(patient):
    """Polygons of images five times the size."""
    annotated(patient, 1, segmentation=lambda entry: moved(entry, 5, 60))


def some_outside(patient):
    annotated(patient, 5, segmentation=lambda entry: moved(entry, 1, -200))


def boxes_alone(patient):
    annotated(patient, 5, segmentation=[])


def unlisted(patient):
    annotated(patient, 2, category_id=99)


def moved(entry, times, by):
    """The polygon of the box of an annotation, which is drawn elsewhere."""
    left, top, width, height = entry["bbox"]
    corners = ((left, top), (left + width, top), (left + width, top + height), (left, top + height))
    return [[times * value + by for corner in corners for value in corner]]


def all_empty(patient):
    patient.name(["background", "road", "car"])
    patient.each_mask(np.zeros_like)


GOES, STAYS = "goes", "stays"
ZOO = [
    (smoothed, "smoothed-masks", "warning", GOES),
    (smoothed_named, "smoothed-masks", "error", GOES),
    (smoothed_16_bit, "smoothed-masks", "warning", GOES),
    (smoothed_three, "smoothed-masks", "warning", GOES),
    (smoothed_in_doubt, "smoothed-masks", "error", GOES),
    (few_of_254, "smoothed-masks", "warning", GOES),
    (as_jpeg, "smoothed-masks", "note", GOES),
    (as_jpeg_named, "smoothed-masks", "note", GOES),
    (jpeg_called_png, "smoothed-masks", "note", GOES),
    (as_webp, "smoothed-masks", "note", GOES),
    (jpeg_of_a_palette, "smoothed-masks", "note", GOES),
    (jpeg_of_colors, "rgb-masks", "error", GOES),
    (blurred_colors, "rgb-masks", "error", GOES),
    (blurred_palette, "smoothed-masks", "error", GOES),
    (white_first, "palette-order", "note", STAYS),
    (white_first_in_some, "palette-order", "note", STAYS),
    (red_first, "mixed-palettes", "error", GOES),
    (palettes_differ, "mixed-palettes", "error", GOES),
    (ones_and_255, "mixed-foregrounds", "error", GOES),
    (greys_and_255, "void-or-class", "error", GOES),
    (spread_greys, "scattered-numbers", "warning", GOES),
    (gap, "class-never-seen", "warning", GOES),
    (masks_0_255, "masks-0-255", "error", GOES),
    (masks_0_255_ignored, "masks-0-255", "error", GOES),
    (masks_0_255_unnamed, "masks-0-255", "note", GOES),
    (save_colors, "rgb-masks", "error", GOES),
    (ade, "zero-is-void", "error", GOES),
    (zero_unnamed, "zero-is-void", "warning", GOES),
    (ignore_inside, "ignore-inside", "warning", GOES),
    (off_by_one, "off-by-one", "error", GOES),
    (off_by_one_unnamed, "off-by-one", "warning", GOES),
    (off_by_one_ignored, "off-by-one", "error", GOES),
    (without_class, "number-without-class", "error", GOES),
    (two_without_class, "number-without-class", "error", GOES),
    (forgotten_void, "number-without-class", "error", GOES),
    (scattered, "scattered-numbers", "error", GOES),
    (scattered_unnamed, "scattered-numbers", "warning", GOES),
    (never_seen, "class-never-seen", "warning", GOES),
    (absent, "class-absent-from-split", "warning", STAYS),
    (empty, "empty-masks", "warning", STAYS),
    (all_void, "empty-masks", "warning", GOES),
    (tiny, "tiny-foreground", "warning", STAYS),
    (dominant, "dominant-class", "warning", STAYS),
    (size_mismatch, "size-mismatch", "error", GOES),
    (turned_sizes, "exif-not-applied", "note", STAYS),
    (turned_unseen, "exif-not-applied", "warning", GOES),
    (unreadable_image, "unreadable", "error", GOES),
    (unreadable_mask, "unreadable", "error", GOES),
    (nothing_in_it, "unreadable", "error", GOES),
    (no_mask, "missing-partner", "error", GOES),
    (no_image, "missing-partner", "error", GOES),
    (depths, "mixed-bit-depths", "warning", STAYS),
    (channels, "mixed-channels", "warning", STAYS),
    (scales, "intensity-scales", "warning", STAYS),
    (holes, "missing-values", "note", STAYS),
    (infinite, "missing-values", "note", STAYS),
    (zero_nodata, "zero-is-nodata", "note", STAYS),
    (undeclared, "undeclared-nodata", "warning", "missing-values"),
    (undeclared_in_one, "undeclared-nodata", "warning", "missing-values"),
    (twice, "duplicates", "warning", GOES),
    (twice_across, "duplicates-across-splits", "warning", GOES),
    (nearly, "near-duplicates", "note", GOES),
    (nearly_across, "near-duplicates-across-splits", "warning", GOES),
    (tiles, "touching-tiles", "note", GOES),
    (tiles_across, "touching-tiles-across-splits", "warning", GOES),
    (persons_within, "same-subject", "note", GOES),
    (persons_across, "same-subject-across-splits", "warning", GOES),
    (clip, "same-clip-across-splits", "warning", GOES),
]


@pytest.mark.parametrize(("make_ill", "name", "level", "after"), ZOO, ids=[entry[0].__name__ for entry in ZOO])
def test_each_disease_by_its_name_and_after_its_remedy(patient, make_ill, name, level, after):
    make_ill(patient)
    before = {path: path.read_bytes() for path in patient.root.rglob("*") if path.is_file()}
    report = inspect(patient.root)
    assert {finding.name: finding.level for finding in report.findings} == {name: level}
    finding = report.findings[0]
    assert finding.evidence.endswith((".", "it")) and finding.remedy.endswith(".") and finding.name in MEANING
    json.dumps(report.to_json())
    path, changes, refused = write_config(report)
    assert bool(changes) == (finding.fix is not None) == path.is_file() and not refused
    now = {path: path.read_bytes() for path in patient.root.rglob("*") if path.is_file() and path.name != "dataset.toml"}
    assert now == before  # the data stay as they are
    again = inspect(patient.root)
    levels = {finding.name: finding.level for finding in again.findings}
    assert levels == {GOES: {}, STAYS: {name: level}}.get(after, {after: "note"})
    assert not write_config(again)[1] or after != STAYS
    if finding.fix is not None:
        for part in open_splits(patient.root):
            assert len([*part]) == len(part) > 0  # each sample can now be read


def test_heights_without_a_hole_are_well(patient):
    heights(patient)
    assert patient.found() == {}


def test_a_tag_in_the_files_does_what_dataset_toml_does(patient):
    undeclared(patient)
    for image, _ in patient.pairs():
        values = tifffile.imread(image)
        tifffile.imwrite(
            image, values, photometric="minisblack", planarconfig="separate", extratags=[(42113, "s", 0, "-9999", True)]
        )
    assert patient.found() == {"missing-values": "note"}


def test_holes_in_some_images_do_not_make_types_mixed(patient):
    for index in range(len(patient.pairs())):
        image = patient.image(index).astype(np.int16)
        if index % 2:
            image[:, :9] = -9999
        patient.put(index, image=image)
    (patient.root / "dataset.toml").write_text("nodata = -9999")
    assert patient.found() == {"missing-values": "note"}


def test_a_clean_set_gives_no_finding(clean):
    report = inspect(clean.root)
    assert report.findings == () and report.parts == {"train": 30, "val": 8} and report.looked_at == report.count == 38
    assert write_config(report)[1] == [] and not (clean.root / "dataset.toml").exists()


def test_what_is_said_of_lost_annotations_helps(patient):
    larger(patient)
    assert "bring the coordinates to the size of these" in inspect(patient.root).findings[0].remedy
    annotated(patient, 1, segmentation=lambda entry: moved(entry, 1, 0))
    assert patient.found() == {}
    boxes_alone(patient)
    finding = inspect(patient.root).findings[0]
    assert finding.remedy.endswith("or leave these images out by drop in dataset.toml.")
    (patient.root / "dataset.toml").write_text(f"drop = {list(finding.keys)}\n")
    assert "left-out" not in patient.found()
    (patient.root / "dataset.toml").unlink()
    annotated(patient, 1, segmentation=lambda entry: moved(entry, 1, 0), category_id=99)
    assert inspect(patient.root).findings[0].remedy.startswith("Add what is missing to the list of classes")
    for path in (patient.root / "annotations").iterdir():
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"categories": [{"id": 99, "name": "all"}]}))
    assert "left-out" not in patient.found()


@pytest.mark.parametrize("format", ["coco", "cvat", "datumaro", "geojson", "label_studio", "labelme", "yolo"])
def test_a_clean_set_of_drawn_shapes_gives_no_finding(clean, tmp_path, format):
    readers()[format].write(tmp_path / "drawn", open_dataset(clean.root))
    assert inspect(tmp_path / "drawn").findings == ()


def test_drawn_streets_as_train_and_val_are_clean(tmp_path):
    mask_folder.write(tmp_path / "train", synthetic.streets(30, shape=(96, 128), seed=1))
    mask_folder.write(tmp_path / "val", synthetic.streets(8, shape=(96, 128), seed=2))
    assert [finding for finding in inspect(tmp_path).findings if finding.level != "note"] == []


def test_what_cannot_be_read_does_not_stop_the_doctor(patient):
    for path in patient.pairs()[3]:
        path.write_bytes(b"")
    patient.pairs()[6][0].write_bytes(patient.pairs()[6][0].read_bytes()[:300])
    no_mask(patient)
    report = inspect(patient.root)
    found = {finding.name: finding for finding in report.findings}
    assert set(found) == {"unreadable", "missing-partner"}
    assert found["unreadable"].keys == ("train__img_003", "train__img_006") and "0 bytes" in found["unreadable"].evidence
    assert found["missing-partner"].keys == ("train__img_001",)
    assert report.count == 37 and len(report.dataset) == 35


def test_of_many_samples_some_are_looked_at_and_the_report_says_so(clean):
    report = inspect(clean.root, at_most=20)
    assert (report.count, report.looked_at) == (38, 20) and report.to_json()["looked_at"] == 20
    assert len(report.dataset) == 20 and report.measured.count == 38
    assert inspect(clean.root, at_most=20).dataset.keys == report.dataset.keys


def test_what_is_not_read_is_compared_by_its_small_picture(patient):
    twice_across(patient)
    nearly(patient)
    names = set()
    for seed in range(3):
        report = inspect(patient.root, at_most=12, seed=seed)
        names |= {finding.name.replace("near-", "") for finding in report.findings} & {"duplicates", "duplicates-across-splits"}
        assert report.compared == report.count == 38 and report.looked_at == 12
    assert "duplicates-across-splits" in names


def test_greys_in_jpegs(patient):
    """The greys of train/ and val/ may differ by noise, which is told."""
    jpeg_of_three(patient)
    assert set(patient.found()) <= {"smoothed-masks", "cannot-open"}
    changes = write_config(inspect(patient.root)).changes
    assert "masks.values: [0, 120, 240] for smoothed-masks" in changes and patient.found() == {}
    assert len([*open_splits(patient.root)[1]]) == 8


@pytest.mark.parametrize("make_ill", [none_readable, none_fits])
def test_a_remedy_that_would_drop_all_is_refused(patient, make_ill):
    make_ill(patient)
    report = inspect(patient.root)
    assert len(report.findings) == 1 and len(report.findings[0].keys) == 38
    path, changes, refused = write_config(report)
    assert changes == [] and not path.exists() and "would leave 0 of 38 samples" in refused[0]


def black_first(patient):
    patient.name(None)
    for index, (_, path) in enumerate(patient.pairs()):
        save_indices(path, is_car(patient.mask(index)), [[0] * 3, [255] * 3])


def palette_of_classes(patient):
    for index, (_, path) in enumerate(patient.pairs()):
        save_indices(path, patient.mask(index), PALETTE)


def colors_with_palette(patient):
    patient.name({"classes": ["sky", "road", "car"], "palette": PALETTE.tolist()})
    save_colors(patient)


def lossless_webp(patient):
    patient.name(None)
    in_colors(patient, [[0] * 3, [1] * 3, [2] * 3], np.array, ".webp", lossless=True)


def one_bit(patient):
    patient.name(None)
    for index, (_, path) in enumerate(patient.pairs()):
        Image.fromarray(is_car(patient.mask(index)) > 0).save(path)


def many_classes(patient):
    """150 classes, each in train and in val, thin ones among them."""
    patient.name(None)
    for index in range(len(patient.pairs())):
        blocks = (np.arange(50).reshape(5, 10) * 3 + index % 3).repeat(10, axis=0).repeat(7, axis=1)[:48, :64]
        blocks[index, ::2] = (7 * index) % 150
        patient.put(index, mask=blocks.astype(np.uint8))


def cells_of_32_bits(patient):
    patient.name(None)
    for index, (_, path) in enumerate(patient.pairs()):
        path.unlink()
        cells = np.arange(12, dtype=np.uint32).reshape(3, 4).repeat(16, axis=0).repeat(16, axis=1)
        tifffile.imwrite(path.with_suffix(".tif"), cells + np.uint32(70_000 + 100 * index) * (cells > 0))


@pytest.mark.parametrize(
    "change", [black_first, palette_of_classes, colors_with_palette, lossless_webp, one_bit, many_classes, cells_of_32_bits]
)
def test_healthy_twins(patient, change):
    change(patient)
    findings = inspect(patient.root).findings
    assert [finding for finding in findings if finding.level != "note"] == []
    assert {finding.name for finding in findings} <= {
        "rare-classes",
        "seldom-classes",
        "class-absent-from-split",
        "ragged-masks",
    }


def test_law_damage_never_stops_the_doctor(patient):
    rng = np.random.default_rng(0)
    files = [path for pair in patient.pairs() for path in pair] + [patient.root / "classes.json"]
    for _ in range(6):
        for path in rng.choice(files, 8, replace=False):
            data = bytearray(path.read_bytes())
            for _ in range(int(rng.integers(1, 20))):
                if data:
                    data[rng.integers(len(data))] = rng.integers(256)
            path.write_bytes(data[: int(rng.integers(len(data) + 1))] if rng.random() < 0.3 else data)
        report = inspect(patient.root)
        assert report.findings and json.dumps(report.to_json())


def test_without_parts_the_sixth_that_is_held_out_counts_as_one(patient):
    clip_root = patient.root / "train"
    persons_across(patient)
    report = inspect(clip_root)
    finding = report.findings[0]
    assert finding.name == "same-subject-across-splits" and finding.numbers["groups"][0][0].startswith("p004")
    assert finding.evidence.endswith("Without train/ and val/, the last sixth is held out.")
    changes = write_config(report).changes
    assert changes and (clip_root / "dataset.toml").is_file()
    assert inspect(clip_root).findings == ()
    train, val = open_splits(clip_root)
    assert not {key[:4] for key in train.keys} & {key[:4] for key in val.keys}


def test_a_picture_that_is_turned_with_its_mask_is_well(patient):
    turn(patient.pairs()[5][0], 6)
    assert patient.found() == {}


def test_two_diseases_have_two_names(patient):
    off_by_one(patient)
    channels(patient)
    twice(patient)
    assert set(patient.found()) == {"off-by-one", "mixed-channels", "duplicates"}


def test_other_formats_and_drawn_scenes(tmp_path):
    report = inspect("synthetic:cells?count=12&shape=64x64")
    assert report.root is None and {finding.name for finding in report.findings} <= {"few-samples", "brightness-shift"}
    volumes = inspect("synthetic:cells?count=4&shape=16x32x32")
    assert volumes.measured.axes == 3 and {finding.name for finding in volumes.findings} <= {"few-samples", "brightness-shift"}


def test_a_broken_classes_json_is_named(patient):
    patient.name({"classes": ["a"], "values": [1, 2]})
    report = inspect(patient.root)
    assert [finding.name for finding in report.findings] == ["cannot-open"] and "1 classes, but 2 values" in report.findings[
        0
    ].evidence


def test_messages(tmp_path):
    with pytest.raises(FormatError, match="does not exist"):
        inspect(tmp_path / "nothing")
    with pytest.raises(FormatError, match="is not laid out as a data set"):
        inspect(tmp_path)


def test_camvid_has_what_its_readme_says(shared_data):
    found = {finding.name: finding for finding in inspect(shared_data / "camvid").findings}
    assert {name for name, finding in found.items() if finding.level != "note"} == {"same-clip-across-splits"}
    assert found["same-clip-across-splits"].numbers["frames"] == {"train": 204, "val": 101}


def test_nuclei_touch_across_train_and_val(shared_data):
    truth = [set(group) for group in json.loads((shared_data / "nuclei" / "tile_groups.json").read_text())]
    report = inspect(shared_data / "nuclei")
    found = {finding.name: finding for finding in report.findings}
    assert set(found) == {"touching-tiles", "touching-tiles-across-splits", "mixed-channels", "brightness-shift"}
    assert found["mixed-channels"].numbers["images"] == {"1": 485, "3": 94}
    groups = [*found["touching-tiles"].numbers["groups"], *found["touching-tiles-across-splits"].numbers["groups"]]
    named = [{key.partition("__")[2] for key in group} for group in groups]

    def pairs(groups):
        return {(a, b) for group in groups for a in group for b in group if a < b}

    there = {key.partition("__")[2] for key in report.dataset.keys}
    right = pairs(named) & pairs([group & there for group in truth])
    assert len(right) > 0.95 * len(pairs(named)) and len(right) > 0.94 * len(pairs([group & there for group in truth]))
    in_val = [
        key for group in found["touching-tiles-across-splits"].numbers["groups"] for key in group if key.startswith("val")
    ]
    assert 60 <= len(in_val) <= 66


def test_hippocampi_come_in_pairs(shared_data):
    found = {finding.name: finding for finding in inspect(shared_data / "hippocampus").findings}
    assert set(found) == {"mixed-bit-depths", "intensity-scales", "same-subject"}
    assert found["mixed-bit-depths"].numbers["images"] == {"float32": 159, "uint8": 41}
    assert found["intensity-scales"].numbers["highest"] > 1e6
    groups = found["same-subject"].numbers["groups"]
    assert len(groups) >= 60 and ["hippocampus_007", "hippocampus_008"] in groups
    numbers = [[int(key[-3:]) for key in group] for group in groups]
    assert sum(len(group) == 2 and group[0] % 2 == 1 and group[1] == group[0] + 1 for group in numbers) >= len(numbers) - 2


def test_membrane_needs_nothing(shared_data):
    assert {finding.name: finding.level for finding in inspect(shared_data / "membrane").findings} == {
        "masks-0-255": "note",
        "few-samples": "note",
    }
