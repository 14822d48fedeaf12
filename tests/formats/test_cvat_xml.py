import numpy as np
import pytest

from segwright.core.errors import FormatError
from segwright.formats.cvat_xml import CHUNK, Index, Shape, shapes_of

MASK = '<mask label="{}" rle="0,1" left="0" top="0" width="1" height="1"/>'


def file(path, body, head=""):
    path.write_text(f"{head}<annotations>{body}</annotations>", encoding="utf-8")
    return path


# By hand


def test_an_index_knows_where_images_begin(tmp_path):
    label = "<label><name>a &amp; b</name><type>any</type><attributes><name>x</name></attributes></label>"
    labels = f"<meta><labels>{label}</labels></meta>"
    shapes = MASK.format("c") + '<box label="d"/><tag/>'
    images = f'\n<image name="ä" width="3" height="2">{shapes}</image>\n<image name="b" width="1" height="1"/>'
    index = Index(file(tmp_path / "a.xml", labels + images))
    assert [(entry.name, entry.shape, entry.line) for entry in index.entries] == [("ä", (2, 3), 2), ("b", (1, 1), 3)]
    text = (tmp_path / "a.xml").read_bytes()
    assert all(text[entry.offset :].startswith(b"<image name=") for entry in index.entries)
    assert index.labels == [{"name": "a & b", "type": "any"}] and [*index.used] == ["c", "d"]
    first, second = (shapes_of(index.path, index.encoding, entry) for entry in index.entries)
    assert [shape.tag for shape in first] == ["mask", "box", "tag"] and second == []
    assert first[0].place == f"{tmp_path / 'a.xml'}, line 2: the mask in image 'ä'"


def test_other_encodings(tmp_path):
    text = '<?xml version="1.0" encoding="ISO-8859-1"?><annotations><image name="ä" width="1" height="1"/></annotations>'
    (tmp_path / "a.xml").write_bytes(text.encode("latin-1"))
    index = Index(tmp_path / "a.xml")
    assert index.entries[0].name == "ä" and shapes_of(index.path, index.encoding, index.entries[0]) == []


def test_attributes_of_a_shape():
    shape = Shape("mask", {"a": " 7", "b": "x"}, "file, line 1: the mask")
    assert shape.text("a") == " 7" and shape.number("a") == 7 and shape.number("none", missing=3) == 3
    for name, message in {"b": "file, line 1: the mask: b is 'x', a whole number", "c": "the mask has no 'c'"}.items():
        with pytest.raises(FormatError, match=message):
            shape.number(name)


# By a law


def test_elements_longer_than_a_chunk(tmp_path):
    names = ["x" * length for length in (1, CHUNK - 200, CHUNK, 3 * CHUNK)]
    shapes = "".join(MASK.format(name) for name in names)
    index = Index(
        file(tmp_path / "a.xml", "".join(f'<image name="{n}" width="1" height="1">{shapes}</image>' for n in range(3)))
    )
    for entry in index.entries:
        assert [shape.text("label") for shape in shapes_of(index.path, index.encoding, entry)] == names


def test_memory_does_not_hold_the_shapes(tmp_path):
    body = "".join(f'<image name="{n}" width="1" height="1">{MASK.format("a") * 50}</image>' for n in range(200))
    index = Index(file(tmp_path / "a.xml", body))
    assert len(index.entries) == 200 and not any(isinstance(value, Shape) for value in vars(index).values())
    assert np.all(np.diff([entry.offset for entry in index.entries]) > 50 * len(MASK.format("a")))


# By its messages


@pytest.mark.parametrize(
    ("body", "head", "message"),
    [
        ("<image/>", "", "the image has no 'height'"),
        ('<image name="a" width="1" height="1"><mask/></image>', "", "line 1: the mask has no 'label'"),
        ("<track/>", "", "export it as 'CVAT for images 1.1'"),
        ("<a>" * 80, "", "64 deep"),
        ("<a>", "", "line 1, column 19: mismatched tag"),
        ("", "<!DOCTYPE a>", "has a DOCTYPE, which is refused"),
        ("", '<?xml version="1.0" encoding="koi8-r"?>', "is written in 'koi8-r'; save it as UTF-8"),
        ("", "x", "not well-formed|syntax error"),
    ],
)
def test_files_that_are_wrong(tmp_path, body, head, message):
    with pytest.raises(FormatError, match=message) as error:
        Index(file(tmp_path / "a.xml", body, head))
    assert str(tmp_path / "a.xml") in str(error.value)


def test_a_file_that_has_changed(tmp_path):
    index = Index(file(tmp_path / "a.xml", '<image name="a" width="1" height="1"></image>'))
    file(tmp_path / "a.xml", '<image name="b" width="1" height="1"></image>')
    with pytest.raises(FormatError, match="has changed since it was opened"):
        shapes_of(index.path, index.encoding, index.entries[0])
    (tmp_path / "a.xml").write_bytes(b"")
    with pytest.raises(FormatError, match="no element found; the XML is damaged|no element found"):
        shapes_of(index.path, index.encoding, index.entries[0])
    (tmp_path / "a.xml").unlink()
    with pytest.raises(FormatError, match="a.xml cannot be read"):
        shapes_of(index.path, index.encoding, index.entries[0])
    with pytest.raises(FormatError, match="a.xml does not exist; give the folder that holds annotations.xml"):
        Index(tmp_path / "a.xml")
