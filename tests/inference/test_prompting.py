"""A promptable network asked about images, in their own pixels. Axes: C, H, W, N prompts, P points."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Classes, Prompt, Sample
from segwright.core.errors import SettingError, ShapeError, UsageError
from segwright.data.clickable_objects import clickable_objects
from segwright.encoders import resnet
from segwright.formats import synthetic
from segwright.inference.embedding_cache import EmbeddingCache
from segwright.inference.load import load
from segwright.inference.predict_files import predict
from segwright.inference.predictor import Predictor
from segwright.inference.prompting import Prompter, answers_prompts, open_prompter, opener_of, prompter_of
from segwright.layers.prompts import PromptedMasks
from segwright.models import sam, sam2
from segwright.tasks.promptable import Promptable
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess

SIDE = 64
TINY = sam.Config(encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=16), width=32, mlp_width=32)
IMAGE = np.random.default_rng(0).integers(0, 255, (3, 30, 60), np.uint8)  # one pixel is 64 / 60 of the network's


class Asked(NamedTuple):
    prompts: object
    multimask: bool


class Disc(nn.Module):
    """Answers each prompt with discs about its first point, or the centre of its box, of 8, 4 and 2 patches of 4 pixels."""

    divisors = (16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.asked: list[Asked] = []
        self.images: list[Tensor] = []

    def encode(self, image: Tensor) -> Tensor:
        self.images.append(image)
        return torch.zeros(1, 1, image.shape[2] // 16, image.shape[3] // 16)

    def decode(self, embedding, prompts, *, multimask):
        self.asked.append(Asked(prompts, multimask))
        centre = (
            prompts.points_xy[:, :, 0] if prompts.points_xy is not None else prompts.boxes_xyxy.unflatten(2, (2, 2)).mean(2)
        )
        y, x = (4 * (torch.arange(4 * side) + 0.5) for side in embedding.shape[2:])
        apart = ((x - centre[..., 0, None, None]) ** 2 + (y[:, None] - centre[..., 1, None, None]) ** 2).sqrt()
        radii = torch.tensor([16.0, 24.0, 8.0]) if multimask else torch.tensor([16.0])
        scores = torch.tensor([0.5, 0.9, 0.7]) if multimask else torch.tensor([0.8])
        return PromptedMasks(radii[:, None, None] - apart[:, :, None], scores.expand(*centre.shape[:2], -1))


@pytest.fixture
def disc():
    return Disc()


@pytest.fixture
def session(disc):
    return Prompter(network=disc, side=SIDE).open(IMAGE)


def test_networks_that_learnt_from_squares_see_all_of_one(disc):
    """SAM 2: an image of 30 x 60 fills 64 x 64, so that a disc of the network's is half as high as wide."""
    disc.fills_squares = sam2.Sam2.fills_squares
    session = Prompter(network=disc, side=SIDE).open(IMAGE)
    assert session.seen == (SIDE, SIDE) and disc.images[-1][..., -1].any() and disc.images[-1][:, :, -1].any()
    found = session.segment(point(30.0, 15.0))
    left, top, right, bottom = found.boxes_xyxy()[0]
    assert (right + left) / 2 == pytest.approx(30, abs=1) and (top + bottom) / 2 == pytest.approx(15, abs=1)
    assert (right - left) / (bottom - top) == pytest.approx(2, abs=0.2)


def point(x: float, y: float, *, is_foreground: bool = True, number: int = 1) -> Prompt:
    return Prompt(points_xy=np.array([[x, y]], np.float32), is_foreground=np.array([is_foreground]), object_id=number)


def test_by_hand_a_point_gives_the_best_of_three_discs_in_pixels_of_the_image(session, disc):
    found = session.segment(point(30, 15))
    assert disc.asked[0].multimask and disc.asked[0].prompts.labels.tolist() == [[[1]]]
    torch.testing.assert_close(disc.asked[0].prompts.points_xy, torch.tensor([[[[32.0, 16.0]]]]))
    y, x = np.mgrid[:30, :60] + 0.5
    wanted = (x - 30) ** 2 + (y - 15) ** 2 < (24 * 60 / 64) ** 2
    assert found.shape == (30, 60) and found.scores.tolist() == pytest.approx([0.9])
    assert (found.mask(0) != wanted).mean() < 0.03  # its edge, on patches of 4 pixels
    assert [round(float(score), 3) for score in session.candidates(point(30, 15)).scores] == [0.9, 0.7, 0.5]


