"""A piece of another image, and its truth, at a random place."""

import numpy as np
import pytest

from segwright.core import Classes, Sample, Segmentation
from segwright.core.errors import SettingError, ShapeError
from segwright.transforms.copy_paste import CopyPaste, paste

CLASSES = Classes.of(["background", "cell", "rare"])


def sample_of(class_map: np.ndarray, level: float, key: str = "a") -> Sample:
    """An image that is `level` plus its class."""
    return Sample.of(key, (class_map[None] + level).astype(np.float32), Segmentation.semantic(class_map, CLASSES))


@pytest.fixture
def donor() -> Sample:
    class_map = np.ones((6, 8), int)
    class_map[1:3, 2:5] = 2
    class_map[2, 3] = 0  # a piece with a dent
    return sample_of(class_map, 100, "donor")


@pytest.fixture
def crop() -> Sample:
    return sample_of(np.zeros((6, 8), int), 0)


# By hand


def test_the_pixels_of_the_piece_come_with_their_truth_and_no_others(crop, donor):
    pasted = paste(crop, donor, 2, np.random.default_rng(0))
    is_piece = pasted.truth.class_map() == 2
    assert is_piece.sum() == 5 and (pasted.image[0][is_piece] == 102).all() and (pasted.image[0][~is_piece] == 0).all()
    rows, columns = np.nonzero(is_piece)
    piece = is_piece[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert piece.tolist() == [[True, True, True], [True, False, True]]
    assert not crop.image.any() and (crop.truth.class_map() == 0).all()  # what was given stays as it was


def test_places_are_all_over_the_crop_and_wholly_inside(crop, donor):
    corners = set()
    for seed in range(400):
        rows, columns = np.nonzero(paste(crop, donor, 2, np.random.default_rng(seed)).truth.class_map() == 2)
        assert len(rows) == 5
        corners.add((rows.min(), columns.min()))
    assert corners == {(row, column) for row in range(5) for column in range(6)}


def test_a_donor_without_the_class_changes_nothing(crop, donor):
    assert paste(donor, crop, 2, np.random.default_rng(0)) is donor


def test_void_and_other_segments_are_covered(donor):
    class_map = np.full((6, 8), -1)
    class_map[:, 4:] = 2
    pasted = paste(sample_of(class_map, 0), donor, 2, np.random.default_rng(1))
    is_new = pasted.image[0] == 102
    assert is_new.sum() == 5 and (pasted.truth.class_map()[is_new] == 2).all()
    assert (pasted.truth.class_map()[~is_new] == class_map[~is_new]).all() and len(pasted.truth) == 1


def test_one_of_several_pieces_is_drawn():
    class_map = np.zeros((8, 8), int)
    class_map[0, 0], class_map[4, 4:6], class_map[5, 6] = 2, 2, 2  # the second touches the third at a corner: one piece
    donor, crop = sample_of(class_map, 10), sample_of(np.zeros((8, 8), int), 0)
    sizes = [(paste(crop, donor, 2, np.random.default_rng(seed)).truth.class_map() == 2).sum() for seed in range(40)]
    assert set(sizes) == {1, 3} and 8 <= sizes.count(1) <= 32


def test_instances_stay_objects_of_their_own():
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :2], masks[1, 1:3, 1] = True, True  # they overlap, and so lie in two planes
    truth = Segmentation.instances(masks, [1, 2], classes=CLASSES)
    sample = Sample.of("a", np.zeros((1, 4, 4), np.float32), truth)
    pasted = paste(sample, sample, 2, np.random.default_rng(0)).truth
    assert pasted.class_ids.tolist() == [1, 2, 2] and pasted.instance_ids.tolist() == [1, 2, 3]
    assert pasted.areas()[2] == 2 and not (pasted.mask(2) & (pasted.mask(0) | pasted.mask(1))).any()


# By a law


@pytest.mark.parametrize("shape", [(12, 16), (6, 8, 10)])
def test_in_images_and_volumes_image_and_truth_stay_together(shape):
    for seed in range(20):
        generator = np.random.default_rng(seed)
        ours, theirs = (sample_of(generator.integers(-1, 3, shape), 0) for _ in range(2))
        marked = Sample.of("b", theirs.image + 50, theirs.truth)
        pasted = paste(ours, marked, 2, generator)
        assert ((pasted.image[0] >= 40) <= (pasted.truth.class_map() == 2)).all() and (pasted.image[0] >= 40).any()
        is_old = pasted.image[0] < 40
        assert (pasted.image[0][is_old] == pasted.truth.class_map()[is_old]).all()


def test_the_share_is_kept():
    generator = np.random.default_rng(0)
    assert 200 <= sum(CopyPaste(share=0.25).is_due(generator) for _ in range(1000)) <= 300
    assert not any(CopyPaste().is_due(generator) for _ in range(100))


# By its messages


def test_what_cannot_be_pasted_is_refused(crop, donor):
    with pytest.raises(ShapeError, match=r"'donor' \(1, 6, 8\) cannot be pasted into 'a' \(1, 3, 3\); give two crops of one"):
        paste(sample_of(np.zeros((3, 3), int), 0), donor, 2, np.random.default_rng(0))
    with pytest.raises(ShapeError, match="both with their truth"):
        paste(Sample.of("a", crop.image), donor, 2, np.random.default_rng(0))
    with pytest.raises(SettingError, match=r"share is 1\.5; it is a probability"):
        CopyPaste(share=1.5)
