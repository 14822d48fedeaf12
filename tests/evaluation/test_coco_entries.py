import numpy as np
import pytest

from segwright.core.errors import FormatError, UsageError
from segwright.evaluation.coco_entries import boxes_of, content_of, grouped, images_of, looked_up, numbers, runs_of

TRUTH = {"images": [{"id": n, "height": 2, "width": 3} for n in (8, 2)]}


def test_entries_come_by_image_in_the_order_of_the_file():
    images = images_of(TRUTH, "truth")
    assert images.ids == [2, 8] and images.shapes == [(2, 3)] * 2 and images.keys == ("2", "8")
    given = [{"image_id": n, "category_id": 4} for n in (8, 2, 8, 2)]
    entries = grouped(given, images, [{"id": 4}], "results", is_truth=False)
    assert entries.of_image(0).tolist() == [1, 3] and entries.of_image(1).tolist() == [0, 2] and len(entries) == 4
    assert grouped([], images, [{"id": 4}], "results", is_truth=False).of_image(1).tolist() == []


def test_ids_may_be_text():
    assert looked_up(["b", "c", 1, [1]], ["a", "b"]).tolist() == [1, -1, -1, -1]


def test_all_forms_of_masks_are_read():
    images = images_of(TRUTH, "truth")
    forms = [{"size": [2, 3], "counts": "024"}, {"size": [2, 3], "counts": b"024"}, {"size": [2, 3], "counts": [0, 2, 4]}]
    forms += [[[0, 0, 1, 0, 1, 2, 0, 2]], [[0, 0, 1, 0, 1, 1, 0, 1], [0, 1, 1, 1, 1, 2, 0, 2]]]
    given = [{"image_id": 2, "category_id": 4, "segmentation": form} for form in forms]
    entries = grouped(given, images, [{"id": 4}], "results", is_truth=False)
    for positions in (np.arange(5), np.arange(2), np.array([3]), np.array([4])):
        starts = np.array([0, 1, len(positions)])  # of two images
        runs = runs_of(entries, positions, starts, [(2, 3), (2, 3)])
        assert runs.starts.tolist() == [0] * len(positions) and runs.ends.tolist() == [2] * len(positions)
        assert runs.offsets.tolist() == [*range(len(positions) + 1)] and runs.areas.tolist() == [2] * len(positions)


def test_images_of_different_sizes_are_read_together():
    images = images_of({"images": [{"id": 1, "height": 2, "width": 3}, {"id": 2, "height": 1, "width": 2}]}, "truth")
    given = [
        {"image_id": n, "category_id": 4, "segmentation": {"size": [*shape], "counts": text}}
        for n, shape, text in [(1, (2, 3), "024"), (2, (1, 2), "02"), (1, (2, 3), "15")]
    ]
    entries = grouped(given, images, [{"id": 4}], "results", is_truth=False)
    positions, starts = entries.of_images(0, 2)
    assert positions.tolist() == [0, 2, 1] and starts.tolist() == [0, 2, 3]
    for _ in range(2):
        runs = runs_of(entries, positions, starts, images.shapes)
        assert runs.starts.tolist() == [0, 1, 0] and runs.ends.tolist() == [2, 6, 2] and runs.areas.tolist() == [2, 5, 2]
        given[1]["segmentation"]["counts"] = [0, 2]  # not compressed: read one by one
    given[1]["segmentation"]["size"] = [2, 3]
    with pytest.raises(FormatError, match=r"results\[1\].segmentation: run lengths of size \[2, 3\] for an image of 1 x 2"):
        runs_of(entries, positions, starts, images.shapes)


def test_numbers():
    assert numbers([1, 0.5, True], "score", "results").tolist() == [1, 0.5, 1] and not len(numbers([], "score", "results"))
    with pytest.raises(UsageError, match=r"results\[1\]: score is \[2\], a number is needed"):
        numbers([1, [2]], "score", "results")
    assert boxes_of([], "results").shape == (0, 4) and content_of([1], "results") == ([1], "results")
