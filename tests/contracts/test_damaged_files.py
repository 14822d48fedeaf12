"""No file, however damaged, does more to a reader than a FormatError that names it: no crash, no hang, no flood of memory.

Small data sets of every format are damaged at random, file by file, and read in a process of their own, whose memory is
limited. `make test` tries some hundred damages, the slow test 20 000; as a script, any number from any seed on:

    pytest -m slow tests/contracts/test_damaged_files.py
    python tests/contracts/test_damaged_files.py 20000 --seed 1000000
"""

import argparse
import faulthandler
import multiprocessing
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segwright.core import Classes, Grid, Sample, Segmentation
from segwright.core.errors import FormatError, SegwrightError
from segwright.formats import open_dataset, readers

FEW, MANY = 600, 20_000
SECONDS = 5
FLOOD = 3 << 29  # bytes, 1.5 GiB: one array of 1 GiB, which no file here may lead to, and the room that threads reserve
THINGS = Classes.of(["car", "dog"], is_thing=[True, True])
STUFF = Classes.of(["road", "sky"])
NUMBER = re.compile(rb"-?\d+(\.\d+)?")
WORD = re.compile(rb'"[^"\\]{1,40}"|[A-Za-z_]{3,20}')
HUGE = [
    b"-1",
    b"0",
    b"99999999999",
    b"2147483648",
    b"18446744073709551616",
    b"1e308",
    b"-1e308",
    b"NaN",
    b"null",
    b"[]",
    b"{}",
    b'"x"',
    b"0.5",
]
NASTY = [
    b"../../../../etc/passwd",
    b"/etc/passwd",
    b"\x00",
    b"\xff\xfe",
    b"&a;",
    b"",
    b"a" * 70_000,
    "\ud800".encode(errors="surrogatepass"),
]
TIFF_TAGS = [  # that say what numbers mean, or of what size, depth and number they are
    *(
        254,
        255,
        256,
        257,
        258,
        259,
        262,
        266,
        270,
        273,
        274,
        277,
        278,
        279,
        284,
        317,
        320,
        322,
        323,
        324,
        325,
        332,
        334,
        336,
        338,
    ),
    *(339, 346, 433, 529, 530, 532, 33550, 33922, 34264, 34735, 42112, 42113),
]
TIFF_VALUES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 17, 32, 64, 255, 32803, 32844, 32845, 34892, 50000, 65535]
DICOM_TAGS = [  # of group 0028: interpretation, planes, frames, bits, sign, padding, slopes, window, palettes, tables
    *(0x0002, 0x0004, 0x0006, 0x0008, 0x0010, 0x0011, 0x0100, 0x0101, 0x0102, 0x0103, 0x0120, 0x0121, 0x1050, 0x1052, 0x1053),
    *(0x1101, 0x1102, 0x1103, 0x1201, 0x1202, 0x1203, 0x3000, 0x3002, 0x3006, 0x3010),
]
DICOM_KINDS = [b"MONOCHROME1 ", b"PALETTE COLOR", b"RGB ", b"YBR_FULL_422", b"YBR_FULL", b"YBR_PARTIAL_420 "]
ENTITIES = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


def objects() -> Iterator[Sample]:
    generator = np.random.default_rng(0)
    for index in range(2):
        masks = np.zeros((3, 16, 20), bool)
        masks[0, 2:9, 2:9], masks[0, 4:6, 4:6] = True, False  # a hole
        masks[1, 10:14, 3:6] = masks[1, 10:12, 10:15] = True  # two parts
        masks[2, 1, 15] = True
        image = generator.integers(0, 256, (3, 16, 20), dtype=np.uint8)
        yield Sample.of(f"s{index}", image, Segmentation.instances(masks, [0, 1, 0], classes=THINGS))


def class_maps(*shape: int) -> Iterator[Sample]:
    generator = np.random.default_rng(0)
    for index in range(2):
        image = generator.integers(0, 256, (1, *shape), dtype=np.uint8)
        affine = np.diag([*([2.0] * len(shape)), 1.0])
        truth = Segmentation.semantic(generator.integers(0, 2, shape), STUFF)
        yield Sample(f"s{index}", image, Grid(shape, spacing_mm=(2.0,) * len(shape), affine=affine), truth)