def test_an_image_fills_the_upper_left_of_what_the_network_sees(session, disc):
    (image,) = disc.images
    assert image.shape == (1, 3, SIDE, SIDE) and session.seen == (32, 64)
    assert not image[:, :, 32:].any() and image[:, :, :32].any()


def test_corners_of_a_box_are_the_outermost_pixels(session, disc):
    session.segment(Prompt(box_xyxy=np.array([0, 0, 60, 30], np.float32)))
    scale = 64 / 60
    wanted = torch.tensor([[[0.5 * scale, 0.5 * 32 / 30, 59.5 * scale, 29.5 * 32 / 30]]])
    torch.testing.assert_close(disc.asked[0].prompts.boxes_xyxy, wanted)
    assert not disc.asked[0].multimask


def test_prompts_of_one_kind_are_asked_together_and_come_back_in_order(session, disc):
    box = Prompt(box_xyxy=np.array([40, 10, 50, 20], np.float32), object_id=7)
    prompts = (point(10, 10), box, point(50, 20, number=2))
    found = session.segment(*prompts)
    assert len(disc.asked) == 2 and found.instance_ids.tolist() == [1, 7, 2]
    for index, each in enumerate(prompts):
        assert np.array_equal(found.mask(index), session.segment(each).mask(0))


def test_an_answer_is_refined_by_what_the_network_said_and_a_drawn_mask_by_its_outline(session, disc):
    first = session.segment(point(30, 15)).mask(0)
    more = Prompt(points_xy=np.array([[30, 15], [5, 5]], np.float32), is_foreground=np.array([True, False]), mask=first)
    session.segment(more)
    said = disc.asked[-1].prompts
    assert said.labels.tolist() == [[[1, 0]]] and not disc.asked[-1].multimask
    assert said.mask_logits.unique().numel() > 10  # no outline
    drawn = np.zeros((30, 60), bool)
    drawn[:15, :30] = True
    session.segment(Prompt(points_xy=more.points_xy, is_foreground=more.is_foreground, mask=drawn))
    logits = disc.asked[-1].prompts.mask_logits[0, 0]
    assert logits.shape == (16, 16) and (logits[8:] == -8).all() and (logits[:, 9:] == -8).all()
    torch.testing.assert_close(logits[:3, :6], torch.full((3, 6), 8.0))


@pytest.mark.parametrize("shape", [(64, 64), (64, 37), (200, 130), (17, 64)])
def test_masks_are_those_of_the_authors_way_over_two_sizes(shape):
    """They bring logits to the sides that the network saw, cut off the padding, and bring the rest to those of the image."""
    torch.manual_seed(0)
    session = Prompter(network=TINY.build().eval(), side=SIDE).open(np.zeros((3, *shape), np.uint8))
    prompt = point(shape[1] / 2, shape[0] / 2)
    found = session.candidates(prompt)
    answer = session.ask([prompt], multimask=True)
    order = answer.scores[0, 0].argsort(descending=True)
    whole = F.interpolate(answer.mask_logits[:, 0, order], (SIDE, SIDE), mode="bilinear")
    filled = whole[:, :, : session.seen[0], : session.seen[1]]
    wanted = (F.interpolate(filled, shape, mode="bilinear")[0] > 0).numpy()
    differ = (found.masks() != wanted).mean(axis=(1, 2))
    assert (differ < (0.002 if session.seen == shape else 0.02)).all()  # logits near 0 go either way


def test_an_image_is_encoded_once_with_a_cache(disc, tmp_path):
    prompter = Prompter(network=disc, side=SIDE, cache=EmbeddingCache(tmp_path))
    for image in (IMAGE, IMAGE, IMAGE + 1):
        found = prompter.open(image).segment(point(30, 15))
    assert len(disc.images) == 2 and len(found) == 1
    with torch.no_grad():
        disc.weight += 1  # another network
    Prompter(network=disc, side=SIDE, cache=EmbeddingCache(tmp_path)).open(IMAGE)
    assert len(disc.images) == 3


def test_a_real_network_answers_the_same_alone_and_together():
    torch.manual_seed(0)
    session = Prompter(network=TINY.build().eval(), side=SIDE).open(IMAGE)
    prompts = [point(10, 10), point(50, 20, is_foreground=False, number=2)]
    together = session.segment(*prompts)
    for index, prompt in enumerate(prompts):
        alone = session.segment(prompt)
        assert (alone.mask(0) != together.mask(index)).mean() < 0.01
        assert alone.scores[0] == pytest.approx(together.scores[index], abs=1e-4)


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 1, 300), (3, 500, 2), (3, 2, 20_000)])
def test_images_of_odd_shapes_are_answered(shape, disc):
    session = Prompter(network=disc, side=SIDE).open(np.zeros(shape, np.uint8))
    assert session.segment(point(0.5, 0.5)).shape == shape[1:]


