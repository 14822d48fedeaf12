import logging
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from segwright.core import Classes, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats import open_dataset
from segwright.formats.cvat import matches, read, write

THINGS = Classes.of(["car", "<b> & 'c'"], is_thing=[True, True])
LABELS = "<labels><label><name>road</name></label><label><name>car</name></label></labels>"
DOT = '<mask label="car" rle="0,1" left="1" top="0" width="1" height="1"/>'


def xml(root, images, meta=LABELS, head='<?xml version="1.0" encoding="utf-8"?>'):
    root.mkdir(parents=True, exist_ok=True)
    text = f"{head}\n<annotations>\n<version>1.1</version>\n<meta><task>{meta}</task></meta>\n{images}\n</annotations>\n"
    (root / "annotations.xml").write_text(text, encoding="utf-8")
    return root


def image(shapes, name="a.png", width=4, height=3, more=""):
    return f'<image id="0" name="{name}" width="{width}" height="{height}"{more}>{shapes}</image>'


def picture(path, height=3, width=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(height * width, dtype=np.uint8).reshape(height, width)).save(path)


def truth(root, shapes, **size):
    return read(xml(root, image(shapes, **size)))[0].truth


def sample_of(key, masks, class_ids=None, numbers=None, classes=THINGS):
    picture = np.random.default_rng(len(key)).integers(0, 256, (3, *masks.shape[1:]), dtype=np.uint8)
    ids = np.arange(len(masks)) % len(classes) if class_ids is None else class_ids
    return Sample.of(key, picture, Segmentation.instances(masks, ids, instance_ids=numbers, classes=classes))


# By hand


def test_run_lengths_go_row_by_row_in_their_box(tmp_path):
    found = truth(tmp_path, '<mask label="car" rle="0, 1, 3, 2" left="1" top="1" width="3" height="2" z_order="0"></mask>')
    assert found.mask(0).astype(int).tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]
    assert found.class_ids.tolist() == [1] and found.instance_ids.tolist() == [1]


def test_the_disc_of_the_documentation_is_round(tmp_path):
    runs = "3, 5, 7, 7, 5, 9, 3, 11, 2, 11, 2, 12, 1, 12, 1, 26, 1, 12, 1, 12, 2, 11, 3, 9, 5, 7, 7, 5, 3"
    shape = f'<mask label="car" rle="{runs}" left="707" top="888" width="13" height="15" z_order="0"/>'
    rows = truth(tmp_path, shape, width=1600, height=1200).mask(0)[888:903, 707:720].sum(axis=1)
    assert rows.tolist() == [5, 7, 9, 11, 11, 12, 12, 13, 13, 12, 12, 11, 9, 7, 5]


def test_polygons_and_ellipses(tmp_path):
    found = truth(
        tmp_path, '<polygon label="road" points="1.00,0;3,0;3,2;1,2"/><ellipse label="car" cx="2" cy="1.5" rx="1" ry="9"/>'
    )
    assert found.mask(0).astype(int).tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert found.mask(1).astype(int).tolist() == [[0, 1, 1, 0]] * 3


def test_a_label_of_nothing_is_none(tmp_path):
    data = read(xml(tmp_path, image(DOT + DOT.replace('"car"', '""'))))
    assert data.classes.names == ("road", "car") and len(data[0].truth) == 1 and data[0].left_out == {"without a label": 1}


def test_a_group_is_one_object_of_each_label(tmp_path):
    parts = '<mask label="{}" rle="0,1" left="{}" top="0" width="1" height="1" group_id="{}"/>'
    shapes = [("car", 0, 7), ("road", 1, 7), ("car", 2, 7), ("car", 3, 0)]
    found = truth(tmp_path, "".join(parts.format(*shape) for shape in shapes))
    assert found.class_ids.tolist() == [1, 0, 1] and found.areas().tolist() == [2, 1, 1]
    assert found.instance_ids.tolist() == [7, 1, 2]  # one number is one object


