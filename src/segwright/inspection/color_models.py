"""Images of which the stored numbers are not what is seen: inks, and white that is zero."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import tifffile
from PIL import Image

from segwright.codecs.dicom_series import files_below, is_dicom, read_header
from segwright.codecs.image_file import JPEG_SUFFIXES, TIFF_SUFFIXES
from segwright.core.errors import SegwrightError
from segwright.inspection.finding import Finding, listed, plural, some

SHOWN = "as they are shown"
OF_TIFF = {0: "with white as zero", 5: "as inks (CMYK)"}
OF_DICOM = {"MONOCHROME1": "with white as zero (MONOCHROME1)"}
LOOKED_AT = 2000  # files for the mark of DICOM


def about_color_models(root: Path | None, images: Mapping[str, Path | None]) -> list[Finding]:
    """A note where some images are stored in another way than others, so that programs of plain numbers mix them up."""
    kinds: dict[str, list[str]] = {}
    for name, kind in _models(root, images):
        kinds.setdefault(kind, []).append(name)
    if len(kinds) < 2:
        return []
    said = [f"{len(names)} {kind} ({some(names)})" for kind, names in kinds.items() if kind != SHOWN]
    others = [f"{len(kinds[SHOWN])} {SHOWN}"] if SHOWN in kinds else []
    count = sum(map(len, kinds.values()))
    return [
        Finding(
            "mixed-color-models",
            "note",
            f"Of {plural(count, 'file')}, the numbers are stored in several ways: {listed([*said, *others])}.",
            "Nothing has to be done: all are read as every viewer shows them. Programs that read plain numbers mix them up.",
            {kind: len(names) for kind, names in kinds.items()},
            tuple(name for kind, names in kinds.items() if kind != SHOWN for name in names),
        )
    ]


def _models(root: Path | None, images: Mapping[str, Path | None]) -> Iterator[tuple[str, str]]:
    """The name of each image, or of each file of DICOM series, and the way in which its numbers are stored."""
    files = {key: file for key, file in images.items() if file is not None}
    if files or root is None:
        yield from ((key, _of_image(file)) for key, file in files.items())
        return
    yield from _of_series(root, files_below(root))


def _of_series(root: Path, files: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for number, file in enumerate(files):
        if number == LOOKED_AT:
            return
        if not is_dicom(file):
            continue
        try:
            kind = str(read_header(file, ["PhotometricInterpretation"]).get("PhotometricInterpretation", ""))
        except SegwrightError:  # told when it is read
            continue
        yield file.relative_to(root).as_posix() if file != root else file.name, OF_DICOM.get(kind, SHOWN)


def _of_image(file: Path) -> str:
    """The way in which the numbers of an image file are stored, of which the head is read."""
    try:
        if file.suffix.lower() in TIFF_SUFFIXES:
            with tifffile.TiffFile(file) as tiff:
                return OF_TIFF.get(int(tiff.pages.first.photometric), SHOWN)
        if file.suffix.lower() in JPEG_SUFFIXES:
            with Image.open(file) as picture:
                return OF_TIFF[5] if picture.mode == "CMYK" else SHOWN
    except Exception:  # damaged files fail in any way; reading them says how
        return SHOWN
    return SHOWN
