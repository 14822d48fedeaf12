"""Parts of TIFF files. Axes: C channels, H, W."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from segwright.codecs import tiff_parts
from segwright.codecs.image_file import read_image
from segwright.codecs.tiff_parts import TiffParts
from segwright.core.errors import FormatError

LAYOUTS = {
    "strips": {"rowsperstrip": 7},
    "one strip": {},
    "tiles": {"tile": (16, 32)},
    "packed": {"tile": (32, 16), "compression": "zlib", "predictor": True},
    "big-endian": {"tile": (16, 16), "byteorder": ">", "bigtiff": True},
}
PARTS = [
    (slice(0, 50), slice(0, 70)),
    (slice(13, 14), slice(69, 70)),
    (slice(31, 50), slice(3, 34)),
    (slice(16, 32), slice(32, 64)),
]


def stored(folder: Path, values: np.ndarray, **layout) -> Path:
    path = folder / "image.tif"
    tifffile.imwrite(path, values, metadata=None, **layout)
    return path


def noise(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("shape", "dtype", "more"),
    [
        ((50, 70), "uint8", {}),
        ((50, 70, 3), "uint8", {"photometric": "rgb"}),
        ((50, 70, 5), "uint16", {"photometric": "minisblack", "planarconfig": "contig"}),
        ((5, 50, 70), "int16", {"photometric": "minisblack", "planarconfig": "separate"}),
        ((50, 70), "float32", {}),
    ],
)
def test_parts_are_cut_out_of_the_image(layout, shape, dtype, more, tmp_path):
    path = stored(tmp_path, noise(*shape, dtype=dtype), **more, **LAYOUTS[layout])
    whole, parts = read_image(path), TiffParts.opened(path)
    assert parts.shape == whole.shape and parts.dtype == whole.dtype
    for rows, columns in PARTS:
        found = parts[:, rows, columns]
        assert found.dtype == whole.dtype
        np.testing.assert_array_equal(found, whole[:, rows, columns])
    parts.close()


def test_missing_values_are_nan_as_in_the_whole(tmp_path):
    values = noise(50, 70, 3)
    values[:20, :30], values[40:, 2:9, 0] = 7, 7  # in one channel alone it is a colour
    path = stored(tmp_path, values, photometric="rgb", tile=(16, 16), extratags=[(42113, "s", 2, "7", True)])
    parts, whole = TiffParts.opened(path), read_image(path)
    assert np.isnan(whole).any()
    np.testing.assert_array_equal(parts[:, 0:50, 0:70], whole)
    assert parts[:, 41:50, 0:70].dtype == np.uint8  # none is missing there


def test_few_tiles_are_kept(tmp_path, monkeypatch):
    path = stored(tmp_path, noise(64, 64), tile=(16, 16), compression="zlib")
    monkeypatch.setattr(tiff_parts, "KEPT_BYTES", 5 * 16 * 16)
    parts, read = TiffParts.opened(path), []
    unpacked = parts._unpacked
    parts._unpacked = lambda index: read.append(index) or unpacked(index)
    for left in range(0, 49, 8):
        parts[:, 0:16, left : left + 16]
    assert read == [0, 1, 2, 3]  # neighbours share them
    parts[:, 16:64, 0:64]
    assert len(parts.kept) == 5 and parts.kept_bytes == 5 * 16 * 16
    np.testing.assert_array_equal(parts[:, 0:64, 0:64][0], noise(64, 64))


def test_what_is_no_plain_image_is_left_to_the_other_reader(tmp_path):
    rgba = stored(tmp_path, noise(20, 30, 4), photometric="rgb", extrasamples=["unassalpha"])
    assert TiffParts.opened(rgba) is None
    assert TiffParts.opened(stored(tmp_path, noise(20, 30), photometric="miniswhite")) is None
    assert TiffParts.opened(stored(tmp_path, noise(3, 20, 30), photometric="minisblack")) is None  # pages
    assert TiffParts.opened(stored(tmp_path, noise(20, 30), extratags=[(274, "H", 1, 6, True)])) is None
    colors = np.zeros((3, 256), np.uint16)
    assert TiffParts.opened(stored(tmp_path, noise(20, 30), photometric="palette", colormap=colors)) is None
    assert TiffParts.opened(tmp_path / "none.tif") is None
    (tmp_path / "no.tif").write_bytes(b"II*\0 no TIFF")
    assert TiffParts.opened(tmp_path / "no.tif") is None


def test_small_images_are_left_out(tmp_path):
    path = stored(tmp_path, noise(20, 30))
    assert TiffParts.opened(path, 20 * 30 + 1) is None
    assert TiffParts.opened(path, 20 * 30) is not None


def test_damage_is_told_where_it_is_met(tmp_path):
    path = stored(tmp_path, noise(64, 64), tile=(16, 16), compression="zlib")
    parts = TiffParts.opened(path)
    data = bytearray(path.read_bytes())
    start = parts.page.dataoffsets[5]
    data[start : start + 20] = bytes(20)
    path.write_bytes(data)
    damaged = TiffParts.opened(path)
    np.testing.assert_array_equal(damaged[:, 0:16, 0:64][0], noise(64, 64)[:16])
    with pytest.raises(FormatError, match="is damaged: piece 5 of its pixels.*copy it again"):
        damaged[:, 0:64, 0:64]
