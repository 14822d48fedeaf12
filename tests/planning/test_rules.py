"""What a planner concludes from a fingerprint alone."""

from dataclasses import replace

import numpy as np
import pytest

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.data.fingerprint import Fingerprint, fingerprint
from segwright.data.samplers.foreground_patches import ForegroundPatches
from segwright.data.samplers.repeat_factor import RepeatFactor
from segwright.data.samplers.uniform import Uniform
from segwright.planning.rules import (
    augmentation_rules,
    batch_for_volumes,
    crop_for,
    on_grid,
    preprocess_rules,
    sampler_rules,
    spacing_rules,
)


def dataset(images, class_maps) -> Dataset:
    classes = Classes.of(["a", "b"])
    samples = {
        str(i): Sample.of(str(i), image, Segmentation.semantic(class_map, classes))
        for i, (image, class_map) in enumerate(zip(images, class_maps, strict=True))
    }
    return Dataset("data", classes, tuple(samples), samples.__getitem__)


def looked_at(*, channels=3, dtype=np.uint8, levels=(100, 100, 100), class_map=None) -> Fingerprint:
    generator = np.random.default_rng(0)
    images = [(generator.normal(level, 20, (channels, 40, 60))).astype(dtype) for level in levels]
    class_map = np.arange(60)[None, :] % 2 + np.zeros((40, 1), int) if class_map is None else class_map
    return fingerprint(dataset(images, [class_map] * len(images)))


def test_photographs_alike_share_one_normalisation():
    data, reasons = preprocess_rules(looked_at())
    assert data.channels == 3 and data.normalise.mean is not None
    assert data.normalise.mean == pytest.approx((100, 100, 100), abs=1)
    assert "8-bit" in reasons["data.preprocess.normalise"]


def test_images_of_other_brightness_or_depth_are_measured_one_by_one():
    assert preprocess_rules(looked_at(levels=(20, 220)))[0].normalise.mean is None
    assert preprocess_rules(looked_at(dtype=np.uint16))[0].normalise.mean is None


@pytest.mark.parametrize(
    ("kinds", "channels"), [({1: 5}, 1), ({3: 5}, 3), ({1: 4, 3: 1}, 3), ({3: 2, 4: 2}, 3), ({4: 2}, 4), ({6: 1}, 6)]
)
def test_channels(kinds, channels):
    assert preprocess_rules(replace(looked_at(), channels=kinds))[0].channels == channels


def test_a_scene_with_an_up_is_not_turned_over():
    sky_over_road = (np.arange(40)[:, None] > 18) + np.zeros((1, 60), int)
    augmentation, reasons = augmentation_rules(looked_at(class_map=sky_over_road.astype(int)), 3)
    geometric = augmentation.geometric
    assert geometric.flip_axes == (-1,) and geometric.rotate_deg < 45 and geometric.elastic_px == 0
    assert geometric.scale_probability == geometric.rotate_probability == 0.3
    assert reasons["augmentation.geometric.rotate_deg"] == "the images have an up"
    assert "half of the crops stay" in reasons["augmentation.geometric.scale_probability"]


def test_a_scene_without_an_up_is_turned_all_the_way():
    augmentation, _ = augmentation_rules(looked_at(channels=1), 1)
    assert augmentation.geometric.flip_axes == (-2, -1) and augmentation.geometric.rotate_deg == 180
    assert augmentation.intensity.saturation == 0
    assert augmentation.geometric.scale_probability == augmentation.geometric.rotate_probability == 1


def test_most_crops_of_volumes_stay_as_they_are():
    class_map = np.arange(60)[None, None, :] % 2 + np.zeros((30, 48, 1), int)
    volume = np.random.default_rng(0).normal(100, 20, (1, 30, 48, 60)).astype(np.float32)
    augmentation, reasons = augmentation_rules(fingerprint(dataset([volume], [class_map])), 1)
    geometric = augmentation.geometric
    assert geometric.scale_probability == geometric.rotate_probability == geometric.elastic_probability == 0.3
    assert geometric.rotate_deg == 30 and geometric.elastic_px == 0.5 and augmentation.intensity.saturation == 0
    assert "detail" in reasons["augmentation.geometric.scale_probability"]


def test_rare_classes_are_looked_for():
    found = looked_at()
    assert sampler_rules(found) == (Uniform(), {"sampler": "'a' is the rarest class, with 50.00% of the pixels"})
    sampler, reasons = sampler_rules(replace(found, class_fractions=(0.99, 0.01)))
    assert sampler == ForegroundPatches() and reasons == {"sampler": "'b' is the rarest class, with 1.00% of the pixels"}


def test_a_rare_background_is_not_looked_for():
    found = replace(looked_at(), class_names=("Background", "b"), class_fractions=(0.01, 0.99))
    assert sampler_rules(found)[0] == Uniform()
    assert sampler_rules(replace(found, class_fractions=(1.0, 0.0))) == (
        Uniform(),
        {"sampler": "no class but the background was seen"},
    )