def test_what_is_above_covers_what_is_below(tmp_path):
    box = '<mask label="{}" rle="0,{}" left="{}" top="0" width="{}" height="1" z_order="{}"/>'
    found = truth(tmp_path, box.format("car", 3, 0, 3, 5) + box.format("road", 2, 2, 2, 1))
    assert found.class_ids.tolist() == [0, 1]  # in the order of z
    assert found.class_map()[0].tolist() == [1, 1, 1, 0] and found.areas().tolist() == [2, 3]
    chain = "".join(box.format(name, 2, left, 2, z) for name, left, z in [("car", 0, 0), ("road", 1, 1), ("car", 2, 2)])
    found = truth(tmp_path / "chain", chain)  # the last lies over the second, though it is free of the first
    assert found.class_map()[0].tolist() == [1, 0, 1, 1] and len(found.planes) == 3


def test_labels_are_classes(tmp_path):
    labels = [("wheel", "points", "#ff0000", "car"), ("plate", "bbox", "#00ff00", ""), ("car", "any", "#0a0b0c", "")]
    labels += [("line", "polyline", "", ""), ("road", "mask", "wrong", ""), ("car", "any", "#ffffff", "")]
    meta = "".join(
        f"<label><name>{name}</name><color>{color}</color><type>{type}</type>"
        f"{f'<parent>{parent}</parent>' if parent else ''}<attributes><attribute><name>x</name></attribute></attributes>"
        "</label>"
        for name, type, color, parent in labels
    )
    classes = read(xml(tmp_path, image(DOT), meta=f"<labels>{meta}</labels>")).classes
    assert classes.names == ("car", "road") and classes.colors[0] == (10, 11, 12) and classes.is_thing == (True, True)
    without = read(xml(tmp_path / "b", image(DOT + DOT.replace("car", "sky")), meta=""))
    assert without.classes.names == ("car", "sky")


def test_subsets_and_folders_become_keys(tmp_path):
    picture(tmp_path / "images" / "train" / "a.png")
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "b.x.png")
    images = [image(DOT, more=' subset="train"'), image("", more=' subset="default"'), image("", "b.x.png")]
    data = read(xml(tmp_path, "".join(images)))
    assert data.keys == ("train__a", "a", "b.x") and data.image_files["train__a"] == tmp_path / "images" / "train" / "a.png"
    assert matches(tmp_path) and matches(tmp_path / "annotations.xml") and read(tmp_path / "annotations.xml").keys == data.keys
    assert data[0].image.shape == (1, 3, 4) and len(data[1].truth) == 0
    assert pickle.loads(pickle.dumps(data))[0].truth.areas().tolist() == [1]


def test_an_image_is_parsed_when_it_is_asked_for(tmp_path):
    broken = DOT.replace('rle="0,1"', 'rle="x"')
    data = read(xml(tmp_path, "".join(image(broken if n == 50 else DOT, f"{n}.png") + "\n" for n in range(100))))
    assert data.load("99").truth.areas().tolist() == [1]
    with pytest.raises(FormatError, match=r"annotations.xml, line 55: the mask in image '50.png' has an rle that is no list"):
        data.load("50")


