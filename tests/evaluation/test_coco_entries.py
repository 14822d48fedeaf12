import numpy as np
import pytest

from segwright.core.errors import UsageError
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
        runs = runs_of(entries, positions, (2, 3))
        assert runs.starts.tolist() == [0] * len(positions) and runs.ends.tolist() == [2] * len(positions)


def test_numbers():
    assert numbers([1, 0.5, True], "score", "results").tolist() == [1, 0.5, 1] and not len(numbers([], "score", "results"))
    with pytest.raises(UsageError, match=r"results\[1\]: score is \[2\], a number is needed"):
        numbers([1, [2]], "score", "results")
    assert boxes_of([], "results").shape == (0, 4) and content_of([1], "results") == ([1], "results")
