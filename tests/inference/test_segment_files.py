"""Image files to files of objects."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

from segwright.codecs import rle
from segwright.core import Classes, Prompt
from segwright.core.errors import FormatError, OutputError, ShapeError, UsageError
from segwright.core.weights import Intake
from segwright.data.fingerprint import IntensityStatistics
from segwright.data.value_range import ValueRange
from segwright.inference.predictor import Predictor
from segwright.inference.prompting import Prompter, prompter_of
from segwright.inference.segment_files import parsed_prompts, segment_files
from segwright.layers.prompts import PromptedMasks
from segwright.tasks.promptable import Promptable
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess


@pytest.fixture
def image(tmp_path, squares):
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.moveaxis(squares, 0, -1)).save(tmp_path / "photos" / "a.png")
    return tmp_path / "photos" / "a.png"


ON = [Prompt(points_xy=np.array([[10, 10]], np.float32), is_foreground=np.array([True]))]


def test_a_point_gives_a_map_of_numbers_and_a_picture(squares_prompter, image, tmp_path):
    (found,) = segment_files(squares_prompter, [image], ON, tmp_path / "out.png", overlay=True)
    numbers = np.array(Image.open(tmp_path / "out.png"))
    assert numbers.shape == (64, 64) and set(np.unique(numbers)) == {0, 1}
    assert found.pixels == (numbers == 1).sum() and found.number == 1 and found.image == str(image)
    left, top, right, bottom = found.box_xyxy
    assert (numbers == 1)[top:bottom, left:right].sum() == found.pixels
    assert Image.open(tmp_path / "out_overlay.png").size == (64, 64)


def test_everything_of_a_folder_goes_into_a_folder(squares_prompter, image, tmp_path):
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(image.parent / "b.png")
    found = segment_files(squares_prompter, [image.parent], [], tmp_path / "out", everything={"points_per_side": 8})
    assert [each.number for each in found] == [1, 2]
    assert np.unique(np.array(Image.open(tmp_path / "out" / "a.png"))).tolist() == [0, 1, 2]
    assert not np.array(Image.open(tmp_path / "out" / "b.png")).any()


def test_json_keeps_every_mask(squares_prompter, image, tmp_path):
    found = segment_files(squares_prompter, [image], [], tmp_path / "out.json", everything={"points_per_side": 8})
    said = json.loads((tmp_path / "out.json").read_text())
    assert said["images"][0] == {"id": 1, "file_name": "a.png", "height": 64, "width": 64}
    for each, row in zip(said["annotations"], found, strict=True):
        counts = rle.from_text(each["segmentation"]["counts"])
        assert rle.area(counts) == each["area"] == row.pixels and each["score"] == row.score
        assert rle.box_xyxy(counts, (64, 64)) == row.box_xyxy


def test_what_is_wrong_with_one_image_of_several_is_told_and_the_others_are_written(squares_prompter, image, tmp_path):
    (image.parent / "b.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"1 of 2 images could not be segmented, the others were: .*b.png"):
        segment_files(squares_prompter, [image.parent], [], tmp_path / "out", everything={"points_per_side": 4})
    assert (tmp_path / "out" / "a.png").exists()
    with pytest.raises(FormatError, match=r"b.png"):
        segment_files(squares_prompter, [image.parent / "b.png"], ON, tmp_path / "out.png")


class Seen(nn.Module):
    """Keeps the images that it encodes, and answers everything with the whole image."""

    divisors = (16, 16)
    OUTPUT = "prompted_masks"

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.images: list[np.ndarray] = []

    def encode(self, image):
        self.images.append(image[0].numpy().copy())
        return torch.zeros(1, 1, image.shape[2] // 16, image.shape[3] // 16)

    def decode(self, embedding, prompts, *, multimask):
        count, sides = prompts.points_xy.shape[1], [4 * side for side in embedding.shape[2:]]
        return PromptedMasks(torch.full((1, count, 1, *sides), 200.0), torch.ones(1, count, 1))


@pytest.mark.parametrize("wish", [{}, {"everything": {"points_per_side": 2}}, {"ahead": True}])
def test_images_reach_a_network_of_a_run_in_the_values_of_training(wish, tmp_path):
    deep = np.random.default_rng(0).integers(0, 2**16, (5, 16, 32), np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="minisblack", planarconfig="separate", metadata={"axes": "CYX"})
    preprocess = Preprocess(channels=5, normalise=Normalise(mean=(0.0,) * 5, std=(1.0,) * 5))
    for dtype, factor in (("uint16", 1), ("uint8", 257)):
        channel = IntensityStatistics(**dict.fromkeys(IntensityStatistics.__dataclass_fields__, 0.0))
        channel = replace(channel, high=float(np.iinfo(dtype).max), highest=float(np.iinfo(dtype).max))
        network, trained_on = Seen(), ValueRange(dtypes=(dtype,), channels=(channel,) * 5)
        predictor = Predictor(
            **{"network": network, "task": Promptable(), "classes": Classes.of(["object"]), "preprocess": preprocess},
            **{"tile": (32, 32), "trained_on": trained_on},
        )
        prompts = [] if wish else ON
        segment_files(prompter_of(predictor), [tmp_path / "deep.tif"], prompts, tmp_path / "out.png", overlay=True, **wish)
        np.testing.assert_allclose(network.images[0], deep / factor, rtol=1e-6)
    assert (tmp_path / "out_overlay.png").exists() != ("ahead" in wish)


def test_images_of_any_kind_reach_published_networks_in_8_bit_colours(tmp_path):
    network, file = Seen(), tmp_path / "deep.tif"
    tifffile.imwrite(file, np.arange(512, dtype=np.uint16).reshape(16, 32) * 100)
    segment_files(
        Prompter(network=network, intake=Intake(mean=(0, 0, 0), std=(1, 1, 1)), side=32), [file], ON, tmp_path / "o.png"
    )
    (seen,) = network.images
    assert seen.shape == (3, 32, 32) and seen.min() == 0 and seen.max() == 255 and (seen[0] == seen[2]).all()
    tifffile.imwrite(tmp_path / "volume.tif", np.zeros((5, 6, 8), np.uint8), metadata={"axes": "ZYX"})
    with pytest.raises(ShapeError, match=r"volume.tif: it is a volume .* save one slice of it"):
        segment_files(Prompter(network=network, side=32), [tmp_path / "volume.tif"], ON, tmp_path / "o.png")


def test_prompts_as_people_write_them(tmp_path):
    assert parsed_prompts([], [], None) == []
    mask = np.zeros((4, 5), np.uint8)
    mask[1, 2] = 7
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (one,) = parsed_prompts(["1,2", "3.5, 4,-", "5,6,+"], ["0,1,10,12"], tmp_path / "mask.png")
    assert one.points_xy.tolist() == [[1, 2], [3.5, 4], [5, 6]] and one.is_foreground.tolist() == [True, False, True]
    assert one.box_xyxy.tolist() == [0, 1, 10, 12] and np.array_equal(one.mask, mask == 7)
    boxes = parsed_prompts([], ["0,0,1,1", "2,2,3,3"], None)
    assert [each.object_id for each in boxes] == [1, 2] and boxes[1].box_xyxy.tolist() == [2, 2, 3, 3]
    for points, corners, message in (
        (["1;2"], [], "--point is '1;2'; write x,y on the object or x,y,- beside it"),
        (["1,2,x"], [], "--point is '1,2,x'"),
        (["nan,2"], [], "--point is 'nan,2'"),
        ([], ["1,2,3"], "--box is '1,2,3'; write left,top,right,bottom"),
        (["1,2"], ["0,0,1,1", "2,2,3,3"], "2 boxes are 2 objects, .* give one box with these, or boxes alone"),
    ):
        with pytest.raises(UsageError, match=message):
            parsed_prompts(points, corners, None)


def test_neither_images_nor_masks_of_a_data_set_are_replaced(image, tmp_path):
    picture = image.rename(image.with_name("a_overlay.png"))
    with pytest.raises(OutputError, match="a_overlay.png is one of the images itself"):
        segment_files("no network", [picture], ON, image, overlay=True)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    picture.rename(tmp_path / "images" / "a.png")
    (tmp_path / "masks" / "a.png").write_bytes(b"truth")
    with pytest.raises(OutputError, match="masks/a.png lies beside the images of a data set and may be its truth"):
        segment_files("no network", [tmp_path], [], tmp_path / "masks", everything={})
    assert (tmp_path / "masks" / "a.png").read_bytes() == b"truth"


def test_what_cannot_be_done_is_refused_before_anything_is_opened(image, tmp_path):
    other = image.parent / "b.png"
    other.write_bytes(image.read_bytes())
    for images, prompts, out, everything, kind, message in (
        ([image], [], None, None, UsageError, "what to find is not told, .* give prompts"),
        ([image], ON, None, {}, UsageError, "or in several ways"),
        ([image.parent], ON, None, None, UsageError, "prompts are about one image, and 2 are given"),
        ([image], ON, image, None, OutputError, "a.png is one of the images itself, .* choose another with out"),
        ([image.parent], [], image.parent, {}, OutputError, "a.png is one of the images itself"),
        ([image], ON, tmp_path / "out.jpg", None, OutputError, "'.jpg' holds no objects here; name the file .png"),
        ([image], ON, image / "out.png", None, OutputError, "a.png cannot be written .*; choose another folder"),
        ([image.parent], [], tmp_path / "out.png", {}, OutputError, "is one file, and there are 2 images; give a folder"),
    ):
        with pytest.raises(kind, match=message):
            segment_files("no network", images, prompts, out, everything=everything)


def test_images_of_one_name_are_not_dropped(squares_prompter, image, tmp_path):
    other = tmp_path / "more" / "a.png"
    other.parent.mkdir()
    other.write_bytes(image.read_bytes())
    for places in ([image.parent, other.parent], [image, other]):
        with pytest.raises(FormatError, match="more/a.png and .*photos/a.png would both be called a; rename one, or call once"):
            segment_files(squares_prompter, places, [], tmp_path / "out", everything={"points_per_side": 2})
    assert len(segment_files(squares_prompter, [image, image], ON, tmp_path / "out.png")) == 1


def test_what_is_read_is_not_replaced_and_folders_are_no_files(squares_prompter, image, tmp_path):
    mask = tmp_path / "mask.png"
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(mask)
    before = mask.read_bytes()
    with pytest.raises(OutputError, match="mask.png is one of the images itself, or a mask that was given"):
        segment_files(squares_prompter, [image], ON, mask, spared=[mask])
    (tmp_path / "a_overlay.png").mkdir()
    for out in ("a_overlay.png", "a.json"):
        with pytest.raises(OutputError, match="a_overlay.png is a folder; give the name of a file in it"):
            segment_files(squares_prompter, [image], ON, tmp_path / out, overlay=True)
    assert mask.read_bytes() == before and not (tmp_path / "a.json").exists()