def seeds(root: Path) -> dict[str, list[Path]]:
    """Small data sets of every format that can be written, and of those that cannot."""
    made: dict[str, list[Path]] = {}
    for name, module in readers().items():
        if not hasattr(module, "write"):
            continue
        for kind, samples in {"objects": objects(), "maps": class_maps(16, 20), "volume": class_maps(4, 8, 8)}.items():
            place = root / name / kind
            try:
                module.write(place, samples)
            except SegwrightError:
                continue
            made.setdefault(name, []).append(place)
    for suffix in (".nii", ".nrrd", ".mha", ".mhd"):
        folder = root / "volume" / f"file{suffix}"
        folder.mkdir(parents=True)
        readers()["volume"].write(folder / f"a{suffix}", [Sample.of("a", next(class_maps(4, 8, 8)).image)])
        made["volume"].append(folder / f"a{suffix}")
    made["mask_folder"].append(tagged_images(root / "mask_folder" / "tags"))
    made["dicom"] = [dicom_series(root / "dicom" / "series"), dicom_series(root / "dicom" / "tags", has_tags=True)]
    return made


def tagged_images(root: Path) -> Path:
    """Images whose tags say what their numbers mean, one of each kind, with masks."""
    generator = np.random.default_rng(0)
    grey, colors = generator.integers(0, 256, (16, 20), dtype=np.uint8), generator.integers(0, 256, (16, 20, 5), dtype=np.uint8)
    colormap = generator.integers(0, 2**16, (3, 256), dtype=np.uint16)
    scale = '<GDALMetadata><Item name="SCALE" sample="0" role="scale">0.5</Item></GDALMetadata>'
    place = [(33550, "d", 3, (1.0, 1.0, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 5.0, 5.0, 0.0), True)]
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    images = root / "images"
    tifffile.imwrite(images / "white.tif", grey, photometric="miniswhite")
    tifffile.imwrite(images / "bits.tif", grey > 99, photometric="miniswhite")
    tifffile.imwrite(images / "bits12.tif", grey.astype(np.uint16) * 16, bitspersample=12)
    tifffile.imwrite(images / "palette.tif", grey, photometric="palette", colormap=colormap)
    tifffile.imwrite(images / "inks.tif", colors[..., :4], photometric="separated")
    tifffile.imwrite(images / "alpha.tif", colors[..., :4], photometric="rgb", extrasamples=["assocalpha"], extratags=place)
    tifffile.imwrite(images / "bands.tif", colors, photometric="minisblack", planarconfig="contig", compression="zlib")
    tifffile.imwrite(images / "planes.tif", colors.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate")
    tifffile.imwrite(images / "tiles.tif", grey.astype(np.float32), tile=(16, 16), compression="lzw", predictor=True)
    tifffile.imwrite(images / "missing.tif", grey, extratags=[(42113, "s", 0, "7", True), (42112, "s", 0, scale, True)])
    tifffile.imwrite(images / "imagej.tif", grey.astype(np.uint16), imagej=True, metadata={"cf": 0, "c0": -9.0, "c1": 1.0})
    with tifffile.TiffWriter(images / "pages.tif") as file:
        file.write(grey, metadata=None)
        file.write(grey > 20, metadata=None, subfiletype=4, photometric="mask")
        file.write(grey[::2, ::2], metadata=None, subfiletype=1)
    rgb = Image.fromarray(np.ascontiguousarray(colors[..., :3]))
    rgb.convert("YCbCr").save(images / "ycbcr.tif")
    rgb.convert("CMYK").save(images / "inks.jpg.jpg")
    rgb.convert("P").save(images / "key.png", transparency=3)
    rgb.convert("P").save(images / "frames.gif", save_all=True, append_images=[rgb.convert("P").rotate(180)])
    rgb.convert("P").save(images / "plain.bmp")
    (images / "maxval.pgm").write_bytes(b"P5 20 16 4095\n" + grey.astype(">u2").tobytes())
    for image in images.iterdir():
        Image.fromarray((grey > 99).astype(np.uint8)).save(root / "masks" / f"{image.stem}.png")
    return root


def dicom_series(folder: Path, *, has_tags: bool = False) -> Path:
    """A series of three small slices and its segmentation; with tags that say what numbers mean, each slice by others."""
    pydicom = pytest.importorskip("pydicom", reason="DICOM needs segwright[medical]")
    uid = pydicom.uid
    (folder / "slices").mkdir(parents=True)
    for index in range(3):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = uid.MRImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{index}"
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "1.2.4", "1.2.5", "1.2.6"
        data.Modality, data.Rows, data.Columns, data.PixelSpacing = "MR", 4, 6, [0.7, 0.5]
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 2 * index], [1, 0, 0, 0, 1, 0]
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.PixelData = np.arange(24, dtype=np.uint16).tobytes()
        if has_tags:
            data.PixelPaddingValue, data.PixelPaddingRangeLimit = 3, 5
            data.PhotometricInterpretation = "MONOCHROME1" if index else "MONOCHROME2"
            if index == 2:
                table = pydicom.Dataset()
                table.LUTDescriptor, table.LUTData, table.ModalityLUTType = (
                    [24, 0, 16],
                    np.arange(24, dtype="<u2").tobytes(),
                    "US",
                )
                data.ModalityLUTSequence = [table]
            else:
                data.RescaleSlope, data.RescaleIntercept = 2, -5
        data.save_as(folder / "slices" / f"{index}.dcm", enforce_file_format=True)
    truth = Segmentation.semantic(np.arange(72).reshape(3, 4, 6) % 2, STUFF)
    readers()["dicom"].write_segmentation(folder / "truth.dcm", truth, folder / "slices")
    return folder


