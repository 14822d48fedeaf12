from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from segwright.core import Classes, Dataset, Grid, Sample
from segwright.core.errors import SegwrightError, SettingError, ShapeError
from segwright.data.value_range import ValueRange
from segwright.decoding.score_calibration import ScoreCalibration
from segwright.inference.dense_crf import DenseCRF
from segwright.inference.engine import TorchEngine
from segwright.inference.predictor import Predictor
from segwright.layers.detections import Detections
from segwright.tasks.instance import Instance
from segwright.tasks.semantic import Semantic
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess

TWO, THREE = Classes.of(["dark", "bright"]), Classes.of(["dark", "middle", "bright"])
AS_IT_IS = Preprocess(channels=1, normalise=Normalise(mean=(0.0,), std=(1.0,)))


class Bright(nn.Module):
    """Logits of "at least half as bright as 200", averaged over blocks; refuses sides that its divisors do not divide."""

    def __init__(self, stride: int = 1, divisor: int = 1, axes: int = 2) -> None:
        super().__init__()
        self.stride, self.divisors = stride, (divisor,) * axes
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert all(side % d == 0 for side, d in zip(image.shape[2:], self.divisors, strict=True)), image.shape
        self.shapes.append(tuple(image.shape[2:]))
        pool = nn.functional.avg_pool2d if image.ndim == 4 else nn.functional.avg_pool3d
        bright = pool(image[:, :1], self.stride) - 100
        return torch.cat([-bright, bright], dim=1)


def predictor_of(network: nn.Module, **changes) -> Predictor:
    settings = {"task": Semantic(), "classes": TWO, "preprocess": AS_IT_IS, "engine": TorchEngine(network)} | changes
    return Predictor(network=network, **settings)


def at_scale(scale: float, axes: int = 2) -> Preprocess:
    return replace(AS_IT_IS, scale=(scale,) * axes)


def square(shape: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...]) -> np.ndarray:
    """A dark uint8 image (1, *S) with a bright box."""
    image = np.zeros((1, *shape), np.uint8)
    image[0, *(slice(a, b) for a, b in zip(low, high, strict=True))] = 200
    return image


# By hand


def test_the_class_of_each_pixel():
    image = np.array([[[0, 200, 200], [0, 0, 200]]], np.uint8)
    found = predictor_of(Bright())(image)
    assert found.class_map().tolist() == [[0, 1, 1], [0, 0, 1]]
    assert found.classes is TWO


def test_a_sample_and_its_image_give_the_same():
    image = square((9, 11), (2, 3), (5, 8))
    sample = Sample("a", image, Grid((9, 11), (0.5, 0.5)))
    predictor = predictor_of(Bright())
    assert (predictor(sample).planes == predictor(image).planes).all()


def test_one_pixel():
    assert predictor_of(Bright(4, 32))(np.full((1, 1, 1), 200, np.uint8)).class_map().tolist() == [[1]]


def test_colours_go_to_a_network_for_grey_and_back():
    colour = np.repeat(square((8, 8), (0, 0), (4, 8)), 3, axis=0)
    assert predictor_of(Bright())(colour).class_map().sum() == 32
    to_colours = predictor_of(Bright(), preprocess=Preprocess(normalise=Normalise(mean=(0.0,) * 3, std=(1.0,) * 3)))
    assert to_colours(colour[:1]).class_map().sum() == 32


@pytest.mark.parametrize("scale", [0.5, 1, 2])
@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_what_the_image_lacks_is_void_and_the_rest_is_as_without(scale, tile):
    image = square((64, 96), (16, 24), (48, 72)).astype(np.float32)
    whole = predictor_of(Bright(2, 8), preprocess=at_scale(scale), tile=tile, flips=(-1,))(image).class_map()
    missing = np.zeros((64, 96), bool)
    missing[:, 80:] = missing[40:42, 30:32] = True
    found = predictor_of(Bright(2, 8), preprocess=at_scale(scale), tile=tile, flips=(-1,))(
        np.where(missing, np.float32(np.nan), image)
    ).class_map()
    np.testing.assert_array_equal(found == -1, missing)
    assert ((found != whole) & ~missing).sum() <= 80 * (1 / scale) ** 2  # beside the hole, in the blocks that it is part of


def test_a_pixel_that_lacks_one_channel_is_void():
    colour = np.full((3, 4, 4), 200, np.float64)
    colour[2, 1, 1] = np.nan
    colour[:, 2, 2] = np.inf
    found = predictor_of(Bright())(colour).class_map()  # a network for grey
    assert np.argwhere(found == -1).tolist() == [[1, 1], [2, 2]] and (found == 1).sum() == 14


