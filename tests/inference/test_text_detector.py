"""What texts name, by networks that are seen through, and by tiny random ones of transformers. Axes: K texts, Q, H, W."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from segwright.core.errors import SettingError, UsageError
from segwright.inference.text_detector import KINDS, TextDetector, check_texts
from segwright.inference.text_folder import open_text_detector

PICTURE = np.random.default_rng(0).integers(0, 255, (20, 40, 3), np.uint8)
SURE, UNSURE = 4.0, -4.0  # logits


class Seen:
    """Stands for a processor: keeps what it is asked, and cuts a text into its words, between two tokens of its own."""

    def __init__(self):
        self.asked, self.sides = [], []
        self.tokenizer = lambda text: {"input_ids": [1, *text.split(), 2]}
        self.tokenizer.model_max_length = 10**30

    def __call__(self, **inputs):
        self.asked.append(inputs.pop("text"))
        self.sides.append(np.asarray(inputs.pop("images")).shape[-3:-1])
        return {}


def detector(kind, answers, most=8):
    """A detector whose network gives these answers, one after the other."""
    given = iter(answers)

    def network(**_):
        return next(given)

    network.config = SimpleNamespace(text_config=SimpleNamespace(max_position_embeddings=most))
    return TextDetector(network, Seen(), kind)


def boxes_of(*boxes):
    """The answer of a network with boxes (x1, y1, x2, y2) as shares of its image, as centres and sides."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)[None]


@pytest.mark.parametrize(("kind", "height"), [("owlvit", 20), ("owlv2", 40)])
def test_by_hand_each_box_is_of_the_text_that_fits_it_best(kind, height):
    logits = torch.tensor([[[SURE, UNSURE], [UNSURE, 2.0], [UNSURE, UNSURE]]])  # (1, Q, K)
    answer = SimpleNamespace(logits=logits, pred_boxes=boxes_of([0, 0, 0.5, 0.5], [0.5, 0, 1, 0.25], [0, 0, 1, 1]))
    network = detector(kind, [answer])
    found = network.find(PICTURE, ["cat", "a red dog"])
    assert network.processor.asked == [[["cat", "a red dog"]]]
    np.testing.assert_allclose(found.boxes_xyxy, [[0, 0, 20, height / 2], [20, 0, 40, height / 4]], atol=1e-5)
    assert found.class_ids.tolist() == [0, 1] and found.masks is None
    np.testing.assert_allclose(found.scores, torch.tensor([SURE, 2.0]).sigmoid(), rtol=1e-6)


@pytest.mark.parametrize(("shape", "seen"), [((20, 40), (20, 40)), ((2, 20_000), (1, 1536)), ((3072, 1000), (1536, 500))])
def test_long_pictures_are_shrunk_first_and_boxes_are_in_pixels_of_the_image(shape, seen):
    answer = SimpleNamespace(logits=torch.full((1, 1, 1), SURE), pred_boxes=boxes_of([0.5, 0, 1, 0.5]))
    network = detector("owlvit", [answer])
    found = network.find(np.zeros((*shape, 3), np.uint8), ["cat"])
    assert network.processor.sides == [seen]
    assert found.boxes_xyxy.tolist() == [[shape[1] / 2, 0, shape[1], shape[0] / 2]]


def test_what_was_found_twice_counts_once_for_each_text_and_boxes_stay_in_the_image():
    logits = torch.tensor([[[3.0, -9.0], [SURE, -9.0], [-9.0, 2.0], [SURE, -9.0]]])
    places = boxes_of([0, 0, 0.5, 1], [0, 0, 0.52, 1], [0, 0, 0.5, 1], [1.2, 0, 1.5, 1])  # the last lies outside
    found = detector("owlvit", [SimpleNamespace(logits=logits, pred_boxes=places)]).find(PICTURE, ["cat", "dog"])
    assert found.class_ids.tolist() == [0, 1] and found.boxes_xyxy[0, 2] == pytest.approx(20.8)
    found = detector("owlvit", [SimpleNamespace(logits=logits[:, :1], pred_boxes=boxes_of([-1, -1, 2, 2]))]).find(
        PICTURE, ["cat", "dog"]
    )
    assert found.boxes_xyxy.tolist() == [[0, 0, 40, 20]]


def test_nothing_found_is_no_error():
    for kind, answer in (
        ("owlv2", SimpleNamespace(logits=torch.full((1, 3, 1), UNSURE), pred_boxes=boxes_of(*[[0, 0, 1, 1]] * 3))),
        ("owlv2", SimpleNamespace(logits=torch.full((1, 3, 1), np.nan), pred_boxes=boxes_of(*[[0, 0, 1, 1]] * 3))),
        ("grounding-dino", SimpleNamespace(logits=torch.full((1, 3, 9), UNSURE), pred_boxes=boxes_of(*[[0, 0, 1, 1]] * 3))),
        ("clipseg", SimpleNamespace(logits=torch.full((1, 8, 8), UNSURE))),
    ):
        found = detector(kind, [answer]).find(PICTURE, ["cat"])
        assert len(found) == 0 and found.boxes_xyxy.shape == (0, 4)


