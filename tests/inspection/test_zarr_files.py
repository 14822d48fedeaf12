"""What inspect tells of Zarrs that lack chunks."""

import json

import numpy as np
import pytest

from segwright.codecs.zarr_writer import writing_zarr
from segwright.core import Classes, Grid, Sample, Segmentation
from segwright.core.errors import FormatError
from segwright.formats import ome_zarr, open_dataset
from segwright.inspection.finding import MEANING
from segwright.inspection.inspect import inspect
from segwright.inspection.zarr_files import about_zarrs

zarr = pytest.importorskip("zarr", reason="Zarr needs segwright[zarr]")


def written(root):
    """A data set with a mask of two chunks, of which one is all background."""
    numbers = np.zeros((100, 12), int)
    numbers[:20, 3:] = 1
    truth = Segmentation.semantic(numbers, Classes.of(["background", "cell"]))
    ome_zarr.write(root, [Sample.of("a", np.arange(1200, dtype=np.uint16).reshape(1, 100, 12), truth)])
    return root / "a.ome.zarr" / "labels" / "masks"


def test_a_lost_chunk_of_ours_is_an_error(tmp_path):
    masks = written(tmp_path)
    assert about_zarrs(tmp_path) == []
    [*_, last] = sorted(path for path in (masks / "0" / "c").rglob("*") if path.is_file())
    last.unlink()
    with pytest.raises(
        FormatError, match="masks is not whole: 1 of its 2 chunks are gone; copy or write it again .* 'all_chunks'"
    ):
        open_dataset(tmp_path)[0]
    assert any(finding.level == "error" and "is not whole" in finding.evidence for finding in inspect(tmp_path).findings)
    content = json.loads((masks / "zarr.json").read_text())  # the remedy where another program has removed it
    del content["attributes"]["segwright"]["all_chunks"]
    (masks / "zarr.json").write_text(json.dumps(content))
    assert open_dataset(tmp_path)[0].truth.class_map().sum() == 180


def test_what_others_left_out_is_told(tmp_path):
    with writing_zarr(tmp_path / "images" / "a.zarr", Grid((40, 12)), np.uint8) as array:
        array[:] = 1
    (tmp_path / "masks").mkdir()
    array = zarr.create_array(store=str(tmp_path / "masks" / "a.zarr"), shape=(40, 12), chunks=(20, 12), dtype="u1")
    array[:5] = 1
    [finding] = about_zarrs(tmp_path)
    assert finding.name == "missing-chunks" and finding.name in MEANING and finding.level == "note"
    assert "masks/a: 1 of 2" in finding.evidence and "looks the same" in finding.remedy and finding.numbers == {"arrays": 1}
    assert "missing-chunks" in {each.name for each in inspect(tmp_path).findings}
    [only] = about_zarrs(tmp_path / "masks" / "a.zarr")
    assert only.evidence.startswith("Chunks are not there (a: 1 of 2)")
    array[5:] = 2
    assert about_zarrs(tmp_path) == []
