import numpy as np
import pytest
from PIL import Image

from segwright.codecs.zarr_writer import writing_zarr
from segwright.core import Grid
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


def masks(folder, *names, values=(0, 1, 2)):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(np.array([values], np.uint8)).save(folder / name)


def test_two_folders_of_masks(tmp_path):
    masks(tmp_path / "found", "a.png", "b.png", values=(0, 1, 1))
    masks(tmp_path / "truth", "a.tif", "b.png")
    pairs = open_pairs(tmp_path / "found", tmp_path / "truth")
    assert pairs.keys == ("a", "b") and pairs.classes.names == ("class_0", "class_1", "class_2")
    assert pairs.load("a").truth.class_map().tolist() == [[0, 1, 2]]
    assert pairs.load("a").prediction.class_map().tolist() == [[0, 1, 1]]
    assert "truth holds masks alone; their classes are 0 class_0, 1 class_1, 2 class_2." in pairs.notes[0]


def test_two_files_belong_together_whatever_their_names(tmp_path):
    masks(tmp_path, "found.png", "truth.png")
    pairs = open_pairs(tmp_path / "found.png", tmp_path / "truth.png")
    assert pairs.load("truth").prediction.class_map().tolist() == [[0, 1, 2]]


def label_images(folder, names=None, **masks):
    pytest.importorskip("zarr", reason="Zarr needs segwright[zarr]")
    for name, numbers in masks.items():
        values = np.array(numbers, np.uint8)
        told = {"properties": [{"label-value": number, "name": each} for number, each in (names or {}).items()]}
        notes = {"image-label": told} if names is not None else None
        with writing_zarr(folder / f"{name}.zarr", Grid(values.shape), np.uint8, notes=notes) as array:
            array[:] = values


@pytest.mark.parametrize("names", [None, {}, {1: "car", 2: "road"}])
def test_folders_of_zarrs(tmp_path, names):
    masks(tmp_path / "truth" / "images", "a.png")
    masks(tmp_path / "truth" / "masks", "a.png")
    (tmp_path / "truth" / "classes.json").write_text('["sky", "road", "car"]')
    label_images(tmp_path / "found", names, a=[[0, 1, 2]], a_probabilities=[[9, 9, 9]])
    for place in (tmp_path / "found", tmp_path / "found" / "a.zarr"):
        pairs = open_pairs(place, tmp_path / "truth")
        assert pairs.keys == ("a",) and not pairs.missing
        expected = [[-1, 2, 1]] if names else [[0, 1, 2]]  # by name; else by number
        assert pairs.load("a").prediction.class_map().tolist() == expected
        assert any("holds masks without names of classes" in note for note in pairs.notes) == (not names)
    masks(tmp_path / "flat", "a.png")
    label_images(tmp_path / "flat", a_probabilities=[[9, 9, 9]])  # beside masks of another kind
    assert open_pairs(tmp_path / "flat", tmp_path / "truth").load("a").prediction.class_map().tolist() == [[0, 1, 2]]


def test_a_truth_of_zarrs(tmp_path):
    label_images(tmp_path / "truth", a=[[0, 1, 2]])
    label_images(tmp_path / "found", a=[[0, 1, 1]])
    label_images(tmp_path, {0: "road", 1: "car"}, named=[[0, 1, 1]])
    pairs = open_pairs(tmp_path / "found", tmp_path / "truth")
    assert pairs.classes.names == ("class_0", "class_1", "class_2")
    assert pairs.load("a").truth.class_map().tolist() == [[0, 1, 2]]
    pairs = open_pairs(tmp_path / "found" / "a.zarr", tmp_path / "named.zarr")  # two that are given, whatever their names
    assert pairs.keys == ("named",) and pairs.classes.names == ("road", "car")
    assert pairs.load("named").prediction.class_map().tolist() == [[0, 1, 1]]


def test_the_test_cases_of_nnu_net_are_those_that_are_predicted(tmp_path):
    for part, case in (("Tr", "one"), ("Ts", "two")):
        masks(tmp_path / "data" / f"images{part}", f"{case}_0000.png")
        masks(tmp_path / "data" / f"labels{part}", f"{case}.png")
    (tmp_path / "data" / "dataset.json").write_text(
        '{"channel_names": {"0": "grey"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".png"}'
    )
    masks(tmp_path / "found", "two.png")
    pairs = open_pairs(tmp_path / "found", tmp_path / "data")
    assert pairs.keys == ("test__two",) and pairs.load("test__two").prediction.class_map().tolist() == [[0, 1, 2]]


def test_what_holds_no_masks_is_told_in_one_line(tmp_path):
    masks(tmp_path / "found", "a.png")
    (tmp_path / "truth").mkdir()
    with pytest.raises(FormatError, match=r"truth is not laid out as a data set \(it is empty\), and holds no masks") as caught:
        open_pairs(tmp_path / "found", tmp_path / "truth")
    assert "\n" not in str(caught.value)
    masks(tmp_path / "truth", "a.png")  # the remedy
    assert open_pairs(tmp_path / "found", tmp_path / "truth").keys == ("a",)


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
