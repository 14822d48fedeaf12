import gzip
import random
import struct
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from segwright.codecs.volume_file import SUFFIXES, WRITTEN_TYPES, read_volume, write_volume
from segwright.core import Grid
from segwright.core.errors import FormatError, MissingExtraError, OutputError

itk = pytest.importorskip("SimpleITK", reason="volumes need segwright[medical]")

FLAT = [(1, 1, 1), (3, 1, 1), (2, 1, 5), (2, 5, 1), (1, 4, 5), (3, 4, 5)]
SHAPES = [*FLAT, (1, 3, 4, 5), (2, 3, 4, 5), (2, 1, 4, 5), (1, 1, 1, 1), (3, 1, 1, 1)]


def place(seed: int, shape: tuple[int, ...]) -> Grid:
    """A grid that lies askew in the world, mirrored for odd seeds."""
    generator = np.random.default_rng(seed)
    axes = len(shape)
    turn, _ = np.linalg.qr(generator.normal(size=(axes, axes)))
    spacing = generator.uniform(0.3, 5, axes)
    affine = np.eye(axes + 1)
    affine[:axes, :axes] = turn * np.where(np.arange(axes) == 0, 1 - 2 * (seed % 2), 1) * spacing
    affine[:axes, axes] = generator.normal(size=axes) * 200
    return Grid(shape, tuple(spacing.tolist()), affine)


def values(shape: tuple[int, ...], dtype=np.int16) -> np.ndarray:
    generator = np.random.default_rng(len(shape))
    if np.dtype(dtype).kind == "f":
        return generator.normal(size=shape).astype(dtype)
    return generator.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)


# By hand


def test_axes_are_z_y_x_and_the_world_is_lps(tmp_path):
    image = itk.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))  # x has 4 pixels
    image.SetSpacing((1, 2, 3))
    image.SetOrigin((10, 20, 30))
    itk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    array, grid = read_volume(tmp_path / "a.nii.gz")
    assert array.shape == (1, 2, 3, 4) and array[0, 1, 2, 3] == 23
    assert grid.shape == (2, 3, 4) and grid.spacing_mm == (3, 2, 1)
    assert np.allclose(grid.affine @ [1, 1, 1, 1], [11, 22, 33, 1])
    assert np.allclose(grid.affine @ [1, 2, 3, 1], [*image.TransformIndexToPhysicalPoint((3, 2, 1)), 1])