@pytest.mark.parametrize("shape", [(8, 8), (4, 8, 8)])
def test_an_image_without_any_value_is_void(shape):
    found = predictor_of(Bright(axes=len(shape)))(np.full((1, *shape), np.nan, np.float32))
    assert (found.class_map() == -1).all() and len(found) == 0


# By a law


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("scale", [0.5, 1, 2])
@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_what_is_seen_lands_where_it_was(stride, scale, tile):
    """An edge shifted by half a pixel of the logits would be seen; corners may be cut by what is smaller than a block."""
    image = square((64, 96), (16, 24), (48, 72))  # on borders of blocks, whatever the stride and the scale
    found = predictor_of(Bright(stride, 8), preprocess=at_scale(scale), tile=tile)(image).class_map()
    wrong = found != (image[0] > 0)
    assert not wrong[32].any() and not wrong[:, 48].any()
    assert wrong.sum() <= 4 * (stride / scale) ** 2


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(20, 70), st.integers(20, 70)),
    scale=st.sampled_from([0.5, 0.7, 1.0, 1.5, 2.0]),
    stride=st.sampled_from([1, 2, 4]),
    tile=st.sampled_from([None, (32, 48)]),
)
def test_the_middle_of_a_ramp_stays_at_any_size(shape, scale, stride, tile):
    """Of a ramp from dark to bright, the line half-way stays where it is, to the pixel that it cuts, also with padding."""
    ramp = np.linspace(0, 200, shape[1])[None, None] * np.ones((1, shape[0], 1))
    found = predictor_of(Bright(stride, 8), preprocess=at_scale(scale), tile=tile)(ramp.astype(np.float32)).class_map()
    assert found.shape == shape
    assert (abs(found.sum(axis=1) - shape[1] / 2) <= 1).all()


def test_in_3d():
    image = square((20, 24, 28), (4, 8, 12), (12, 16, 20))
    for tile in (None, (8, 16, 16)):
        found = predictor_of(Bright(1, 8, axes=3), tile=tile)(image).class_map()
        assert (found == (image[0] > 0)).all()
    half = at_scale(0.5, axes=3)
    halved = predictor_of(Bright(2, 8, axes=3), preprocess=half)(image).class_map()  # blocks of 4 pixels: corners are lost
    for line in ((slice(None), 12, 16), (8, slice(None), 16), (8, 12, slice(None))):
        assert (halved[line] == (image[0][line] > 0)).all()


def test_flips_of_a_network_without_sides_change_nothing():
    image = np.random.default_rng(0).integers(0, 200, (1, 40, 33), dtype=np.uint8)
    plain = predictor_of(Bright(2, 8))(image)
    network = Bright(2, 8)
    flipped = predictor_of(network, flips=(-2, -1))(image)
    assert len(network.shapes) == 4
    assert (plain.class_map() == flipped.class_map()).mean() > 0.99  # padding lies elsewhere


def test_only_few_shapes_reach_the_network():
    network = Bright(4, 8)
    predictor = predictor_of(network, tile=(64, 64))
    generator = np.random.default_rng(0)
    for _ in range(60):
        height, width = generator.integers(1, 200, 2)
        assert predictor(np.zeros((1, height, width), np.uint8)).shape == (height, width)
    assert {side for shape in network.shapes for side in shape} <= set(range(8, 65, 8))


def test_input_and_network_stay_as_they_are():
    image = square((10, 10), (2, 2), (5, 5))
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(), nn.Conv2d(1, 2, 1)).train()
    network[1].eval()
    before, weights = image.copy(), {name: value.clone() for name, value in network.state_dict().items()}
    predictor_of(network, preprocess=at_scale(0.5))(image)
    assert (image == before).all()
    assert [module.training for module in network] == [True, False, True] and network.training
    assert all((weights[name] == value).all() for name, value in network.state_dict().items())


def test_the_engine_is_found_without_being_given():
    image = square((9, 11), (2, 3), (5, 8))
    found = Predictor(network=Bright(), task=Semantic(), classes=TWO, preprocess=AS_IT_IS)(image)
    assert (found.class_map() == (image[0] > 0)).all()


# By its messages


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8), np.uint8), r"\(8, 8\).*grey image as image\[None\]"),
        (np.zeros((8, 8, 3), np.uint8), r"channels come first: give np.moveaxis\(image, -1, 0\)"),
        (np.zeros((1, 0, 3), np.uint8), "without empty axes"),
        (np.zeros((2, 8, 8), np.uint8), "2 channels, 1 are needed"),
        (np.zeros((1, 8, 8, 8), np.uint8), "3 spatial axes, but tile is"),
    ],
)
def test_other_images_are_refused(image, message):
    with pytest.raises(ShapeError, match=message):
        predictor_of(Bright(), tile=(32, 32))(image)


