import numpy as np
import pytest
from PIL import Image

from segwright.core.errors import FormatError
from segwright.formats import open_dataset
from segwright.formats.image_index import images_below
from segwright.formats.mask_folder import image_files, read
from segwright.formats.pairing import is_truth_folder, masks_alone, pairs, partners_of, without_truth

IMAGE = np.arange(12, dtype=np.uint8).reshape(3, 4)
MASK = np.array([[0, 0, 1, 1], [0, 2, 2, 1], [0, 0, 0, 0]], dtype=np.uint8)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def folder_of(root, *names, images="images", masks="masks"):
    for name in names:
        save(root / images / f"{name}.png", IMAGE)
        save(root / masks / f"{name}.png", MASK)
    return root


# By hand


@pytest.mark.parametrize(
    ("images", "masks"), [("JPEGImages", "SegmentationClass"), ("img", "labels"), ("Images", "ground_truth"), ("image", "mask")]
)
def test_common_names_of_folders(tmp_path, images, masks):
    folder_of(tmp_path, "one", images=images, masks=masks)
    (tmp_path / masks / "readme.txt").write_text("not an image")
    save(tmp_path / masks / ".hidden.png", MASK)
    (tmp_path / "labels").mkdir(exist_ok=True)  # an empty folder of the same kind does no harm
    assert len(read(tmp_path)) == 1


def test_of_a_data_set_with_parts_the_images_are_taken_and_no_masks(tmp_path):
    folder_of(tmp_path / "train", "a")
    save(tmp_path / "train" / "instances" / "a.png", MASK)
    save(tmp_path / "test" / "images" / "b.png", IMAGE)  # nobody drew masks
    save(tmp_path / "masks" / "c.png", MASK)  # no folder of images beside it: a name like any other
    assert open_dataset(tmp_path).keys == ("train__a",)
    assert image_files(tmp_path).keys() == {"train__a", "test__b", "masks__c"}
    assert image_files(tmp_path / "train" / "masks").keys() == {"a"}  # as somebody asked for it


@pytest.mark.parametrize(
    ("truth", "images"),
    [("gtFine", "leftImg8bit"), ("labelsTr", "imagesTr"), ("labelsTs", "imagesTs"), ("SegmentationClass", "JPEGImages")],
)
def test_folders_of_truth_lie_beside_images(tmp_path, truth, images):
    save(tmp_path / truth / "city" / "a.png", MASK)
    assert not is_truth_folder(tmp_path / truth) and not is_truth_folder(tmp_path / images)
    save(tmp_path / images / "city" / "a.png", IMAGE)
    assert is_truth_folder(tmp_path / truth) and not is_truth_folder(tmp_path / images)
    assert [stem for stem, _ in without_truth(tmp_path, images_below(tmp_path))] == [f"{images}/city/a"]


@pytest.mark.parametrize(
    ("stem", "expected"),
    [("images/train/a", "train/a"), ("train/images/b/a", "train/b/a"), ("images/b/a", "images/b/a"), ("train/a", "train/a")],
)
def test_a_folder_of_images_is_no_part_of_a_name(tmp_path, stem, expected):
    assert without_truth(tmp_path, [(stem, tmp_path / f"{stem}.png")]) == [(expected, tmp_path / f"{stem}.png")]


@pytest.mark.parametrize("ending", ["", "_mask", "-label", "_GT", "_seg", "_segmentation", "_ground_truth", "_L"])
def test_endings_of_mask_names(tmp_path, ending):
    for name in ("x", "x_1"):
        save(tmp_path / "images" / f"{name}.png", IMAGE)
        save(tmp_path / "masks" / f"{name}{ending}.png", MASK)
    save(tmp_path / "images" / "y_image.png", IMAGE)
    save(tmp_path / "masks" / f"y{ending}.png", MASK)
    assert read(tmp_path).keys == ("x", "x_1", "y_image")


def test_what_is_dropped_needs_no_partner(tmp_path):
    folder_of(tmp_path, "a", "b", "c")
    (tmp_path / "images" / "a.png").unlink()
    (tmp_path / "masks" / "b.png").unlink()
    assert list(pairs(tmp_path / "images", tmp_path / "masks", {"a", "b"})) == ["c"]
    assert list(masks_alone(tmp_path / "masks")) == ["a", "c"] and list(masks_alone(tmp_path / "masks", {"a"})) == ["c"]


def test_the_mask_of_a_dropped_image_goes_with_it(tmp_path):
    for name in ("a", "b", "c"):
        save(tmp_path / "images" / f"{name}_img.png", IMAGE)
        save(tmp_path / "masks" / f"{name}_mask.png", MASK)
    (tmp_path / "masks" / "b_mask.png").write_bytes(b"")
    assert list(pairs(tmp_path / "images", tmp_path / "masks", {"a_img", "b_img"})) == ["c_img"]


def test_partners_by_hand():
    found = partners_of(["a", "b_img", "c", "d"], ["a_mask", "b", "c", "c_gt"])
    assert found == {"a": "a_mask", "b_img": "b", "c": "c"}


# By its messages


def test_no_masks_at_all(tmp_path):
    with pytest.raises(FormatError, match=r"holds no image \(it is empty\); images end in .png"):
        masks_alone(tmp_path)


def test_partners_that_are_missing(tmp_path):
    folder_of(tmp_path, "a", "b", "c", "d", "e")
    for name in "abcd":
        (tmp_path / "masks" / f"{name}.png").unlink()
    with pytest.raises(FormatError, match=r"4 \(a.png, b.png, c.png, ...\) of 5 images in .* have no mask; add the missing"):
        read(tmp_path)
    (tmp_path / "images" / "e.png").rename(tmp_path / "images" / "f.png")
    with pytest.raises(FormatError, match="no mask in .* belongs to an image .*called like a.png, masks like e.png"):
        read(tmp_path)
    save(tmp_path / "masks" / "f.png", MASK)
    with pytest.raises(FormatError, match=r"have no mask; 1 \(e.png\) of 2 masks in .* have no image"):
        read(tmp_path)


def test_two_files_of_one_name(tmp_path):
    folder_of(tmp_path, "a")
    save(tmp_path / "images" / "a.bmp", IMAGE)
    with pytest.raises(FormatError, match="have one name, so that their partner is not clear; rename or remove one"):
        read(tmp_path)
    folder_of(tmp_path / "deep", "a/b", "a__b")
    with pytest.raises(FormatError, match="would both be called a__b; rename one"):
        read(tmp_path / "deep")


def test_files_of_zero_bytes(tmp_path):
    folder_of(tmp_path, "a", "b")
    (tmp_path / "masks" / "b.png").write_bytes(b"")
    with pytest.raises(
        FormatError, match=r"1 \(b.png\) of 2 files in .*masks hold 0 bytes, or are links to nothing; copy them again or remove"
    ):
        read(tmp_path)


def test_links_that_lead_nowhere(tmp_path):
    folder_of(tmp_path, "a", "b")
    (tmp_path / "images" / "a.png").unlink()
    (tmp_path / "images" / "a.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(FormatError, match=r"1 \(a.png\) of 2 files in .*images hold 0 bytes"):
        read(tmp_path)