def test_a_nifti_of_right_anterior_superior_is_turned(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    ras = np.array([[2.0, 0, 0, 5], [0, 3, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(values((5, 4, 3)), ras), tmp_path / "a.nii")
    array, grid = read_volume(tmp_path / "a.nii")
    assert np.array_equal(array[0].T, values((5, 4, 3))) and grid.spacing_mm == (4, 3, 2)
    assert np.allclose(grid.affine, [[0, 0, -2, -5], [0, -3, 0, -6], [4, 0, 0, 7], [0, 0, 0, 1]])
    ours = np.diag([-1, -1, 1, 1]) @ grid.affine @ [1, 2, 3, 1]
    assert np.allclose(ours, ras @ [3, 2, 1, 1])


def test_an_image_stays_an_image_and_one_slice_a_volume(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    for shape, found in (
        ((5, 4), (1, 4, 5)),
        ((5, 4, 1), (1, 1, 4, 5)),
        ((5, 4, 3, 2), (2, 3, 4, 5)),
        ((5, 4, 1, 1, 3), (3, 1, 4, 5)),
    ):
        nibabel.save(nibabel.Nifti1Image(values(shape), np.eye(4)), tmp_path / "a.nii.gz")
        assert read_volume(tmp_path / "a.nii.gz")[0].shape == found, shape


def test_the_slope_of_a_nifti_is_applied(tmp_path):
    write_volume(tmp_path / "a.nii", values((1, 2, 3, 4)), Grid((2, 3, 4)))
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[112:120] = struct.pack("<2f", 2.5, -1)
    (tmp_path / "a.nii").write_bytes(data)
    array, _ = read_volume(tmp_path / "a.nii")
    assert array.dtype == np.float32
    assert np.array_equal(array, itk.GetArrayFromImage(itk.ReadImage(str(tmp_path / "a.nii")))[None])


def test_colours_of_a_nifti_become_channels(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    rgb = np.zeros((5, 4, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["G"] = 7
    rgb["B"] = 9
    nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), tmp_path / "a.nii")
    array, _ = read_volume(tmp_path / "a.nii")
    assert array.shape == (3, 3, 4, 5) and [array[c].mean() for c in range(3)] == [0, 7, 9]


def test_detached_headers(tmp_path):
    image = itk.GetImageFromArray(values((3, 4, 5)))
    for name in ("a.mhd", "a.nhdr"):
        for packed in (False, True):
            itk.WriteImage(image, str(tmp_path / name), useCompression=packed)
            assert np.array_equal(read_volume(tmp_path / name)[0][0], values((3, 4, 5)))


def test_text_and_big_endian(tmp_path):
    array = values((1, 2, 3, 4))
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 3 2\n"
    (tmp_path / "a.nrrd").write_bytes(f"{head}encoding: ascii\n\n".encode() + " ".join(map(str, array.ravel())).encode())
    (tmp_path / "b.nrrd").write_bytes(f"{head}encoding: raw\nendian: big\n\n".encode() + array.astype(">i2").tobytes())
    for name in ("a.nrrd", "b.nrrd"):
        read, grid = read_volume(tmp_path / name)
        assert np.array_equal(read, array) and read.dtype == np.int16 and grid.spacing_mm == (1, 1, 1)


# By a slow twin: SimpleITK itself


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equals_simple_itk(tmp_path, suffix):
    for seed in range(4):
        for shape in ((3, 4, 5), (2, 3, 4, 5)):
            grid = place(seed, shape[-3:])
            write_volume(tmp_path / f"a{suffix}", values(shape).reshape(-1, 3, 4, 5), grid)
            array, ours = read_volume(tmp_path / f"a{suffix}")
            image = itk.ReadImage(str(tmp_path / f"a{suffix}"))
            for index in ((0, 0, 0), (1, 2, 3), (2, 3, 4)):
                four = (0,) * (image.GetDimension() - 3)
                where = image.TransformIndexToPhysicalPoint((*index[::-1], *four))[:3]
                assert np.allclose(ours.affine @ [*index, 1], [*where, 1], atol=1e-9)
            assert np.allclose(ours.spacing_mm, image.GetSpacing()[:3][::-1])
            twin = itk.GetArrayFromImage(image)
            twin = np.moveaxis(twin, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else twin.reshape(array.shape)
            assert np.array_equal(array, twin)


def test_the_place_of_a_nifti_equals_simple_itk(tmp_path):
    """Both forms, all codes, mirrored, apart, in other units, sheared: the same place, or refused by both."""
    nibabel = pytest.importorskip("nibabel")
    generator = np.random.default_rng(0)
    for q_code, s_code, unit, is_same, is_sheared in product((0, 1, 2), (0, 1, 4), (0, 1, 3), (True, False), (True, False)):
        forms = []
        for _ in range(2):
            turn, _ = np.linalg.qr(generator.normal(size=(3, 3)))
            forms.append(np.block([[turn * [1.5, 2, 3], generator.normal(size=(3, 1)) * 50], [0, 0, 0, 1]]))
        image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
        image.header.set_zooms((1.5, 2, 3))
        image.set_qform(forms[0], q_code, update_affine=False)
        form = forms[0 if is_same else 1]
        form[:3, 1] += 0.3 * is_sheared * form[:3, 0]
        image.header["xyzt_units"] = unit
        nibabel.save(image, tmp_path / "a.nii")
        data = bytearray((tmp_path / "a.nii").read_bytes())
        data[252:256], data[280:328] = struct.pack("<2h", q_code, s_code), form[:3].astype("<f4").tobytes()
        (tmp_path / "a.nii").write_bytes(data)
        try:
            twin = itk.ReadImage(str(tmp_path / "a.nii"))
        except RuntimeError:
            with pytest.raises(FormatError, match="its axes are not orthogonal"):
                read_volume(tmp_path / "a.nii")
            continue
        grid = read_volume(tmp_path / "a.nii")[1]
        for index in ((0, 0, 0), (5, 0, 0), (0, 4, 0), (0, 0, 3)):
            where = twin.TransformIndexToPhysicalPoint(index[::-1])
            assert np.allclose((grid.affine @ [*index, 1])[:3], where, rtol=1e-5, atol=1e-4), (q_code, s_code, unit)


# By a law


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read(tmp_path, suffix, shape):
    near = {"rtol": 0, "atol": 1e-12} if not suffix.startswith(".nii") else {"rtol": 1e-5, "atol": 1e-4}  # 1e-7 of 200 mm
    for seed, dtype in enumerate(WRITTEN_TYPES):
        array, grid = values(shape, dtype), place(seed, shape[1:])
        write_volume(tmp_path / f"a{suffix}", array, grid)
        read, found = read_volume(tmp_path / f"a{suffix}")
        assert read.dtype == array.dtype and np.array_equal(read, array)
        assert np.allclose(found.affine, grid.affine, **near) and np.allclose(found.spacing_mm, grid.spacing_mm, **near)
    assert len([*tmp_path.iterdir()]) == (2 if suffix in (".mhd", ".nhdr") else 1)  # nothing unfinished is left


def test_what_is_unknown_of_a_grid_becomes_plain(tmp_path):
    write_volume(tmp_path / "a.nrrd", values((1, 2, 3, 4)), Grid((2, 3, 4), (3.0, 2.0, 1.0)))
    grid = read_volume(tmp_path / "a.nrrd")[1]
    assert grid.spacing_mm == (3, 2, 1) and np.array_equal(grid.affine @ [1, 1, 1, 1], [1, 2, 3, 1])
    write_volume(tmp_path / "a.nrrd", values((1, 2, 3, 4)), Grid((2, 3, 4)))
    assert read_volume(tmp_path / "a.nrrd")[1].spacing_mm == (1, 1, 1)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files_are_told_or_read(tmp_path, suffix):
    """Bytes are changed, above all in the header; for .nii.gz in what is packed. Only a FormatError may come of it."""
    write_volume(tmp_path / f"a{suffix}", values((2, 3, 4, 5)), place(1, (3, 4, 5)))
    whole = (tmp_path / f"a{suffix}").read_bytes()
    chance = random.Random(7)
    for turn in range(300):
        is_inside = suffix == ".nii.gz" and turn % 4
        data = bytearray(gzip.decompress(whole) if is_inside else whole)
        for _ in range(chance.randint(1, 3)):
            spot = chance.randrange(min(len(data), 420) if chance.random() < 0.8 else len(data))
            data[spot : spot + chance.choice([1, 1, 4])] = chance.randbytes(chance.choice([1, 1, 4, 0]))
        if chance.random() < 0.2:
            data = data[: chance.randrange(len(data))]
        (tmp_path / f"b{suffix}").write_bytes(gzip.compress(data) if is_inside else data)
        try:
            read_volume(tmp_path / f"b{suffix}")
        except FormatError as error:
            assert str(tmp_path) in str(error)


# By its messages


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_cut_short_is_told(tmp_path, suffix):
    write_volume(tmp_path / f"a{suffix}", values((1, 9, 9, 9)), Grid((9, 9, 9)))
    file = max(tmp_path.iterdir(), key=lambda file: file.stat().st_size)  # the pixels of a detached header
    whole = file.read_bytes()
    for length in (len(whole) // 2, len(whole) - 30, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(FormatError, match="cut short"):
            read_volume(tmp_path / f"a{suffix}")


def test_a_wrong_check_sum_is_told(tmp_path):
    write_volume(tmp_path / "a.nii.gz", values((1, 9, 9, 9)), Grid((9, 9, 9)))
    data = bytearray((tmp_path / "a.nii.gz").read_bytes())
    data[-6] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(data)
    with pytest.raises(FormatError, match="damaged or cut short"):
        read_volume(tmp_path / "a.nii.gz")


def test_a_sheared_nifti_is_told(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    affine = np.eye(4)
    affine[0, 1] = 0.3
    image = nibabel.Nifti1Image(values((5, 4, 3)), affine)
    image.header.set_zooms([1, np.hypot(1, 0.3), 1])
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(FormatError, match="its axes are not orthogonal .* resample it onto a straight grid"):
        read_volume(tmp_path / "a.nii")


def test_what_cannot_be_written_is_told(tmp_path, monkeypatch):
    array = values((1, 2, 3, 4))
    for dtype, remedy in ((bool, "uint8"), (np.float16, "float32"), (np.complex64, "two channels")):
        with pytest.raises(OutputError, match=f"hold no {np.dtype(dtype)}; convert it to {remedy}"):
            write_volume(tmp_path / "a.nii", array.astype(dtype), Grid((2, 3, 4)))
    with pytest.raises(OutputError, match="does not end like a volume file; name it .nii"):
        write_volume(tmp_path / "a.raw", array, Grid((2, 3, 4)))
    with pytest.raises(OutputError, match="make them equal"):
        write_volume(tmp_path / "a.nii", array, Grid((2, 3, 5)))
    with pytest.raises(OutputError, match="is empty"):
        write_volume(tmp_path / "a.nii", array[:0], Grid((2, 3, 4)))
    with pytest.raises(OutputError, match="no place in the world"):
        write_volume(tmp_path / "a.nii", array, Grid((2, 3, 4), (1.0, 0.0, 1.0)))
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    with pytest.raises(OutputError, match="not orthogonal .* name it .nrrd"):
        write_volume(tmp_path / "a.nii.gz", array, Grid((2, 3, 4), None, sheared))
    write_volume(tmp_path / "a.nrrd", array, Grid((2, 3, 4), None, sheared))  # the remedy
    assert np.allclose(read_volume(tmp_path / "a.nrrd")[1].affine, sheared)
    with pytest.raises(OutputError, match="is no name in UTF-8, .*rename it"):
        write_volume(tmp_path / "\udce4.nii", array, Grid((2, 3, 4)))
    with monkeypatch.context() as patch:
        patch.setattr("SimpleITK.WriteImage", lambda image, name, **_: Path(name).write_bytes(b"\0" * 352))
        with pytest.raises(
            OutputError, match="b.nii cannot be written .only a part of it arrived.; .*free space"
        ):  # as where the disk is full
            write_volume(tmp_path / "b.nii", array, Grid((2, 3, 4)))
        assert [path.name for path in tmp_path.iterdir()] == ["a.nrrd"]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        write_volume(tmp_path / "file" / "a.nii", array, Grid((2, 3, 4)))


def test_what_is_no_volume_is_told(tmp_path):
    with pytest.raises(FormatError, match="does not end like a volume file"):
        read_volume(tmp_path / "a.png")
    with pytest.raises(FormatError, match="does not exist"):
        read_volume(tmp_path / "a.nrrd")


def test_the_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'segwright\[medical\]'"):
        write_volume(tmp_path / "a.nii", values((1, 2, 3, 4)), Grid((2, 3, 4)))
