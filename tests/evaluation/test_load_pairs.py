import numpy as np
import pytest
from PIL import Image

from segwright.core.errors import FormatError, UsageError
from segwright.evaluation.load_pairs import open_pairs


def test_masks_alone_and_the_options_of_each_side(tmp_path):
    for name in ("truth/images", "truth/masks", "flat"):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(np.array([[0, 1, 2]], np.uint8)).save(tmp_path / name / "a.png")
    (tmp_path / "truth" / "classes.json").write_text('["sky", "road", "car"]')
    pairs = open_pairs(tmp_path / "flat", tmp_path / "truth")
    assert pairs.load("a").prediction.class_map().tolist() == [[0, 1, 2]]
    assert pairs.notes[-1].endswith("holds masks without names of classes; their numbers are taken for 0 sky, 1 road, 2 car.")
    (tmp_path / "torn.json").write_text("[{")
    with pytest.raises(FormatError, match="torn.json is no whole JSON, neither results nor annotations of COCO; export it"):
        open_pairs(tmp_path / "torn.json", tmp_path / "truth")
    with pytest.raises(FormatError, match="is not laid out as a data set"):
        open_pairs(tmp_path / "truth" / "images", tmp_path / "truth")


def test_a_run_is_no_prediction(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").touch()
    with pytest.raises(FormatError, match="run is a model and not what it predicts; use: segwright evaluate .*run DATA"):
        open_pairs(tmp_path / "run", "synthetic:cells")


def test_a_list_of_detections_is_no_data_set(tmp_path):
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(UsageError, match="is a list of detections, without the images that they are in; give a data set"):
        open_pairs(tmp_path / "results.json", "synthetic:cells")


def test_the_remedy_names_the_option_of_the_side(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.array([[0, 1, 2]], np.uint8)).save(tmp_path / name / "a.png")
    with pytest.raises(UsageError, match="there is no format 'vox'"):
        open_pairs(tmp_path, tmp_path, "vox")