@pytest.mark.parametrize("flips", [(0,), (-4,), (-1, -1)])
def test_flips_are_checked(flips):
    with pytest.raises(SettingError, match="count axes from the end, each once"):
        predictor_of(Bright(), flips=flips)


def test_flips_that_the_image_lacks_are_refused():
    with pytest.raises(ShapeError, match="flip only axes that it has"):
        predictor_of(Bright(), flips=(-3,))(np.zeros((1, 8, 8), np.uint8))


def test_another_number_of_classes_is_refused():
    with pytest.raises(ShapeError, match="gives 2 classes, but there are names for 3"):
        predictor_of(Bright(), classes=THREE)(np.zeros((1, 8, 8), np.uint8))


def test_nan_is_not_an_answer():
    class Lost(Bright):
        def forward(self, image):
            return super().forward(image) * float("nan")

    with pytest.raises(SegwrightError, match="answers NaN; its weights hold NaN"):
        predictor_of(Lost())(np.zeros((1, 8, 8), np.uint8))


# On another scale than in training

IMAGE = np.tile(np.arange(256, dtype=np.uint8), 4).reshape(1, 16, 64)  # of which bright is 100 and more
TRAINED = ValueRange.measured(Dataset("memory", TWO, ("a",), lambda key: Sample.of(key, IMAGE)))


def is_bright(predictor: Predictor, image: np.ndarray) -> np.ndarray:
    return predictor(image).class_map() == 1


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (IMAGE, []),
        (IMAGE // 10, []),
        (
            IMAGE.astype(np.uint16) * 257,
            ["uint16 images full at 65535 are divided by 257, as the model was trained on 0 to 255 (uint8)"],
        ),
        (
            (IMAGE / 255).astype(np.float32),
            ["float32 images full at 1 are multiplied by 255, as the model was trained on 0 to 255 (uint8)"],
        ),
        (IMAGE / 255, ["float64 images full at 1 are multiplied by 255, as the model was trained on 0 to 255 (uint8)"]),
        (IMAGE.astype(np.uint16), []),
        (IMAGE.astype(np.float64), []),
    ],
)
def test_where_the_type_tells_the_scale_the_masks_are_the_same_and_it_is_said_once(image, said, caplog):
    caplog.set_level("INFO", "segwright.inference.predictor")
    predictor, plain = predictor_of(Bright(), trained_on=TRAINED), predictor_of(Bright())
    expected = is_bright(plain, IMAGE if image.max() != 25 else image)
    for _ in range(3):
        assert np.array_equal(is_bright(predictor, image), expected)
    assert [record.getMessage() for record in caplog.records] == said


def test_another_scale_is_doubted_once_with_both_ranges_and_the_way_out_works(caplog):
    predictor = predictor_of(Bright(), trained_on=TRAINED)
    for image in (IMAGE.astype(np.uint16) * 16, IMAGE.astype(np.uint16) * 15):
        assert predictor.on_scale(Sample.of("cell", image)).image is image
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "uint16 images seem to be on another scale" in record.getMessage()
    text = record.getMessage()
    assert "cell holds 0 to 4080, and the model was trained on 0 to 255 (uint8); give these images alone, with --values" in text
    assert text.endswith("the numbers that stand for 0 and 255 there")
    caplog.clear()
    scaled = replace(predictor, values=(0, 4080), told=set())
    assert np.array_equal(is_bright(scaled, IMAGE.astype(np.uint16) * 16), is_bright(predictor, IMAGE))
    turned = replace(predictor, values=(255, 0))  # as of a negative
    assert np.array_equal(is_bright(turned, 255 - IMAGE), is_bright(predictor, IMAGE))
    assert not caplog.records


def test_hounsfield_units_are_doubted_and_their_window_may_be_said(caplog):
    image = (IMAGE * 4.0 - 160).astype(np.int16)
    predictor = predictor_of(Bright(), trained_on=TRAINED)
    predictor(image)
    assert "int16 images seem to be on another scale" in caplog.text and "one holds -160 to 860" in caplog.text
    assert np.array_equal(is_bright(replace(predictor, values=(-160, 860)), image), is_bright(predictor, IMAGE))


