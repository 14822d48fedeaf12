"""Image files to files of the objects that prompts or texts tell of, or of all. Axes: H, W sides of an image, N objects."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segwright.codecs import rle
from segwright.codecs.image_file import TIFF_SUFFIXES, read_image, read_mask
from segwright.codecs.image_writer import write_picture, write_values
from segwright.codecs.json_stream import write_json
from segwright.core import Prompt, Sample, Segmentation
from segwright.core.atomic_files import make_folder
from segwright.core.errors import FormatError, OutputError, SegwrightError, UsageError, naming
from segwright.core.segment_overlay import overlay_segments
from segwright.formats.mask_folder import image_files
from segwright.formats.pairing import is_truth_folder
from segwright.inference.everything import segment_everything
from segwright.inference.prompting import Prompter, open_prompter
from segwright.inference.segment_text import segment_text
from segwright.inference.text_detector import check_texts
from segwright.inference.text_folder import open_text_detector

log = logging.getLogger(__name__)

MAX_8_BIT, MAX_16_BIT = 255, 65535
SUFFIXES = (".png", *TIFF_SUFFIXES, ".json")  # of the files that hold objects
BESIDE = {"-": False, "+": True}  # what may follow the place of a point, and whether the point is on the object


@dataclass(frozen=True, kw_only=True)
class SegmentedObject:
    """One object of an image: its number there, the score that the network gives it, its pixels, and the box around them.

    `name` is the text that found it, else "object". `box_xyxy` are left, top, right and bottom in pixels, the last two outside;
    zeros where it has no pixel.
    """

    image: str
    name: str
    number: int
    score: float
    pixels: int
    box_xyxy: tuple[int, ...]


def segment_files(
    model: Prompter | str | Path,
    images: Sequence[str | Path],
    prompts: Sequence[Prompt],
    out: Path | None = None,
    *,
    everything: Mapping[str, Any] | None = None,
    text: Mapping[str, Any] | None = None,
    ahead: bool = False,
    overlay: bool = False,
    spared: Sequence[Path] = (),
    **opening: Any,
) -> list[SegmentedObject]:
    """Write the objects that prompts tell of in an image, or those that texts name, or all objects of images; return them.

    `model` is a prompter, or what `open_prompter` takes, with what else it takes in `opening`. `everything` and `text` hold
    what `segment_everything` and `segment_text` take besides a prompter and an image; the detector may be the name of one, as
    `open_text_detector` takes it. `ahead` encodes images for later calls, and writes nothing.

    `out` is a .png or .tif of numbers, 1 for the first object, 0 where there is none, smaller objects over larger ones; or a
    .json in COCO's form, which keeps all of objects that overlap. Without it it is called IMAGE_objects.png. For several images
    it is a folder, `objects` without a name, of a .png for each, or of a .json where texts tell objects apart. Where texts name
    nothing, that is said, and a file without objects is written. `overlay` adds pictures for people, NAME_overlay.png. Files
    that are `spared`, such as a mask that prompts were read from, are not replaced.

    Raises:
        UsageError: it is not said what to find, or said in several ways, or prompts are given for several images; or some
            images could not be segmented: those of all others were written.
        FormatError: there is no image.
        OutputError: the file has another suffix, would replace an image or a mask of a data set, or cannot be written.
    """
    files = _all_files(images)
    _check_wish(len(files), bool(prompts), everything is not None, text is not None, ahead)
    text = None if text is None else _opened(text, online=opening.get("online", False))
    is_one = len(files) == 1 and Path(images[0]).is_file()
    outputs = {} if ahead else _outputs(files, out, is_one=is_one, suffix=".png" if text is None else ".json")
    _check_spared([*files.values(), *spared], outputs, overlay=overlay)
    for folder in {path.parent for path in outputs.values()}:
        make_folder(folder)  # before the long work
    answer = _answerer(model, prompts, everything, text, opening)
    found, failed = list[SegmentedObject](), list[str]()
    for number, (key, file) in enumerate(files.items()):
        try:
            with naming(str(file)):
                sample = Sample.of(file.stem, read_image(file))
                objects = answer(sample, len(files) - number)
        except SegwrightError as error:
            if len(files) == 1:
                raise
            log.warning("%s", error)
            failed.append(str(error))
            continue
        if objects is None:  # only encoded
            continue
        if text is not None and not len(objects):
            log.warning("%s", _nothing(file, text))
        found += _write(outputs[key], objects, file, sample.image if overlay else None)
    if failed:
        raise UsageError(f"{len(failed)} of {len(files)} images could not be segmented, the others were: {failed[0]}")
    return found


def _opened(text: Mapping[str, Any], *, online: bool) -> Mapping[str, Any]:
    """What is told of texts, with a detector where one was named.

    Raises:
        UsageError: a text is none; or as `open_text_detector`.
    """
    check_texts(text["texts"])
    if not isinstance(text["detector"], str | Path):
        return text
    return {**text, "detector": open_text_detector(text["detector"], online=online)}


def _answerer(
    model: Prompter | str | Path,
    prompts: Sequence[Prompt],
    everything: Mapping[str, Any] | None,
    text: Mapping[str, Any] | None,
    opening: Mapping[str, Any],
) -> Callable[[Sample, int], Segmentation | None]:
    """What gives the objects of a sample, of which so many are still to come; None where it is encoded for later calls."""
    if text is not None and text["detector"].gives_masks:
        return lambda sample, _: segment_text(None, sample=sample, **text)
    prompter = model if isinstance(model, Prompter) else open_prompter(model, **opening)

    def answer(sample: Sample, waiting: int) -> Segmentation | None:
        prompter.engine.ahead = waiting
        if text is not None:
            return segment_text(prompter, sample=sample, **text)
        if everything is not None:
            return segment_everything(prompter, prompter.on_scale(sample), **everything)
        session = prompter.open_sample(sample)
        return session.segment(*prompts) if prompts else None

    return answer


def _nothing(file: Path, text: Mapping[str, Any]) -> str:
    """The sentence for an image in which texts name nothing."""
    least = text["detector"].least_score if text.get("min_score") is None else text["min_score"]
    return (
        f"{file}: nothing is {' or '.join(map(repr, text['texts']))} with a score above {least:g}; say it in other words, or "
        "lower min_score (--min-score)"
    )


def _all_files(places: Sequence[str | Path]) -> dict[str, Path]:
    """The image files of all places by the names of what is written of them; a file that is given twice counts once.

    Raises:
        FormatError: there is no image, or two would have one name.
    """
    files: dict[str, Path] = {}
    for place in places:
        for key, file in image_files(place).items():
            if files.setdefault(key, file).resolve() != file.resolve():
                raise FormatError(f"{file} and {files[key]} would both be called {key}; rename one, or call once for each")
    return files


def _check_wish(count: int, has_prompts: bool, *others: bool) -> None:
    """See that one thing is asked of so many images.

    Raises:
        UsageError: nothing or several things are asked, or prompts are given for several images.
    """
    if has_prompts + sum(others) != 1:
        raise UsageError(
            "what to find is not told, or in several ways; give prompts (--point, --box, --mask), or texts (--text), or "
            "everything (--everything), or ahead (--ahead), to encode images for later"
        )
    if has_prompts and count > 1:
        raise UsageError(
            f"prompts are about one image, and {count} are given; give one, or look for everything, or for what a text names"
        )


def parsed_prompts(points: Sequence[str], boxes: Sequence[str], mask: Path | None) -> list[Prompt]:
    """The prompts that a person writes: points "x,y" or "x,y,-", boxes "left,top,right,bottom" and the file of a mask.

    Points, a mask and one box tell of one object; several boxes are an object each.

    Raises:
        UsageError: a point or a box is written otherwise, or there is more than several boxes.
        FormatError: the mask cannot be read.
    """
    places = [_parsed_point(text) for text in points]
    corners = [_numbers(text, 4, f"--box is '{text}'", "left,top,right,bottom, such as 10,20,200,150") for text in boxes]
    drawn = None if mask is None else read_mask(mask) != 0
    if len(corners) > 1 and (places or drawn is not None):
        raise UsageError(
            f"{len(corners)} boxes are {len(corners)} objects, and which of them points or a mask are about is not told; "
            "give one box with these, or boxes alone"
        )
    if len(corners) > 1:
        return [Prompt(box_xyxy=each, object_id=number) for number, each in enumerate(corners, start=1)]
    if not places and not corners and drawn is None:
        return []
    return [
        Prompt(
            points_xy=np.array([xy for xy, _ in places], np.float32) if places else None,
            is_foreground=np.array([is_on for _, is_on in places]) if places else None,
            box_xyxy=corners[0] if corners else None,
            mask=drawn,
        )
    ]


def _parsed_point(text: str) -> tuple[np.ndarray, bool]:
    """A point (x, y), and whether it is on the object."""
    place, comma, sign = text.rpartition(",")
    is_signed = bool(comma) and sign.strip() in BESIDE
    numbers = place if is_signed else text
    xy = _numbers(numbers, 2, f"--point is '{text}'", "x,y on the object or x,y,- beside it, such as 120,80 or 30,15,-")
    return xy, BESIDE[sign.strip()] if is_signed else True


def _numbers(text: str, count: int, said: str, needed: str) -> np.ndarray:
    """So many numbers with commas between them, float32 (count,).

    Raises:
        UsageError: they are others.
    """
    try:
        values = np.array([float(part) for part in text.split(",")], np.float32)
    except ValueError:
        values = np.zeros(0, np.float32)
    if len(values) != count or not np.isfinite(values).all():
        raise UsageError(f"{said}; write {needed}, in pixels of the image")
    return values


def _outputs(files: Mapping[str, Path], out: Path | None, *, is_one: bool, suffix: str) -> dict[str, Path]:
    """The file to write for each image; for several they end in `suffix`.

    Raises:
        OutputError: it cannot be.
    """
    if not is_one:
        folder = Path("objects") if out is None else out
        if folder.suffix.lower() in SUFFIXES or folder.is_file():
            raise OutputError(f"{folder} is one file, and there are {len(files)} images; give a folder")
        return {key: folder / f"{key}{suffix}" for key in files}
    ((key, file),) = files.items()
    path = Path(f"{file.stem}_objects.png") if out is None else out
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path}: '{path.suffix}' holds no objects here; name the file {', '.join(SUFFIXES)}")
    return {key: path}


def _check_spared(inputs: Sequence[Path], outputs: Mapping[str, Path], *, overlay: bool) -> None:
    """See that nothing that is read, and no mask of a data set, is replaced, and that no folder is in the way.

    Raises:
        OutputError: one would be, or is.
    """
    read = {file.resolve() for file in inputs}
    for path in outputs.values():
        for written in (path, *([_overlay_of(path)] if overlay else [])):
            if written.resolve() in read:
                raise OutputError(f"{written} is one of the images itself, or a mask that was given; choose another with out")
            if written.is_dir():
                raise OutputError(f"{written} is a folder; give the name of a file in it, or of another, with out")
        if path.exists() and is_truth_folder(path.parent):
            raise OutputError(
                f"{path} lies beside the images of a data set and may be its truth; choose another place with out, or remove "
                "it if an earlier call wrote it"
            )


def _overlay_of(path: Path) -> Path:
    """The picture for people beside a file of objects."""
    return path.with_name(f"{path.stem}_overlay.png")


def _write(path: Path, objects: Segmentation, file: Path, image: np.ndarray | None) -> list[SegmentedObject]:
    """Write objects (H, W) of an image's file, and a picture of them where the image is given; return what is told of them."""
    if path.suffix.lower() == ".json":
        write_json(path, _coco(objects, file))
    else:
        numbers = objects.planes.max(axis=0)  # smaller objects come later
        if len(objects) > MAX_16_BIT:
            raise OutputError(f"{path} holds {MAX_16_BIT} objects, there are {len(objects)}; write a .json")
        write_values(path, numbers.astype(np.uint8 if len(objects) <= MAX_8_BIT else np.uint16))
    if image is not None:
        write_picture(_overlay_of(path), overlay_segments(image, objects))
    return _rows(str(file), objects)