def test_boxes_are_regions_and_what_is_none_is_counted(tmp_path):
    picture(tmp_path / "a.png")
    box = '<box label="board" xtl="0" ytl="1" xbr="3" ybr="2" rotation="{}"><attribute name="a">b</attribute></box>'
    lines = '<polyline label="car" points="0,0;3,3"/><points label="car" points="1,1"/><skeleton label="x"><points/></skeleton>'
    odd = '<tag label="car"/><cuboid label="car" xtl1="0"/><polygon label="car" points="1,2;3,4"/>'
    far = '<box label="car" xtl="40" ytl="0" xbr="90" ybr="2"/><polygon label="car" points="9,9;1e9,9;9,1e9"/>'
    new = '<octagon label="new" points="0,2;1,2;1,3;0,3"/>'  # of a version of CVAT that is not known
    sample = read(xml(tmp_path, image(box.format(0) + box.format(90) + lines + odd + far + new)))[0]
    assert [sample.truth.mask(k).astype(int).tolist() for k in range(3)] == [
        [[0] * 4, [1, 1, 1, 0], [0] * 4],
        [[0, 1, 0, 0]] * 3,
        [[0] * 4, [0] * 4, [1, 0, 0, 0]],
    ]
    assert [sample.truth.classes.names[k] for k in sample.truth.class_ids] == ["board", "board", "new"]
    assert sample.left_out == {
        "drawn as a line or as points": 3,
        "about the image as a whole": 1,
        "of the kind 'cuboid'": 1,
        "with fewer than three corners": 1,
        "outside the image": 2,
    }


def test_annotations_without_images(tmp_path, caplog):
    two = image(DOT) + image(DOT, "b.png")
    with caplog.at_level(logging.WARNING):
        assert read(xml(tmp_path, two))[0].image.shape == (0, 3, 4)
    assert "none of its 2 images is there" in caplog.text
    picture(tmp_path / "images" / "a.png")
    data = read(tmp_path)
    assert data[0].image.shape == (1, 3, 4)
    with pytest.raises(FormatError, match="image 'b.png': its image 'b.png' is not there, others are"):
        data[1]


def test_what_is_written(tmp_path):
    masks = np.zeros((3, 4, 5), bool)
    masks[0, :2, :3] = True
    masks[1, 1, 1] = masks[1, 2, 2] = True
    samples = [sample_of("train__a", masks, [0, 1, 1], [5, 9, 3])]
    write(tmp_path / "data", samples)
    text = (tmp_path / "data" / "annotations.xml").read_text()
    assert '<image id="0" name="a.png" subset="train" width="5" height="4">' in text
    assert 'points="0,0;3,0;3,2;0,2" z_order="0" group_id="5"/>' in text
    assert 'rle="0, 1, 2, 1" left="1" top="1" width="2" height="2" z_order="1" group_id="9"/>' in text
    assert text.count("group_id") == 2  # the third has no pixel
    assert not (tmp_path / "data" / "classes.json").exists()
    assert (tmp_path / "data" / "images" / "train" / "a.png").is_file()


def test_stuff_stays_stuff(tmp_path):
    classes = Classes.of(["sky", "car"], is_thing=[False, True])
    segments = np.array([[1, 1, 2], [3, 0, -1]])
    sample = Sample.of(
        "a", np.zeros((1, 2, 3), np.uint8), Segmentation.panoptic(segments, [0, 1, 1], [0, 4, 0], classes=classes)
    )
    write(tmp_path / "data", [sample])
    data = open_dataset(tmp_path / "data")
    assert data.classes == classes and data[0].truth.instance_ids.tolist() == [0, 4, 1]  # the crowd is an object now
    assert data[0].truth.planes[0].tolist() == [[1, 1, 2], [3, 0, 0]]  # void is nothing


# By a slow twin


@settings(max_examples=30)
@given(masks=arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5))), seed=st.integers(0, 99))
def test_the_last_painted_is_seen(tmp_path_factory, masks, seed):
    generator = np.random.default_rng(seed)
    z, labels = generator.integers(0, 3, len(masks)), generator.integers(0, 3, len(masks))
    _, height, width = masks.shape
    shapes = ""
    for mask, order, label in zip(masks, z, labels, strict=True):
        row = np.concatenate([[False], mask.ravel(), [False]])
        ends = np.flatnonzero(row[1:] != row[:-1])
        runs = np.diff(ends, prepend=0, append=mask.size)
        rle = ",".join(map(str, runs))
        shapes += f'<mask label="l{label}" rle="{rle}" left="0" top="0" width="{width}" height="{height}" z_order="{order}"/>'
    names = "".join(f"<label><name>l{k}</name></label>" for k in range(3))
    place = xml(tmp_path_factory.mktemp("z"), image(shapes, width=width, height=height), meta=names)
    expected = np.full((height, width), -1)
    for index in np.argsort(z, kind="stable"):
        expected[masks[index]] = labels[index]
    found = read(place)[0].truth
    assert np.array_equal(found.class_map(), expected)
    assert sorted(mask.tobytes() for mask in found.masks()) == sorted(mask.tobytes() for mask in masks if mask.any())