def test_values_that_no_published_network_knows_are_refused(disc):
    prompter = Prompter(network=disc, side=SIDE)
    for pixels, message in (
        (np.full((3, 8, 8), 256, np.uint16), "the image has values from 256 to 256, and this network takes 0 to 255; stretch"),
        (np.full((3, 8, 8), -1.0), "the image has values from -1 to -1"),
        (np.full((3, 8, 8), np.nan), r"the image has values that are no numbers \(NaN, infinite\); give np.nan_to_num"),
        (np.full((3, 8, 8), 1e300), "the image has values that are no numbers"),
        (np.zeros((3, 8, 8), object), "the image is an array of object; give an array of numbers"),
        ([[[0]]], "the image is a list; give an array of numbers, channels first"),
    ):
        with pytest.raises(ShapeError, match=message):
            prompter.open(pixels)
    assert prompter.open(np.full((3, 8, 8), 200.5)).shape == (8, 8)
    assert prompter.open_sample(Sample.of("deep", np.full((3, 8, 8), 2000, np.uint16))).shape == (8, 8)


def test_channels_that_are_not_seen_are_told_once(disc, caplog):
    prompter = Prompter(network=disc, side=SIDE)
    for key, count, said in (("five_of_a_test", 5, "the first three"), ("two_of_a_test", 2, "the first, as grey")):
        for _ in range(2):
            prompter.open_sample(Sample.of(key, np.zeros((count, 8, 8), np.uint8)))
        assert caplog.text.count(f"{key} has {count} channels, and this network sees three: {said}") == 1
    caplog.clear()
    prompter.open_sample(Sample.of("grey", np.zeros((1, 8, 8), np.uint8)))
    assert not caplog.text


def test_what_cannot_be_answered_is_refused(session, disc):
    with pytest.raises(
        ShapeError, match=r"points \[\[60.5, 3.0\]\] of object 1 lie outside the image, which is 60 wide and 30 high"
    ):
        session.segment(point(60.5, 3))
    with pytest.raises(ShapeError, match="the box .* is empty; give x1, y1, x2, y2"):
        session.segment(Prompt(box_xyxy=np.array([5, 5, 5, 9], np.float32)))
    with pytest.raises(ShapeError, match=r"the mask is \(3, 3\) and the image \(30, 60\)"):
        session.segment(Prompt(mask=np.ones((3, 3), bool)))
    with pytest.raises(UsageError, match="says 'cat', and this network reads no text"):
        session.segment(Prompt(text="cat"))
    twice = np.array([[5, 5], [9, 9], [5, 5]], np.float32)
    with pytest.raises(UsageError, match="2 prompts are about object 1"):
        session.segment(point(5, 5), point(9, 9))
    with pytest.raises(UsageError, match="a list was given for a prompt"):
        session.candidates([point(5, 5)])
    assert len(session.segment(Prompt(points_xy=twice, is_foreground=np.array([True, True, True])))) == 1
    with pytest.raises(UsageError, match="there is no prompt; give at least one"):
        session.segment()
    with pytest.raises(ShapeError, match=r"the image is \(30, 60, 3\); \(3, H, W\) is needed"):
        session.prompter.open(np.moveaxis(IMAGE, 0, -1))
    with pytest.raises(SettingError, match="side is 65; this network takes sides that are multiples of 16"):
        Prompter(network=disc, side=65)