def with_other_tiff_tag(data: bytes, random: random.Random) -> bytes:
    """A TIFF of which one entry of a directory has another number, or says something else."""
    order = ">" if data.startswith(b"MM") else "<"
    entries, place = [], 4
    while place + 4 <= len(data) and len(entries) < 1000:
        start = struct.unpack(order + "I", data[place : place + 4])[0]
        if not 8 <= start <= len(data) - 2:
            break
        count = struct.unpack(order + "H", data[start : start + 2])[0]
        entries += [at for at in range(start + 2, start + 2 + 12 * count, 12) if at + 12 <= len(data)]
        place = start + 2 + 12 * count
    if not entries:
        return data
    meant = [at for at in entries if struct.unpack(order + "H", data[at : at + 2])[0] in TIFF_TAGS]
    at, changed = random.choice(meant if meant and random.random() < 0.8 else entries), bytearray(data)
    if random.random() < 0.25:
        changed[at : at + 2] = struct.pack(order + "H", random.choice(TIFF_TAGS))
    else:
        wide = struct.unpack(order + "H", data[at + 2 : at + 4])[0] == 4
        changed[at + 8 : at + 8 + (4 if wide else 2)] = struct.pack(order + ("I" if wide else "H"), random.choice(TIFF_VALUES))
    return bytes(changed)


def with_other_dicom_tag(data: bytes, random: random.Random) -> bytes:
    """A DICOM file of which one element of the picture has another number, another value, or another interpretation."""
    found = [match.start() for match in re.finditer(rb"\x28\x00..[A-Z]{2}", data, re.DOTALL)]
    kind = re.search(rb"MONOCHROME[12] ", data)
    if not found:
        return data
    at, changed = random.choice(found), bytearray(data)
    if kind and random.random() < 0.3:
        name = random.choice(DICOM_KINDS)
        name += b" " * (len(name) % 2)
        return data[: kind.start() - 2] + struct.pack("<H", len(name)) + name + data[kind.end() :]
    if random.random() < 0.5:
        changed[at + 2 : at + 4] = struct.pack("<H", random.choice(DICOM_TAGS))
    else:
        changed[at + 8 : at + 10] = struct.pack("<H", random.choice(TIFF_VALUES))
    return bytes(changed)


def damaged(data: bytes, random: random.Random) -> bytes:
    """A file with one kind of damage."""
    is_tiff, is_dicom = data[:4] in (b"II*\0", b"MM\0*"), data[128:132] == b"DICM"
    if (is_tiff or is_dicom) and random.random() < 0.4:
        return (with_other_tiff_tag if is_tiff else with_other_dicom_tag)(data, random)
    place = random.randrange(len(data) + 1)
    kind = random.randrange(9)
    if kind == 0:
        return data[:place]
    if kind == 1:
        changed = bytearray(data)
        for _ in range(random.choice((1, 1, 4, 32)) if data else 0):
            changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
        return bytes(changed)
    if kind == 2:  # a piece is missing, or there twice
        end = min(len(data), place + random.randrange(1, 64))
        return data[:place] + data[place:end] * random.choice((0, 2, 50)) + data[end:]
    if kind in (3, 4):  # a number is another
        found = list(NUMBER.finditer(data))
        if found:
            match = random.choice(found)
            return data[: match.start()] + random.choice(HUGE) + data[match.end() :]
    if kind in (5, 6):  # a word is another
        found = list(WORD.finditer(data))
        if found:
            match = random.choice(found)
            quote = b'"' if match.group().startswith(b'"') else b""
            return data[: match.start()] + quote + random.choice(NASTY) + quote + data[match.end() :]
    if kind == 7:  # four bytes of a header become a large or a negative number
        value = random.choice((0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0, 1, 100_000))
        start = random.randrange(min(len(data), 400) + 1)
        return data[:start] + value.to_bytes(4, random.choice(("little", "big"))) + data[start + 4 :]
    return random.choice((b"", ENTITIES + data, b"[" * 100_000, b"\x00" * 1000, data[::-1], data + data, b"<a>" * 50_000))