# By a law


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_objects_come_back(tmp_path_factory, data):
    shape = data.draw(array_shapes(min_dims=2, max_dims=2, max_side=9))
    masks = data.draw(arrays(bool, (data.draw(st.integers(0, 5)), *shape)))
    numbers = np.random.default_rng(0).permutation(len(masks)) + 1
    sample = sample_of("val__a__b.c", masks, numbers=numbers)
    place = tmp_path_factory.mktemp("data") / "set"
    write(place, [sample])
    back = read(place)
    assert back.keys == (sample.key,) and back.classes == THINGS
    assert np.array_equal(back[0].image, sample.image)
    assert np.array_equal(back[0].truth.class_map(), sample.truth.class_map())
    found = {int(number): mask.tolist() for number, mask in zip(back[0].truth.instance_ids, back[0].truth.masks(), strict=True)}
    assert found == {int(n): mask.tolist() for n, mask in zip(numbers, masks, strict=True) if mask.any()}


def test_keys_keep_their_order(tmp_path):
    keys = ("val__b", "z", "train__c", "a", "train__a")
    write(tmp_path / "data", [sample_of(key, np.ones((1, 2, 2), bool)) for key in keys])
    assert open_dataset(tmp_path / "data").keys == keys


# By its messages


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (DOT.replace("0,1", "0,2"), "image 'a.png': the runs are 2 pixels together, the box has 1 x 1 = 1"),
        (DOT.replace("0,1", "2,-1"), "the rle is damaged"),
        (DOT.replace("0,1", ""), "has an rle that is no list of whole numbers"),
        (DOT.replace('left="1"', 'left="4"'), "left=4, top=0, width=1 and height=1 do not fit the image of 3 x 4"),
        (DOT.replace('top="0"', ""), "has no 'top'; correct it or export"),
        (DOT.replace("/>", ' group_id="x"/>'), "group_id is 'x', a whole number"),
        (DOT.replace("/>", ' group_id="99999999999"/>'), "has the number 99999999999"),
        ('<polygon label="car" points="1,2;3,4;5"/>', "x,y;x,y;... is needed"),
        ('<polygon label="car" points="1,2;3,4;5,nan"/>', "corner that is not a finite number"),
        ('<box label="car" xtl="1" ytl="1" xbr="2" ybr="2" rotation="inf"/>', "a number is not finite"),
        ('<ellipse label="car" cx="1" cy="1" rx="one" ry="1"/>', "numbers are needed"),
        ('<ellipse label="car" cx="1" cy="1" rx="inf" ry="1"/>', "a number is not finite"),
        ("<a>&b;</a>", "undefined entity"),
    ],
)
def test_shapes_that_are_wrong(tmp_path, shapes, message):
    with pytest.raises(FormatError, match=message) as error:
        read(xml(tmp_path, image(shapes)))[0]
    assert "annotations.xml, line 5" in str(error.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("", "holds no <image>"),
        (image(DOT, width=0), "an image of 3 x 0 .rows x columns. is impossible; correct its size"),
        (image(DOT, width=10**9), "x 1000000000 .rows x columns. is impossible"),
        (image(DOT, width="x"), "width is 'x', a whole number"),
        (image(DOT) * 2, "holds two samples that would both be called 'a'"),
        ('<track id="0" label="car"/>', "tracks: this is 'CVAT for video'; export it as 'CVAT for images 1.1'"),
        ("<a>" * 100, "elements stand in each other 64 deep"),
        ("<image", "not well-formed"),
        (image("<mask/>"), "the mask has no 'label'"),
    ],
)
def test_files_that_are_wrong(tmp_path, images, message):
    with pytest.raises(FormatError, match=message):
        read(xml(tmp_path, images))