def test_weights_fill_a_network_by_its_name(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = TINY.build().eval()
    torch.save(network.state_dict(), tmp_path / "tiny.pth")
    monkeypatch.setitem(sam.PRESETS, "sam_tiny_of_a_test", TINY)
    prompter = open_prompter("sam_tiny_of_a_test", weights=str(tmp_path / "tiny.pth"))
    assert not prompter.network.training
    assert all(map(torch.equal, prompter.network.state_dict().values(), network.state_dict().values()))
    with pytest.raises(UsageError, match=r"answers prompts, .*open_prompter\('sam_tiny_of_a_test', weights="):
        load("sam_tiny_of_a_test", weights=tmp_path / "tiny.pth")
    with pytest.raises(SettingError, match="unet_tiny answers no prompts; open it with segwright.load"):
        open_prompter("unet_tiny", weights=str(tmp_path / "tiny.pth"))


def test_weights_that_are_not_named_are_those_published_for_the_network(monkeypatch):
    with pytest.raises(UsageError, match="the weights mobile_sam_sa1b are not on this machine; .* as mobile_sam.pt"):
        open_prompter("mobile_sam")
    monkeypatch.setitem(sam.PRESETS, "sam_tiny_of_a_test", TINY)
    with pytest.raises(
        UsageError, match="nobody has published weights for sam_tiny_of_a_test; give a file of them with weights"
    ):
        open_prompter("sam_tiny_of_a_test")


def test_the_weights_that_come_with_segwright_answer_clicks():
    sample = clickable_objects(synthetic.cells(1, shape=(150, 250), seed=5))[0]
    session = open_prompter("sam_nano").open_sample(sample)
    assert session.seen == (150, 250) and session.embedding.shape[2:] == (10, 16)  # neither enlarged nor padded to a square
    masks = sample.truth.masks()
    largest = max(range(len(masks)), key=lambda index: masks[index].sum())
    rows, columns = masks[largest].nonzero()
    found = session.segment(point(columns.mean(), rows.mean())).masks()[0]
    assert (found & masks[largest]).sum() / (found | masks[largest]).sum() > 0.6


def test_a_run_is_opened_by_its_folder(tiny_plan, tmp_path):
    torch.manual_seed(0)
    network = TINY.build().eval()
    plan = replace(tiny_plan, task=Promptable(), model=TINY, data=replace(tiny_plan.data, preprocess=Preprocess(channels=3)))
    (tmp_path / "run").mkdir()
    ModelFile(network.state_dict(), plan, Classes.of(["object"])).write(tmp_path / "run" / "model.safetensors")
    prompter = open_prompter(tmp_path / "run")
    assert all(map(torch.equal, prompter.network.state_dict().values(), network.state_dict().values()))
    assert len(prompter.open(IMAGE).segment(point(30, 15))) == 1


class AsTrained(Disc):
    """Discs, from a run."""

    OUTPUT = "prompted_masks"


def predictor_of(network: nn.Module, **settings) -> Predictor:
    preprocess = Preprocess(normalise=Normalise(mean=(0.0,) * 3, std=(1.0,) * 3), **settings)
    return Predictor(network=network, task=Promptable(), classes=Classes.of(["object"]), preprocess=preprocess, tile=(96, 96))


def test_images_reach_the_network_of_a_run_as_in_its_training():
    network = AsTrained()
    session = opener_of(predictor_of(network))(Sample.of("a", IMAGE))
    assert network.images[-1].shape == (1, 3, 32, 64) and session.seen == (30, 60)
    assert torch.equal(network.images[-1][0, :, :30, :60], torch.from_numpy(IMAGE.astype(np.float32)))
    assert network.images[-1][0, :, 30:].any()  # padded by its mirror image
    found = session.segment(point(30, 15)).mask(0)
    torch.testing.assert_close(network.asked[-1].prompts.points_xy, torch.tensor([[[[30.0, 15.0]]]]))
    y, x = np.mgrid[:30, :60] + 0.5
    assert (found != ((x - 30) ** 2 + (y - 15) ** 2 < 24**2)).mean() < 0.03
    session.segment(Prompt(points_xy=np.array([[30, 15]], np.float32), is_foreground=np.array([True]), mask=x < 30))
    (earlier,) = network.asked[-1].prompts.mask_logits[0]
    assert earlier.shape == (8, 16) and (earlier[:7, :7] > 0).all() and (earlier[:, 8:] < 0).all()


def test_images_are_scaled_as_in_training_and_shrunk_where_they_are_too_large():
    network = AsTrained()
    opener_of(predictor_of(network, scale=(0.5, 0.5)))(Sample.of("a", IMAGE))
    assert network.images[-1].shape == (1, 3, 16, 32)
    session = prompter_of(predictor_of(network)).open(np.zeros((3, 100, 200), np.uint8))
    assert network.images[-1].shape == (1, 3, 48, 96) and session.seen == (48, 96) and session.shape == (100, 200)


def test_a_network_that_answers_prompts_predicts_no_files(tmp_path):
    with pytest.raises(UsageError, match="^this network answers prompts, .*; ask it with segwright segment"):
        predict(predictor_of(AsTrained()), ["nowhere.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_network_that_answers_no_prompts_is_told():
    predictor = predictor_of(nn.Conv2d(3, 1, 1))
    assert not answers_prompts(predictor) and answers_prompts(predictor_of(AsTrained())) and not answers_prompts(None)
    with pytest.raises(SettingError, match="is a Conv2d, which answers no prompts.*--task promptable"):
        prompter_of(predictor)
