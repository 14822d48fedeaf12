"""No file, however damaged, does more to a reader than a FormatError that names it: no crash, no hang, no flood of memory.

Small data sets of every format are damaged at random, file by file, and read in a process of their own, whose memory is
limited. `make test` tries some hundred damages, the slow test 20 000:

    pytest -m slow tests/contracts/test_damaged_files.py
"""

import faulthandler
import multiprocessing
import random
import re
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

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
    made["dicom"] = [dicom_series(root / "dicom" / "series")]
    return made


def dicom_series(folder: Path) -> Path:
    """A series of three small slices and its segmentation."""
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
        data.save_as(folder / "slices" / f"{index}.dcm", enforce_file_format=True)
    truth = Segmentation.semantic(np.arange(72).reshape(3, 4, 6) % 2, STUFF)
    readers()["dicom"].write_segmentation(folder / "truth.dcm", truth, folder / "slices")
    return folder


def damaged(data: bytes, random: random.Random) -> bytes:
    """A file with one kind of damage."""
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