def damage(place: Path, random: random.Random) -> Path:
    """Damage one file of a data set; index files more often than one by chance."""
    files = sorted(path for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file())
    texts = [path for path in files if path.suffix not in (".png", ".jpg")]
    file = random.choice(texts if texts and random.random() < 0.7 else files)
    file.write_bytes(damaged(file.read_bytes(), random))
    return file


def read_all(path: Path, format: str) -> None:
    data = open_dataset(path, format)
    for key in data.keys:
        data.load(key)


def verdict(place: Path, name: str, number: int, work: Path) -> str:
    """What is wrong with how a reader takes one damage; empty if nothing is."""
    copy = work / place.name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (shutil.copytree if place.is_dir() else shutil.copy)(place, copy)
    file = damage(copy, random.Random(number))
    what = f"{name} {place.name} damage {number} of {file.relative_to(work)}"
    started = time.monotonic()
    try:
        read_all(copy, name)
    except FormatError as error:
        if "may be damaged: copy or export it again" in str(error) and "Error: " in str(error):  # the last net of open_dataset
            return f"{what}: {error}"
        if str(work) not in str(error):
            return f"{what}: the message names no place: {error}"
    except BaseException as error:
        return f"{what}: {type(error).__name__}: {error}"
    seconds = time.monotonic() - started
    return f"{what}: took {seconds:.1f} s" if seconds > SECONDS else ""


def worker(tasks: list[tuple[Path, str, int]], work: Path, results) -> None:
    """Read damaged data one after the other; a hang is killed from inside, so that its place is known."""
    faulthandler.enable()
    for place, name, _ in tasks[:1]:  # what is loaded and compiled once is no flood
        read_all(place, name)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + FLOOD, used + FLOOD))

    def late(*_):
        raise TimeoutError(f"no answer after {4 * SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    for index, (place, name, number) in enumerate(tasks):
        signal.alarm(4 * SECONDS)
        results.put((index, verdict(place, name, number, work)))
        signal.alarm(0)
    results.put((len(tasks), ""))


def failures(root: Path, count: int, first: int = 0) -> list[str]:
    """Damage and read `count` times, and return what went wrong."""
    sets = seeds(root / "sets")
    found = []
    each = count // len(sets) + 1
    for name, places in sets.items():
        tasks = [(places[number % len(places)], name, first + number) for number in range(each)]
        while tasks:
            context = multiprocessing.get_context("fork")
            results = context.Queue()
            process = context.Process(target=worker, args=(tasks, root / "work", results))
            process.start()
            done = -1
            while done < len(tasks):
                try:
                    done, wrong = results.get(timeout=6 * SECONDS)
                except Exception:
                    break
                found += [wrong] if wrong else []
            process.kill()
            process.join()
            if done < len(tasks):
                place, _, number = tasks[done + 1]
                found.append(f"{name} {place.name} damage {number}: the process ended or hung")
            tasks = tasks[done + 2 :]
    return found


def test_damaged_files_are_refused(tmp_path):
    found = failures(tmp_path, FEW)
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_twenty_thousand_damaged_files_are_refused(tmp_path):
    found = failures(tmp_path, MANY, first=FEW)
    assert not found, f"{len(found)} of {MANY}\n" + "\n".join(found[:100])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="damage files at random and read them")
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0, help="the number of the first damage")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wrong = failures(Path(folder), arguments.count, first=arguments.seed)
    print(*wrong, f"{len(wrong)} failures in {arguments.count:,} damages, numbers {arguments.seed:,} on", sep="\n")
    sys.exit(bool(wrong))
