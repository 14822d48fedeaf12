"""Pieces and bands of an image. Axes: (H, W)."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from segwright.inference import image_bands
from segwright.inference.image_bands import ImageBands


def seen(height: int, width: int) -> list[tuple[int, int, int]]:
    """What each band is called with, sorted."""
    calls = []
    with ThreadPoolExecutor(2) as pool:
        ImageBands.of(pool, height, width).each(lambda *call: calls.append(call))
    return sorted(calls)


def test_by_hand_rows_lie_in_four_pieces_that_start_at_even_rows(monkeypatch):
    monkeypatch.setattr(image_bands, "BAND", 8)
    assert seen(10, 3) == [(0, 0, 6), (1, 6, 12), (2, 12, 18), (3, 18, 24), (3, 24, 30)]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (3, 7), (375, 500), (9000, 1), (3, 20000)])
def test_bands_hold_every_pixel_once_in_whole_rows_of_an_even_number(height, width):
    bands = seen(height, width)
    assert [first for _, first, _ in bands] == [0, *(stop for _, _, stop in bands[:-1])] and bands[-1][2] == height * width
    assert all(first % (2 * width) == 0 and stop % width == 0 for _, first, stop in bands)
    with ThreadPoolExecutor(1) as pool:
        whole = ImageBands.of(pool, height, width)
    assert max(stop - first for _, first, stop in bands) <= whole.longest
    assert {piece for piece, _, _ in bands} == set(whole.pieces)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 17])
def test_shares_hold_everything_once(count):
    calls = []
    with ThreadPoolExecutor(2) as pool:
        ImageBands.of(pool, 4, 4).share(lambda first, stop: calls.extend(range(first, stop)), count)
    assert sorted(calls) == list(range(count))


def test_what_fails_in_a_band_is_raised():
    with pytest.raises(ZeroDivisionError), ThreadPoolExecutor(2) as pool:
        ImageBands.of(pool, 4, 4).each(lambda piece, first, stop: 1 // 0)
