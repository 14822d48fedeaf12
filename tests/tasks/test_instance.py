"""What a crop teaches of its objects, and which networks, decoders and data sets go with them. Axes: N objects, H, W."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from segwright.core import VOID, Classes, Dataset, Sample, Segmentation
from segwright.core.errors import SettingError, UsageError
from segwright.data.fingerprint import fingerprint
from segwright.decoding.run import Run
from segwright.formats import open_dataset
from segwright.layers.detections import Detections
from segwright.models import cellpose, mask_rcnn, unet
from segwright.tasks import Task, task_for
from segwright.tasks.instance import Instance
from segwright.tasks.semantic import Semantic
from segwright.transforms.prepare import Preprocess

CLASSES = Classes(("car", "cat"), ((1, 1, 1), (2, 2, 2)), (True, True))
SHAPE = (6, 8)


def sample(truth: Segmentation | None, key: str = "a") -> Sample:
    shape = SHAPE if truth is None else truth.shape
    return Sample.of(key, np.zeros((3, *shape), np.uint8), truth)


def two_objects() -> Segmentation:
    """Two that overlap, and between them one without a pixel."""
    masks = np.zeros((3, *SHAPE), bool)
    masks[0, 1:4, 2:5], masks[2, 2:6, 4:8] = True, True
    return Segmentation.instances(masks, [1, 0, 0], classes=CLASSES)


def test_it_is_a_task():
    assert isinstance(Instance(), Task)


def test_flow_fields_have_a_mean_and_lists_of_objects_none():
    small = replace(cellpose.PRESETS["cellpose_tiny"], num_classes=1)
    networks = [small.build().eval() for _ in range(2)]
    both, image = Instance().averaged(networks), torch.zeros(1, networks[0].config.trunk.in_channels, 64, 64)
    assert both.OUTPUT == "flows" and both.divisors == networks[0].divisors
    with torch.no_grad():
        torch.testing.assert_close(both(image), (networks[0](image) + networks[1](image)) / 2)
    with pytest.raises(SettingError, match="Linear gives lists of objects, and those of 2 networks have no mean; open one"):
        Instance().averaged([nn.Linear(1, 1), nn.Linear(1, 1)])


def test_the_target_holds_boxes_classes_and_planes_of_what_is_seen():
    truth = two_objects()
    target = Instance().target(sample(truth))
    assert target.boxes.tolist() == [[2, 1, 5, 4], [4, 2, 8, 6]] and target.boxes.dtype == np.float32
    assert target.class_ids.tolist() == [1, 0] and target.class_ids.dtype == np.int64
    assert ((target.planes == 1).any(axis=0) == truth.mask(0)).all()
    assert ((target.planes == 2).any(axis=0) == truth.mask(2)).all()
    assert target.planes.dtype == np.int32


def test_void_stays_void_in_the_target():
    segment_map = np.array([[VOID, 1], [0, 1]], np.int32)
    truth = Segmentation.panoptic(segment_map, [0], [1], classes=CLASSES)
    assert Instance().target(sample(truth)).planes.tolist() == [[[VOID, 1], [0, 1]]]


def test_a_batch_holds_the_objects_of_each_image():
    empty = Segmentation.instances(np.zeros((0, *SHAPE), bool), [], classes=CLASSES)
    crops = [
        (key, np.zeros((3, *SHAPE), np.float32), Instance().target(sample(truth)))
        for key, truth in zip("ab", (two_objects(), empty), strict=True)
    ]
    batch = Instance().collate(crops)
    assert batch.keys == ["a", "b"] and batch.image.shape == (2, 3, *SHAPE)
    assert [len(each.boxes) for each in batch.target] == [2, 0] and batch.target[0].planes.dtype == torch.int32


def test_the_loss_is_the_networks_own():
    seen = []

    def network(image, truth, generator):
        seen.append((image, truth, generator))
        return {"boxes": image.sum()}

    target = Instance().target(sample(two_objects()))
    batch, generator = Instance().collate([("a", np.ones((3, *SHAPE), np.float32), target)]), torch.Generator()
    assert Instance().loss(network, batch, generator) == {"boxes": 144.0}
    assert seen[0][1] is batch.target and seen[0][2] is generator


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (None, "'a' has no truth to learn from; add its objects"),
        (Segmentation.instances(np.ones((1, 2, 3, 4), bool), [0]), r"'a' is a volume \(2, 3, 4\).*--task semantic"),
    ],
)
def test_what_teaches_no_objects_is_refused(truth, message):
    with pytest.raises(UsageError, match=message):
        Instance().target(sample(truth))


def test_networks_are_fitted_to_channels_and_classes():
    fitted = Instance().fitted(mask_rcnn.PRESETS["mask_rcnn_small"], 5, CLASSES)
    assert (fitted.in_channels, fitted.num_classes) == (5, 2)


def test_a_network_of_another_task_is_refused_with_what_to_do():
    with pytest.raises(
        SettingError, match=r"unet is a network for semantic segmentation, and the task is instance.*--task semantic"
    ):
        Instance().fitted(unet.Config(), 3, CLASSES)
    with pytest.raises(SettingError, match=r"mask_rcnn is a network for instance segmentation, and the task is semantic"):
        Semantic().fitted(mask_rcnn.Config(), 3, CLASSES)
    assert Instance().fitted(cellpose.Config(), 3, CLASSES).num_classes == 2  # as the remedy says, with its own task


def run_of(output: str, *arrays: np.ndarray) -> Run:
    return Run(engine=lambda images: arrays, classes=CLASSES, divisors=(2, 2), output=output)


def test_detections_and_flows_are_decoded_each_in_its_way():
    view = Preprocess()(sample(two_objects()))
    box = np.array([[[1.0, 1, 4, 5]]], np.float32)
    found = Detections(box, np.full((1, 1), 0.9, np.float32), np.ones((1, 1), np.int64), np.ones((1, 1, 4, 4), np.float32), box)
    objects = Instance().decode(run_of("", *found), view)
    assert objects.class_ids.tolist() == [1] and objects.boxes_xyxy().tolist() == [[1, 1, 4, 5]]
    maps = np.zeros((1, 5, *SHAPE), np.float32)  # two flows, objects everywhere, two classes
    maps[:, 2], maps[:, 4] = 5, 1
    assert set(Instance().decode(run_of("flows", maps), view).class_ids.tolist()) <= {1}
    assert Instance().agreement((maps,), (maps,), SHAPE) == 1
    assert Instance().agreement(tuple(found), tuple(found), SHAPE) == 1


def test_of_queries_the_things_alone_count():
    classes = Classes.of(["sky", "car", "cat"], is_thing=[False, True, True])
    class_logits, masks = np.zeros((1, 2, 4), np.float32), np.full((1, 2, 3, 4), -9, np.float32)
    class_logits[0, 0, 0] = class_logits[0, 1, 2] = 9
    masks[0, 0, 0] = masks[0, 1, 1] = 9
    outputs = class_logits, masks
    run = Run(engine=lambda images: outputs, classes=classes, divisors=(2, 2), output="queries", min_score=0.5)
    objects = Instance().decode(run, Preprocess()(sample(two_objects())))
    assert objects.class_ids.tolist() == [1] and objects.classes.names == ("car", "cat")
    assert Instance().agreement(outputs, outputs, SHAPE) == 1


def dataset(*truths: Segmentation | None, classes: Classes = CLASSES) -> Dataset:
    keys = tuple(f"{number}" for number in range(len(truths)))
    return Dataset("here", classes, keys, lambda key: sample(truths[int(key)], key))


def test_data_of_objects_ask_for_this_task():
    empty = Segmentation.instances(np.zeros((0, *SHAPE), bool), [], classes=CLASSES)
    assert task_for(dataset(None, empty, two_objects())) == "instance"
    assert task_for(open_dataset("synthetic:cells?count=3")) == "instance"
    assert task_for(open_dataset("synthetic:streets?count=3")) == "semantic"  # things, and stuff besides
    assert task_for(dataset(empty)) == task_for(dataset(None)) == task_for(dataset()) == "semantic"


def test_a_background_beside_objects_is_no_stuff():
    classes = Classes(("background", "cell"), ((0, 0, 0), (1, 1, 1)), (False, True))
    segment_map = np.array([[1, 1, 2], [1, 1, 2]], np.int32)
    assert task_for(dataset(Segmentation.panoptic(segment_map, [0, 1], [0, 1], classes=classes), classes=classes)) == "instance"
    assert task_for(dataset(Segmentation.panoptic(segment_map, [0, 1], [0, 0], classes=classes), classes=classes)) == "semantic"


def test_what_cannot_be_read_tells_nothing():
    def load(key: str) -> Sample:
        if key == "0":
            raise UsageError("torn")
        return sample(two_objects(), key)

    assert task_for(Dataset("here", CLASSES, ("0", "1"), load)) == "instance"


class Fixed(nn.Module):
    divisors = (2, 2)
    OUTPUT = "flows"


def test_a_predictor_tells_the_run_what_its_network_gives():
    from segwright.inference.predictor import Predictor

    predictor = Predictor(network=Fixed(), task=Instance(), classes=CLASSES, engine=lambda images: ())
    assert predictor.run(2).output == "flows"


def test_anchors_begin_at_the_smallest_objects_and_places_follow_their_number():
    masks = np.zeros((60, 64, 64), bool)
    for number in range(60):
        masks[number, :9, number : number + 4] = True  # at the top: images that have an up
    found = fingerprint(dataset(Segmentation.instances(masks, [0] * 60, classes=CLASSES)))
    (network,) = Instance().candidates(found, from_scratch=True)
    assert network.anchor_sizes == (8, 16, 32, 64, 128) and network.max_objects == 300
    (network,) = Instance().candidates(found.at_scale(5), from_scratch=True)
    assert network.anchor_sizes == (16, 32, 64, 128, 256)
    (network,) = Instance().candidates(found.at_scale(99), from_scratch=True)
    assert network.anchor_sizes == (32, 64, 128, 256, 512)
