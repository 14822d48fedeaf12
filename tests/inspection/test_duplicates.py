import cv2
import numpy as np
import pytest

from segwright.inspection.duplicates import about_likeness, near_pairs, picture_hash
from segwright.inspection.sample_scan import THUMB, SampleScan, grey_picture
from segwright.inspection.split_leakage import Together


def look(key, image, mask=b"m"):
    grey = grey_picture(image)
    thumb = cv2.resize(grey, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    return SampleScan(
        key=key, part="", shape=image.shape[1:], channels=len(image), dtype="uint8", scale=float(image.max()), step=None,
        thumb=thumb, digest=image.tobytes()[:4000], borders=None, mask_digest=mask,
    )  # fmt: skip


def photo(seed, shape=(96, 128)):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (3, shape[0] // 8, shape[1] // 8)).astype(np.uint8)
    return np.stack([cv2.resize(channel, shape[::-1], interpolation=cv2.INTER_CUBIC) for channel in coarse])


def jpeg(image, quality):
    encoded = cv2.imencode(".jpg", np.ascontiguousarray(np.moveaxis(image, 0, -1)), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.moveaxis(cv2.imdecode(encoded, cv2.IMREAD_COLOR), -1, 0)


COPIES = {
    "JPEG": lambda image: jpeg(image, 40),
    "half the size": lambda image: np.stack([cv2.resize(channel, (64, 48), interpolation=cv2.INTER_AREA) for channel in image]),
    "brighter": lambda image: np.clip(image.astype(int) * 0.7 + 60, 0, 255).astype(np.uint8),
    "grey": lambda image: image.mean(axis=0, keepdims=True).astype(np.uint8),
    "noisy": lambda image: np.clip(image + np.random.default_rng(0).normal(0, 8, image.shape), 0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES)
def test_a_changed_copy_is_nearly_the_same(change):
    others = [look(f"k{seed}", photo(seed)) for seed in range(1, 40)]
    assert near_pairs([look("a", photo(0)), look("b", change(photo(0))), *others]) == [("a", "b")]


@pytest.mark.parametrize("seed", range(5))
def test_law_the_hash_knows_no_brightness(seed):
    thumb = look("a", photo(seed)).thumb
    assert picture_hash(thumb) == picture_hash(thumb * 2 + 30)
    assert bin(picture_hash(thumb) ^ picture_hash(look("b", photo(seed + 100)).thumb)).count("1") > 16


def test_flat_pictures_are_no_copies_of_each_other():
    rng = np.random.default_rng(0)
    assert near_pairs([look(f"k{i}", rng.integers(100, 103, (1, 64, 64)).astype(np.uint8)) for i in range(20)]) == []
    assert near_pairs([]) == near_pairs([look("a", photo(0))]) == []


def test_duplicates_keep_the_one_in_validation():
    together = Together({"a": "train", "b": "val", "c": "train", "d": "train"})
    looks = [look("a", photo(0)), look("b", photo(0)), look("c", photo(1)), look("d", photo(1), mask=b"other")]
    across, within = about_likeness(looks, together)
    assert across.name == "duplicates-across-splits" and across.fix.drop == ("a",) and across.numbers["with_other_masks"] == 0
    assert within.name == "duplicates" and within.fix.drop == ("d",) and "masks that differ" in within.evidence


def test_frames_of_a_clip_are_alike_by_nature():
    looks = [look("a", photo(0)), look("b", COPIES["noisy"](photo(0)))]
    parts = {"a": "train", "b": "val"}
    assert [finding.name for finding in about_likeness(looks, Together(parts))] == ["near-duplicates-across-splits"]
    assert about_likeness(looks, Together(parts, clips=[["a", "b"]])) == []
