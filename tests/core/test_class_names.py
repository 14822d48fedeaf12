from segwright.core import Classes
from segwright.core.class_names import CITYSCAPES, VOC


def test_each_class_has_its_published_number():
    assert len(VOC) == 21 and len(CITYSCAPES) == 19
    assert (VOC[0], VOC[15], VOC[20]) == ("background", "person", "tvmonitor")
    assert (CITYSCAPES[0], CITYSCAPES[11], CITYSCAPES[18]) == ("road", "person", "bicycle")


def test_they_are_names_of_classes():
    for names in (VOC, CITYSCAPES):
        assert tuple(Classes.of(list(names)).names) == names


def test_torchvision_names_its_classes_so():
    from torchvision.models.segmentation import FCN_ResNet50_Weights

    theirs = FCN_ResNet50_Weights.DEFAULT.meta["categories"]
    assert tuple(name.strip("_") for name in theirs) == VOC