def test_where_each_image_is_measured_or_nothing_is_known_no_scale_matters(caplog):
    caplog.set_level("INFO", "segwright.inference.predictor")
    image = IMAGE.astype(np.uint16) * 16
    each = predictor_of(Bright(), trained_on=TRAINED, preprocess=Preprocess(channels=1))
    for predictor in (each, predictor_of(Bright())):
        assert predictor.on_scale(Sample.of("cell", image)).image is image
    assert not caplog.records


class ThreeCells(nn.Module):
    """Three cells of 4 x 4 pixels, of which it is ever less sure."""

    divisors = (1, 1)

    def forward(self, image: torch.Tensor) -> Detections:
        left = torch.tensor([0.0, 5, 10])
        boxes = torch.stack([left, 0 * left, left + 4, 0 * left + 4], dim=1)[None]
        scores = torch.tensor([[0.96, 0.8, 0.5]])
        return Detections(boxes, scores, torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, 3, 2, 2), boxes)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize(("min_score", "count"), [(0.0, 3), (0.3, 2), (0.6, 1), (0.9, 0), (1.0, 0)])
def test_scores_of_objects_and_the_least_of_them_are_probabilities_where_there_is_a_map(min_score, count, tile):
    changes = {"task": Instance(), "classes": Classes.of(["cell"], is_thing=[True]), "min_score": min_score, "tile": tile}
    calibration = ScoreCalibration(slope=0.5, shift=-1.0)
    found = predictor_of(ThreeCells(), calibration=calibration, **changes)(np.zeros((1, 16, 16), np.uint8))
    expected = calibration.probabilities(np.array([0.96, 0.8, 0.5], np.float32))  # 0.64, 0.42, 0.27
    assert found.scores.tolist() == pytest.approx(expected[:count].tolist())
    assert found.instance_ids.tolist() == [1, 2, 3][:count] and found.planes.max(initial=0) == count
    plain = predictor_of(ThreeCells(), **changes)(np.zeros((1, 16, 16), np.uint8))
    assert plain.scores.tolist() == pytest.approx([each for each in (0.96, 0.8, 0.5) if each >= min_score])


def test_values_that_say_nothing_are_refused():
    for changes, message in (
        ({"min_score": 1.5}, "min_score is 1.5; scores lie between 0 and 1"),
        ({"min_score": float("nan")}, "min_score is nan"),
        ({"trained_on": TRAINED, "values": (5, 5)}, "values are 5 and 5; give two different numbers"),
        ({"trained_on": TRAINED, "values": (0, float("nan"))}, "values are 0 and nan; give two"),
        ({"values": (0, 4095)}, "the model file, of an earlier version, does not say .*; leave them out"),
        (
            {"trained_on": TRAINED, "values": (0, 4095), "preprocess": Preprocess(channels=1)},
            "measures each image by itself, so that its scale does not matter; leave them out",
        ),
    ):
        with pytest.raises(SettingError, match=message):
            predictor_of(Bright(), **changes)


# A dense CRF


class _Boxes:
    """A task that knows no class probabilities."""

    agreement = None


def noisy_square() -> np.ndarray:
    """A bright square (3, H, W) with dark specks, on a dark ground with bright ones."""
    image = np.repeat(square((32, 40), (8, 8), (24, 32)), 3, axis=0)
    image[:, 3, 3], image[:, 12, 12] = 200, 0
    return image


def test_a_crf_takes_specks_away():
    crf = DenseCRF(bilateral_compat=0, gaussian_compat=8)
    unsure = Preprocess(channels=1, normalise=Normalise(mean=(-9900.0,), std=(100.0,)))  # logits of 1 and -1
    plain, redrawn = (predictor_of(Bright(), preprocess=unsure, crf=each)(noisy_square()).class_map() for each in (None, crf))
    assert plain[3, 3] == 1 and plain[12, 12] == 0
    assert redrawn[3, 3] == 0 and redrawn[12, 12] == 1 and redrawn[8:24, 8:32].mean() > 0.9  # corners are rounded


@pytest.mark.parametrize("change", [lambda image: image.astype(np.uint16) * 257, lambda image: image / np.float32(255)])
def test_colours_count_from_0_to_255_whatever_their_type(change, monkeypatch):
    seen = []
    monkeypatch.setattr(DenseCRF, "__call__", lambda self, image, probs: (seen.append(image), probs)[1])
    image = noisy_square()
    image[:, 0, 0] = 255
    predictor = predictor_of(Bright(), crf=DenseCRF())
    for each in (image, change(image)):
        predictor(each)
    assert seen[0] is image and seen[1] == pytest.approx(image, abs=1e-3)
    replace(predictor, trained_on=TRAINED, values=(0.0, 510.0))(image)
    assert seen[2] == pytest.approx(image / 2, abs=1e-3)