def test_other_files(tmp_path):
    with pytest.raises(FormatError, match="does not exist; give the folder that holds annotations.xml"):
        read(tmp_path)
    with pytest.raises(FormatError, match="names no label for polygons or masks"):
        read(xml(tmp_path, image(""), meta=""))
    with pytest.raises(FormatError, match="save it as UTF-8"):
        read(xml(tmp_path, image(DOT), head='<?xml version="1.0" encoding="utf-7"?>'))
    (tmp_path / "annotations.xml").write_bytes("<annotations/>".encode("utf-16"))
    with pytest.raises(FormatError, match="is no UTF-8; save it as UTF-8"):
        read(tmp_path)
    (tmp_path / "annotations.xml").write_text("<annotation/>")
    with pytest.raises(FormatError, match="begins with <annotation>, not with <annotations>"):
        read(tmp_path)
    assert not matches(tmp_path) and not matches(tmp_path / "none.xml")
    xml(tmp_path, image(DOT))
    text = (tmp_path / "annotations.xml").read_text()
    (tmp_path / "annotations.xml").write_text(text[: text.index("</image>") - 9])
    with pytest.raises(FormatError, match=r"annotations.xml, line 5, column \d+: .*; the XML is damaged or cut short"):
        read(tmp_path)


def test_entities_are_refused_at_once(tmp_path):
    entities = "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(20))
    head = f'<?xml version="1.0"?><!DOCTYPE annotations [<!ENTITY a0 "a">{entities}]>'
    with pytest.raises(FormatError, match="line 1 has a DOCTYPE, which is refused"):
        read(xml(tmp_path, image("&a20;"), head=head))


def test_a_file_that_changes_under_the_reader(tmp_path):
    data = read(xml(tmp_path, image(DOT)))
    xml(tmp_path, image(DOT, "b.png"))
    with pytest.raises(FormatError, match="has changed since it was opened; open it again"):
        data[0]


def test_shapes_that_would_fill_the_memory(tmp_path):
    side = 12_000
    full = '<polygon label="{}" points="0,0;12000,0;12000,12000;0,12000"/>'
    with pytest.raises(FormatError, match="the polygon in image 'a.png': it and the shapes before it need more than 1 GiB"):
        truth(tmp_path, full.format("car") + full.format("road"), width=side, height=side)


def test_images_of_another_size_and_names_that_lead_out(tmp_path):
    picture(tmp_path / "images" / "a.png", 5, 5)
    with pytest.raises(FormatError, match="is 5 x 5 .rows x columns., but .* tells of 3 x 4"):
        read(xml(tmp_path, image(DOT)))[0]
    picture(tmp_path / "b.png")
    for name in ("../b.png", "/b.png/../x.png", "C:/b.png", "x/../../b.png", "a" * 5000 + ".png", ""):
        assert not read(xml(tmp_path / "deep", image(DOT, name))).image_files


def test_what_cannot_be_written(tmp_path):
    volume = Sample.of("a", np.zeros((1, 2, 2, 2), np.uint8), Segmentation.semantic(np.zeros((2, 2, 2), int)))
    with pytest.raises(OutputError, match="is a volume, 2 x 2 x 2, and cvat holds flat images"):
        write(tmp_path / "volume", [volume])
    classes = Classes.of(["a\x01"], is_thing=[True])
    with pytest.raises(OutputError, match="which XML cannot; rename it"):
        write(tmp_path / "name", [sample_of("a", np.ones((1, 2, 2), bool), classes=classes)])