def _coco(objects: Segmentation, file: Path) -> dict[str, Any]:
    """Objects in COCO's form, as the only ones of one image."""
    height, width = objects.shape
    annotations = []
    masks = rle.of_segments(objects.planes, len(objects))
    for number, (counts, row, class_id) in enumerate(
        zip(masks, _rows(str(file), objects), objects.class_ids, strict=True), start=1
    ):
        left, top, right, bottom = row.box_xyxy
        annotations.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": 1 + int(class_id),
                "segmentation": {"size": [height, width], "counts": rle.to_text(counts)},
                "area": row.pixels,
                "bbox": [left, top, right - left, bottom - top],
                "iscrowd": 0,
                "score": row.score,
            }
        )
    return {
        "images": [{"id": 1, "file_name": file.name, "height": height, "width": width}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(objects.classes.names, start=1)],
        "annotations": annotations,
    }


def _rows(image: str, objects: Segmentation) -> list[SegmentedObject]:
    """What is told of each object of an image."""
    parts = zip(objects.class_ids, objects.scores, objects.areas(), objects.boxes_xyxy(), strict=True)
    return [
        SegmentedObject(
            image=image,
            name=objects.classes.names[class_id],
            number=number,
            score=round(float(score), 4),
            pixels=int(area),
            box_xyxy=tuple(map(int, box)),
        )
        for number, (class_id, score, area, box) in enumerate(parts, start=1)
    ]