def test_images_with_a_class_that_few_hold_come_more_often():
    found = replace(looked_at(), count=100, with_truth=100, class_images=(100, 9))
    sampler, reasons = sampler_rules(found)
    assert sampler == RepeatFactor(threshold=0.1) and reasons == {
        "sampler": "'b' is in 9 of 100 images, which come more often for it"
    }
    assert sampler_rules(replace(found, class_fractions=(0.99, 0.01)))[0] == RepeatFactor(threshold=0.1, share=1 / 3)
    assert sampler_rules(replace(found, class_images=(100, 10)))[0] == Uniform()
    assert sampler_rules(replace(found, count=100_000))[0] == Uniform()  # where reading all masks again would take minutes


def test_crops_are_nearly_the_image_in_multiples_of_the_divisors():
    found = looked_at()
    assert crop_for(found, 1.0, (8, 8)) == (32, 56)  # 40 x 60 times 0.9 is 36 x 54
    assert crop_for(found, 0.1, (32, 32)) == (32, 32)
    assert crop_for(found, 1.0, (1, 32)) == (36, 64)
    assert crop_for(replace(found, size_median=(4000, 6000)), 1.0, (32, 32)) == (256, 256)  # no up: texture
    sky_over_road = replace(found, size_median=(4000, 6000), class_centres=((0.2, 0.5), (0.8, 0.5)))
    assert crop_for(sky_over_road, 1.0, (32, 32)) == (512, 512)


# Volumes


def volumes(*spacings: tuple[float, ...], shape=(20, 100, 120)) -> Fingerprint:
    """The fingerprint of volumes of one shape at these spacings."""
    median = tuple(np.median(spacings, axis=0).tolist())
    sizes = dict.fromkeys(("size_min", "size_median", "size_max", "size_common"), shape)
    facts = {"axes": 3, "looked_at": len(spacings), "spacing_mm": median, "spacings_mm": spacings}
    return replace(looked_at(channels=1), **sizes, **facts)


def test_volumes_of_several_spacings_come_to_the_median():
    found = volumes((2.0, 1.0, 1.0), (2.0, 1.0, 1.0), (2.0, 0.5, 0.5))
    assert spacing_rules(found) == (
        (2.0, 1.0, 1.0),
        {"data.preprocess.spacing_mm": "the median spacing; volumes differ up to 2 times"},
    )
    preprocess = preprocess_rules(found)[0]
    assert preprocess.spacing_mm == (2.0, 1.0, 1.0)
    finer = replace(found, spacing_mm=(1.0, 1.0, 2.0))
    assert on_grid(finer, preprocess).size_median == (10, 100, 240)
    assert on_grid(finer, replace(preprocess, spacing_mm=None)) == finer


def test_few_thick_slices_come_to_the_thinner_ones():
    spacings = [(10.0, 1.0, 1.0)] * 9 + [(5.0, 1.0, 1.0)] * 2
    target, reasons = spacing_rules(volumes(*spacings, shape=(9, 200, 200)))
    assert target == (5.0, 1.0, 1.0) and "whose few slices are thick" in reasons["data.preprocess.spacing_mm"]


def test_volumes_of_one_spacing_stay_as_they_are():
    target, reasons = spacing_rules(volumes((1.0, 1.0, 1.0), (1.0, 1.05, 1.0)))
    assert target is None and reasons == {"data.preprocess.spacing_mm": "volumes differ by 5% at most, and stay as they are"}


def test_volumes_that_do_not_know_their_spacing_keep_all_as_they_are():
    target, reasons = spacing_rules(replace(volumes((2.0, 1.0, 1.0), (1.0, 1.0, 1.0)), looked_at=3))
    assert target is None and reasons == {"data.preprocess.spacing_mm": "1 of 3 volumes do not know theirs"}
    assert spacing_rules(replace(volumes((1.0, 1.0, 1.0)), spacings_mm=(), spacing_mm=None)) == (None, {})


def test_images_have_no_target_spacing():
    found = replace(looked_at(), spacing_mm=(1.0, 1.0), spacings_mm=((1.0, 1.0), (3.0, 3.0)))
    assert spacing_rules(found) == (None, {}) and preprocess_rules(found)[0].spacing_mm is None


def test_crops_of_large_volumes_have_equal_sides_in_mm():
    assert crop_for(volumes((1.0, 1.0, 1.0), shape=(400, 400, 400)), 1.0, (8, 8, 8)) == (128, 128, 128)
    depth, height, width = crop_for(volumes((4.0, 1.0, 1.0), shape=(400, 400, 400)), 1.0, (1, 1, 1))
    assert height == width == pytest.approx(4 * depth, rel=0.02)
    assert depth * height * width == pytest.approx(128**3, rel=0.02)
    assert crop_for(volumes((1.0, 1.0, 1.0), shape=(35, 50, 36)), 1.0, (8, 8, 8)) == (32, 48, 32)
    assert crop_for(volumes((1.0, 1.0, 1.0), shape=(400, 400, 400)), 0.25, (8, 8, 8)) == (88, 88, 88)


@pytest.mark.parametrize(("crop", "batch"), [((128, 128, 128), 2), ((256, 128, 128), 2), ((96, 96, 96), 4), ((32, 48, 32), 4)])
def test_batches_of_volumes(crop, batch):
    assert batch_for_volumes(crop, 4) == batch
