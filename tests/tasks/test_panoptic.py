"""What a crop teaches of all its segments, and which networks and data sets go with them. Axes: N segments, P planes, H, W."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from segwright.core import VOID, Classes, Dataset, Sample, Segmentation
from segwright.core.errors import SettingError, UsageError
from segwright.data.fingerprint import fingerprint
from segwright.decoding.run import Run
from segwright.formats import open_dataset
from segwright.models import mask_rcnn, panoptic_fpn, unet
from segwright.tasks import Task, has_numbers
from segwright.tasks.panoptic import Panoptic
from segwright.transforms.prepare import Preprocess

CLASSES = Classes.of(["sky", "car", "road"], is_thing=[False, True, False])


def sample(truth: Segmentation | None, key: str = "a") -> Sample:
    shape = (2, 4) if truth is None else truth.shape
    return Sample.of(key, np.zeros((3, *shape), np.uint8), truth)


def street() -> Segmentation:
    """Sky in two segments, two cars, one of them out of sight, some cars without numbers, a void pixel and one of nothing."""
    segment_map = np.array([[1, 1, 2, VOID], [3, 5, 5, 0]], np.int32)
    return Segmentation.panoptic(segment_map, [0, 0, 1, 1, 1], [0, 0, 7, 4, 0], classes=CLASSES)


def dataset(*truths: Segmentation | None, classes: Classes = CLASSES) -> Dataset:
    keys = tuple(f"{number}" for number in range(len(truths)))
    return Dataset("here", classes, keys, lambda key: sample(truths[int(key)], key))


def test_it_is_a_task_that_counts_all_three_scores():
    assert isinstance(Panoptic(), Task) and Panoptic.planned(None) == (Panoptic(), {})
    assert Panoptic.score == "PQ" and Panoptic.metrics == ("panoptic_quality", "confusion", "average_precision")


def test_the_target_has_one_segment_for_stuff_and_one_for_each_thing_in_sight():
    target = Panoptic().target(sample(street()))
    assert target.class_ids.tolist() == [0, 1] and target.class_ids.dtype == np.int64
    assert target.planes.tolist() == [[[1, 1, 1, VOID], [2, VOID, VOID, 0]]] and target.planes.dtype == np.int32
    assert target.boxes.tolist() == [[0, 0, 3, 1], [0, 1, 1, 2]] and target.boxes.dtype == np.float32


def test_objects_that_overlap_stay_whole():
    masks = np.zeros((2, 2, 4), bool)
    masks[0, :, :3], masks[1, :, 2:] = True, True
    truth = Segmentation.instances(masks, [1, 1], classes=CLASSES)
    target = Panoptic().target(sample(truth))
    assert [((target.planes == n + 1).any(axis=0) == masks[n]).all() for n in range(2)] == [True, True]


def test_an_image_without_segments_teaches_that():
    empty = Segmentation.panoptic(np.zeros((2, 4), np.int32), [], classes=CLASSES)
    target = Panoptic().target(sample(empty))
    assert target.boxes.shape == (0, 4) and target.class_ids.shape == (0,) and not target.planes.any()


def test_a_batch_holds_the_segments_of_each_image_and_the_loss_is_the_networks_own():
    seen = []

    def network(image, truth, generator):
        seen.append((image, truth, generator))
        return {"classes": image.sum()}

    crops = [(key, np.ones((3, 2, 4), np.float32), Panoptic().target(sample(street()))) for key in "ab"]
    batch, generator = Panoptic().collate(crops), torch.Generator()
    assert batch.keys == ["a", "b"] and batch.image.shape == (2, 3, 2, 4) and len(batch.target) == 2
    assert batch.target[0].planes.dtype == torch.int32 and batch.target[0].class_ids.dtype == torch.int64
    assert Panoptic().loss(network, batch, generator) == {"classes": 48.0}
    assert seen[0][1] is batch.target and seen[0][2] is generator


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (None, "'a' has no truth to learn from; add its segments"),
        (Segmentation.semantic(np.zeros((2, 3, 4), int), CLASSES), r"'a' is a volume \(2, 3, 4\).*--task semantic"),
    ],
)
def test_what_teaches_no_segments_is_refused(truth, message):
    with pytest.raises(UsageError, match=message):
        Panoptic().target(sample(truth))


def test_networks_are_fitted_to_channels_classes_and_things():
    fitted = Panoptic().fitted(panoptic_fpn.PRESETS["panoptic_fpn_small"], 5, CLASSES)
    assert (fitted.in_channels, fitted.num_classes, fitted.things) == (5, 3, (1,))


@pytest.mark.parametrize("config", [unet.Config(), mask_rcnn.Config()])
def test_a_network_of_another_task_is_refused(config):
    with pytest.raises(SettingError, match="and the task is panoptic; train"):
        Panoptic().fitted(config, 3, CLASSES)


def test_candidates_are_for_this_task():
    for classes, count in ((CLASSES, 2), (Classes.of("abc"), 1), (Classes.of("abc", is_thing=[True] * 3), 1)):
        truth = replace(street(), classes=classes)
        networks = Panoptic().candidates(fingerprint(dataset(truth, truth, classes=classes)), from_scratch=True)
        assert [Panoptic().fitted(network, 3, classes).num_classes for network in networks] == [3] * count


def test_panoptic_data_stay_as_they_are():
    data = dataset(street())
    assert Panoptic().dataset(data) is data


def test_things_without_any_number_become_stuff():
    semantic = dataset(Segmentation.semantic(np.array([[0, 1], [1, 2]]), CLASSES))
    seen = Panoptic().dataset(semantic)
    assert not any(seen.classes.is_thing) and seen.classes.names == CLASSES.names
    assert Panoptic().target(seen[0]).class_ids.tolist() == [0, 1, 2]
    assert has_numbers(dataset(None, street())) and not has_numbers(semantic) and not has_numbers(dataset(None))


def test_objects_on_nothing_stay_objects_and_a_named_background_is_stuff():
    cells = open_dataset("synthetic:cells?count=2&shape=32x32")
    assert Panoptic().dataset(cells).classes == cells.classes
    named = Classes.of(["background", "cell"], is_thing=[False, True])
    segment_map = np.array([[0, 1], [0, 1]], np.int32)
    seen = Panoptic().dataset(dataset(Segmentation.panoptic(segment_map, [1], [1], classes=named), classes=named))
    assert seen.classes == named and Panoptic().target(seen[0]).class_ids.tolist() == [0, 1]


def test_classes_alone_tell_how_they_are_seen():
    assert Panoptic().dataset(dataset(classes=CLASSES)).classes == CLASSES


def test_queries_are_decoded_and_compared():
    class_logits, masks = np.zeros((1, 2, 4), np.float32), np.full((1, 2, 2, 4), -9, np.float32)
    class_logits[0, 0, 0] = class_logits[0, 1, 1] = 9
    masks[0, 0, 0] = masks[0, 1, 1] = 9
    outputs = class_logits, masks
    run = Run(engine=lambda images: outputs, classes=CLASSES, divisors=(2, 2), output="queries")
    found = Panoptic().decode(run, Preprocess()(sample(street())))
    assert found.class_map().tolist() == [[0] * 4, [1] * 4] and found.instance_ids.tolist() == [0, 1]
    assert Panoptic().agreement(outputs, outputs, (2, 4)) == 1