def test_grounding_dino_is_asked_for_each_text_as_it_was_trained():
    answers = [
        SimpleNamespace(logits=torch.full((1, 1, 9), UNSURE), pred_boxes=boxes_of([0, 0, 1, 1])),
        SimpleNamespace(logits=torch.tensor([[[UNSURE, 1.0, -torch.inf]]]), pred_boxes=boxes_of([0.25, 0, 0.5, 1])),
    ]
    network = detector("grounding-dino", answers)
    found = network.find(PICTURE, ["Cat.", " red Dog"])
    assert network.processor.asked == ["cat.", "red dog."]
    assert found.class_ids.tolist() == [1] and found.boxes_xyxy.tolist() == [[10, 0, 20, 20]]
    assert found.scores[0] == pytest.approx(float(torch.tensor(1.0).sigmoid()))


def test_each_piece_of_a_map_of_clipseg_becomes_a_box():
    logits = torch.full((1, 20, 20), UNSURE)
    logits[0, 2:8, 0:10] = 1.0
    logits[0, 5, 5] = 3.0
    logits[0, 12:18, 12:20] = 2.0
    logits[0, 0:2, 17:19] = SURE  # too few pixels
    found = detector("clipseg", [SimpleNamespace(logits=logits)]).find(PICTURE, ["cat"])
    assert found.boxes_xyxy.tolist() == [[0, 2, 20, 8], [24, 12, 40, 18]]  # columns are two pixels of the image
    np.testing.assert_allclose(found.scores, torch.tensor([3.0, 2.0]).sigmoid(), rtol=1e-6)


@pytest.mark.parametrize("min_score", [-0.1, 1.5, float("nan")])
def test_a_score_is_a_share(min_score):
    with pytest.raises(SettingError, match="give a score from 0 to 1, such as 0.1"):
        detector("owlv2", []).find(PICTURE, ["cat"], min_score=min_score)


def test_texts_that_cannot_be_read_are_told():
    check_texts(["cat", "dog"])
    for texts, message in (
        ([], "a text is blank or nothing but punctuation, or there is none; name what to find"),
        (["cat", " ."], "nothing but punctuation"),
        (["Cat", "dog", "cat"], "'cat' is given twice, as capitals make no other text"),
        (["cat", " "], "a text is blank"),
        (["cat", " cat"], "'cat' is given twice, .*; name each kind of object once"),
    ):
        with pytest.raises(UsageError, match=message):
            check_texts(texts)
    with pytest.raises(
        UsageError, match="the text 'a b c d e f g' has 9 tokens, and this network reads 8; say it in fewer words"
    ):
        detector("owlv2", []).find(PICTURE, ["cat", "a b c d e f g"])


@pytest.mark.parametrize("kind", ["owlv2", "clipseg", "grounding-dino", "sam3"])
def test_a_random_network_of_transformers_is_asked_as_it_wants(kind, text_folder):
    network = open_text_detector(text_folder(kind))
    assert network.kind == kind and not network.network.training and network.gives_masks == (kind == "sam3")
    found = network.find(PICTURE, ["cat", "dog"], min_score=0.0)
    height, width = PICTURE.shape[:2]
    assert len(found) and set(found.class_ids) <= {0, 1} and (found.boxes_xyxy >= 0).all()
    assert (found.boxes_xyxy <= [width, height, width, height]).all() and (np.diff(found.scores) <= 0).all()
    if kind == "sam3":
        assert found.masks.shape == (len(found), height, width) and found.masks.dtype == bool
    assert len(network.find(PICTURE, ["cat"], min_score=1.0)) == 0
    if kind == "owlv2":  # transformers' own way from outputs to boxes
        inputs = network.processor(text=[["cat", "dog"]], images=PICTURE, return_tensors="pt")
        with torch.inference_mode():
            theirs = network.processor.post_process_grounded_object_detection(
                network.network(**inputs), threshold=0.0, target_sizes=[(height, width)]
            )[0]
        best = int(theirs["scores"].argmax())
        np.testing.assert_allclose(found.scores[0], theirs["scores"][best], rtol=1e-5)
        wanted = theirs["boxes"][best].clamp(min=0).minimum(torch.tensor([width, height, width, height])).numpy()
        np.testing.assert_allclose(found.boxes_xyxy[0], wanted, atol=1e-3)


def test_what_transformers_cannot_do_is_told_with_the_size_of_the_image():
    with pytest.raises(
        UsageError, match=r"owlv2 cannot look at an image of 40 x 20 \(.*\); crop or resize it, or give another"
    ):
        detector("owlv2", [SimpleNamespace()]).find(PICTURE, ["cat"])


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (200, 1)])
def test_images_of_odd_shapes_are_looked_at(shape, text_folder):
    picture = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    for kind in ("owlv2", "clipseg"):
        found = open_text_detector(text_folder(kind)).find(picture, ["cat"], min_score=0.0)
        assert (found.boxes_xyxy <= [shape[1], shape[0], shape[1], shape[0]]).all()


def test_thresholds_are_those_that_are_told():
    assert {kind: entry.least_score for kind, entry in KINDS.items()} == {
        **{"owlvit": 0.1, "owlv2": 0.1, "grounding-dino": 0.25, "mm-grounding-dino": 0.25, "clipseg": 0.5, "sam3": 0.3}
    }