def test_a_crf_leaves_pixels_without_values_void():
    image = noisy_square().astype(np.float32)
    image[:, 20:, 30:] = np.nan
    found = predictor_of(Bright(), crf=DenseCRF())(image).class_map()
    assert (found[20:, 30:] == -1).all() and (found[:20] >= 0).all()


@pytest.mark.parametrize(
    ("changes", "shape", "what"),
    [
        ({}, (1, 4, 16, 16), "a volume"),
        ({}, (2, 16, 16), "2 channels"),
        ({"tile": (8, 8, 8)}, None, "a volume"),
        ({"preprocess": Preprocess(channels=4)}, None, "4 channels"),
        ({"task": _Boxes()}, None, "a task '_Boxes'"),
    ],
)
def test_a_crf_without_classes_or_colours_is_refused_with_a_remedy(changes, shape, what):
    with pytest.raises(SettingError, match=f"this is {what}; predict without it .leave out --crf; in Python crf=None"):
        predictor_of(Bright(), crf=DenseCRF(), **changes)(np.zeros(shape or (1, 8, 8), np.uint8))


@pytest.mark.parametrize(("shape", "tile"), [((90, 130), (32, 64)), ((20, 30, 40), (16, 16, 32))])
@pytest.mark.parametrize("preprocess", [AS_IT_IS, Preprocess(channels=1), replace(AS_IT_IS, scale=(0.5, 1.5))])
def test_large_images_are_normalised_part_by_part(shape, tile, preprocess, monkeypatch):
    if preprocess.scale is not None and len(shape) == 3:
        preprocess = replace(preprocess, scale=(0.5, 1.5, 1.0))
    image = np.random.default_rng(0).integers(0, 200, (1, *shape)).astype(np.uint8)
    network = nn.Conv2d(1, 2, 3, padding=1) if len(shape) == 2 else nn.Conv3d(1, 2, 3, padding=1)
    predictor = predictor_of(network.eval(), preprocess=preprocess, tile=tile)
    whole = predictor(image)
    monkeypatch.setattr("segwright.inference.predictor.LARGE", 0)
    monkeypatch.setattr(Preprocess, "__call__", lambda *_: pytest.fail("all of it was normalised"))
    found = predictor(image)
    assert (found.planes == whole.planes).mean() > 0.9999
    with pytest.raises(pytest.fail.Exception, match="all of it"):
        replace(predictor, tile=None)(image)


class BrightFlows(nn.Module):
    """Bright pixels are of an object, and those that touch have one middle."""

    OUTPUT = "flows"
    divisors = (1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(image), torch.zeros_like(image), image - 251], dim=1)


class BrightCells(nn.Module):
    """One cell where a tile is brightest, as large as it is bright."""

    divisors = (1, 1)

    def forward(self, image: torch.Tensor) -> Detections:
        high, place = image.flatten(1).max(dim=1)
        left, top = place % image.shape[3], place // image.shape[3]
        boxes = torch.stack([left, top, left + high / 30, top + high / 30], dim=1)[:, None]
        return Detections(boxes, high[:, None] / 255, torch.zeros(len(image), 1).long(), torch.ones(len(image), 1, 2, 2), boxes)


@pytest.mark.parametrize("network", [BrightFlows(), BrightCells()])
def test_objects_of_large_images_are_found_part_by_part(network, monkeypatch):
    image = np.random.default_rng(0).integers(0, 255, (1, 60, 90)).astype(np.uint8)
    changes = {"task": Instance(), "classes": Classes.of(["cell"], is_thing=[True]), "tile": (32, 32)}
    predictor = predictor_of(network, preprocess=AS_IT_IS, **changes)
    whole = predictor(image)
    monkeypatch.setattr("segwright.inference.predictor.LARGE", 0)
    monkeypatch.setattr(Preprocess, "__call__", lambda *_: pytest.fail("all of it was normalised"))
    found = predictor(image)
    assert len(found) > 3 and (found.planes == whole.planes).all() and (found.scores == whole.scores).all()


def test_parts_of_large_images_are_on_the_scale_of_training(monkeypatch):
    image = square((40, 60), (5, 5), (20, 30))
    predictor = predictor_of(Bright(), tile=(16, 16), trained_on=TRAINED)
    whole = predictor(image)
    monkeypatch.setattr("segwright.inference.predictor.LARGE", 0)
    wide = predictor(image.astype(np.uint16) * 257)
    assert (wide.planes == whole.planes).all()
    assert (replace(predictor, values=(0, 400))(image.astype(np.int32) * 2).planes == whole.planes).mean() > 0.9
