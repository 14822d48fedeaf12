"""SAM 2 against the authors' networks and Hugging Face's, at every depth and in every frame. Axes: B, P, M, N, E, C, H, W.

Of the authors' files, points count in pixels, to which their code adds 0.5 in pixels of the network's image.
"""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from segwright.core import Prompt
from segwright.core.errors import SettingError, ShapeError
from segwright.encoders import hiera, resnet
from segwright.inference import frame_memory, video
from segwright.layers import memory_encoder, prompt_encoder
from segwright.layers.prompts import Prompts
from segwright.models import sam2

ENCODER = hiera.Config(width=16, depths=(1, 2, 3, 1), global_blocks=(4,))  # of the golden files
SIDE = 128
OUTSIDE = (90, 120)  # of their video (H, W)
MEAN, STD = (torch.tensor(value)[:, None, None] for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
OF_VIDEO = [f"sam{version}_hiera_{size}" for version in ("2.0", "2.1") for size in sam2.SIZES]


@pytest.fixture
def tiny(monkeypatch):
    """Networks of the sizes of the golden files."""

    def built(**sizes: int) -> sam2.Sam2:
        for name, value in {"MEMORY_DEPTH": 2, "MEMORY_MLP": 96, **sizes}.items():
            place = {"MASK_WIDTH": prompt_encoder, "WIDER": memory_encoder}.get(name, sam2)
            monkeypatch.setattr(place, name, value)
        return sam2.Config(encoder=ENCODER).build().eval()

    return built


@pytest.fixture
def authors(tiny, golden):
    """A golden file of the authors', with their weights in our network."""

    def opened(name: str) -> tuple:
        file, network = golden(name), tiny(WIDTH=64, MEMORY_WIDTH=16)
        network.load_state_dict(sam2.rename(file.weights))
        return file, network

    return opened


def frames_of(file) -> list[Tensor]:
    """The frames of the authors' video, as the network takes them: a picture that moves."""
    picture = torch.from_numpy(drawn_picture(f"{file.meta['recipe']['seed']}:in:frame", SIDE, SIDE))
    moved = [picture.roll((3 * step, 5 * step), (0, 1)) for step in range(file.config["num_frames"])]
    return [(frame.permute(2, 0, 1) / 255 - MEAN) / STD for frame in moved]


def drawn_picture(text: str, height: int, width: int) -> np.ndarray:
    """Ellipses on a slope with noise, uint8 (H, W, 3), by the rule of the golden files."""
    import zlib

    draw = np.random.RandomState(zlib.crc32(text.encode()))
    y, x = np.mgrid[:height, :width].astype(np.float64)
    picture = np.zeros((height, width, 3)) + draw.uniform(40, 120, size=(1, 1, 3))
    picture += (x / width)[..., None] * draw.uniform(-40, 60, size=(1, 1, 3))
    for _ in range(6):
        centre_y, centre_x = draw.uniform(0, height), draw.uniform(0, width)
        radius_y, radius_x = draw.uniform(0.08, 0.3) * height, draw.uniform(0.08, 0.3) * width
        inside = ((y - centre_y) / radius_y) ** 2 + ((x - centre_x) / radius_x) ** 2 < 1
        picture[inside] = draw.uniform(0, 255, size=3)
    picture += draw.standard_normal((height, width, 3)) * 6
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


class Shown:
    """A video of so many frames, of which nobody looks at the pixels: the network is given its own."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, frame: int) -> np.ndarray:
        raise AssertionError("frames of golden files are prepared already")


def session_of(
    network: sam2.Sam2, frames: list[Tensor], shape: tuple[int, int], *, takes_half: bool = False
) -> video.TrackSession:
    """A session on frames that are prepared already, of a video of this shape (H, W), which are followed in float32 or half."""
    session = video.Tracker(network=network, side=SIDE).open(Shown(len(frames)))
    session._shape = shape
    session._embedding = lambda frame: session.precision.encode(frames[frame][None])
    session.precision.takes_half = takes_half
    return session


def point(x: float, y: float, shape: tuple[int, int] = (SIDE, SIDE)) -> Prompt:
    """A point in the authors' pixels of a video of this shape (H, W) as one of ours."""
    half = [0.5 * side / SIDE for side in shape[::-1]]
    return Prompt(points_xy=np.array([[x + half[0], y + half[1]]], np.float32), is_foreground=np.array([True]))


@pytest.mark.parametrize("name", ["sam2_a", "sam2_occluded_a"])  # in the second no object is seen in any frame
@pytest.mark.parametrize(("kind", "dtype"), [("f32", torch.float32), ("bf16", torch.bfloat16)])
def test_every_frame_of_a_video_equals_the_authors(authors, monkeypatch, name, kind, dtype):
    monkeypatch.setattr(frame_memory, "MEMORY_DTYPE", dtype)
    file, network = authors(name)
    session = session_of(network, frames_of(file), OUTSIDE)
    with torch.no_grad():
        embedding = session._embedding(0)
        image, fine, finest = embedding.split([64, 64, 128], dim=1)
        file.check("img.fpn2", image)
        file.check("img.fpn1", F.pixel_shuffle(fine.unflatten(1, (4, 16)).transpose(1, 2).flatten(1, 2), 2))
        pixels = finest.unflatten(1, (2, 2, 2, 2, 8)).permute(0, 5, 6, 1, 3, 7, 2, 4)
        file.check("img.fpn0", pixels.flatten(5).flatten(2, 4))
    session.segment(point(50, 40, OUTSIDE))
    for frame, found in session.track():
        known = session._objects[1].find(frame)
        place = f"video.{kind}.obj0.frame{frame}."
        file.check(f"{place}object_score_logits", known.presence.view(1, 1))
        file.check(f"{place}pred_masks", known.mask_logits[None, None])
        file.check(f"{place}obj_ptr", known.pointer[None])
        file.check(f"{place}maskmem_features", known.memory.float().T.reshape(1, 16, 8, 8))
        whole = F.interpolate(known.mask_logits[None, None], OUTSIDE, mode="bilinear", align_corners=False)
        file.check(f"video.{kind}.frame{frame}.video_res_masks", whole)
        assert len(found) == (name == "sam2_a") and (not len(found) or (found.mask(0) == (whole[0, 0] > 0).numpy()).all())


def test_in_half_every_frame_is_nearly_the_authors(authors):
    file, network = authors("sam2_a")
    session = session_of(network, frames_of(file), OUTSIDE, takes_half=True)
    session.segment(point(50, 40, OUTSIDE))
    for frame, _ in session.track():
        depth = f"video.f32.obj0.frame{frame}.pred_masks"
        theirs = file.arrays[f"out/{depth}@sample"]
        ours = session._objects[1].find(frame).mask_logits.reshape(-1)[:: file.meta["outputs"][depth]["stride"]]
        assert (ours - theirs).std() < 0.03 * theirs.std()


def test_every_frame_of_a_video_equals_hugging_face(tiny, golden):
    file = golden("sam2_hf_video_a")
    network = tiny(WIDTH=128, MEMORY_WIDTH=64, MLP_WIDTH=64, HEADS=4, SCORE_WIDTH=32, MASK_WIDTH=8, WIDER=2)
    ties = file.meta["weight_ties"]["map"]  # of what Hugging Face holds twice
    network.load_state_dict(sam2.rename(file.weights | {key: file.weights[value] for key, value in ties.items()}))
    session = session_of(network, [(frame / 255 - MEAN) / STD for frame in file.input("frames")], (SIDE, SIDE))
    session.segment(point(*file.input("points").flatten().tolist()))
    for frame, _ in session.track():
        known = session._objects[1].find(frame)
        file.check(f"frame{frame}.pred_masks", known.mask_logits[None, None])
        file.check(f"frame{frame}.object_pointer", known.pointer[None, None])
        file.check(f"frame{frame}.object_score_logits", known.presence.view(1, 1, 1))
        file.check(f"frame{frame}.maskmem_features", known.memory.float()[:, None])


SMALL = {"WIDTH": 128, "MEMORY_WIDTH": 64, "MLP_WIDTH": 32, "HEADS": 4, "SCORE_WIDTH": 24, "MASK_WIDTH": 8}  # HF's memory is 64


def hub_config(transformers, kind: str):
    """A configuration of Hugging Face's of the sizes of SMALL, for images or for videos."""
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=16, num_attention_heads=1, image_size=[SIDE, SIDE], blocks_per_stage=[1, 2, 3, 1],
        embed_dim_per_stage=[16, 32, 64, 128], num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 14, 7], global_attention_blocks=[4],
        window_positional_embedding_background_size=[7, 7],
    )  # fmt: skip
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[128, 64, 32, 16], fpn_hidden_size=128,
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
    )  # fmt: skip
    parts = {
        "vision_config": vision,
        "prompt_encoder_config": {"hidden_size": 128, "image_size": SIDE, "mask_input_channels": 8},
        "mask_decoder_config": {"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 4, "iou_head_hidden_dim": 24},
    }
    if kind == "images":
        return transformers.Sam2Config(**parts)
    return transformers.Sam2VideoConfig(
        **parts, image_size=SIDE, memory_attention_hidden_size=128, memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=96, memory_attention_rope_feat_sizes=[8, 8], memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64, mask_downsampler_embed_dim=128, memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=512,
    )  # fmt: skip


def shaken(network: nn.Module) -> nn.Module:
    """The network with its parameters moved away from the zeros and ones of a new one."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        directions = network.prompt_encoder.shared_embedding.positional_embedding
        network.shared_image_embedding.positional_embedding.copy_(directions)  # as in all published files
    return network


def test_images_equal_hugging_face_live(tiny, tmp_path, check_prompted):
    """All kinds of prompts, several of an image; its weights are those of a video's network but for the memory."""
    transformers = pytest.importorskip("transformers", reason="the live comparison needs transformers")
    torch.manual_seed(1)
    theirs = shaken(transformers.Sam2Model(hub_config(transformers, "images"))).eval()
    theirs.save_pretrained(tmp_path)
    ours = tiny(**SMALL)
    left = ours.load_state_dict(sam2.rename(load_file(tmp_path / "model.safetensors")), strict=False)
    assert not left.unexpected_keys and all(name.startswith("memory.") for name in left.missing_keys)
    ours, theirs = ours.double(), theirs.double()
    image = torch.randn(1, 3, SIDE, SIDE, dtype=torch.float64)
    check_prompted(ours, theirs, image)


@pytest.mark.parametrize("backward", [False, True])
def test_a_video_equals_hugging_face_live(tiny, tmp_path, backward):
    """Two objects, a box and two points, and more frames than the memory has room for, in either direction."""
    transformers = pytest.importorskip("transformers", reason="the live comparison needs transformers")
    torch.manual_seed(2)
    theirs = shaken(transformers.Sam2VideoModel(hub_config(transformers, "videos"))).eval()
    theirs.save_pretrained(tmp_path)
    ours = tiny(**SMALL)
    ours.load_state_dict(sam2.rename(load_file(tmp_path / "model.safetensors")))
    frames, first = torch.randn(9, 3, SIDE, SIDE), 8 if backward else 0
    session = session_of(ours, list(frames), (SIDE, SIDE))
    clicks = Prompt(
        points_xy=np.array([[30.5, 40.5], [90.5, 20.5]], np.float32), is_foreground=np.array([True, False]), frame=first
    )
    corners = Prompt(box_xyxy=np.array([20, 30, 80, 100], np.float32), object_id=2, frame=first)
    session.segment(clicks, corners)
    processor = transformers.models.sam2_video.modeling_sam2_video.Sam2VideoInferenceSession(
        video=frames, video_height=SIDE, video_width=SIDE, dtype=torch.float32
    )
    asked = {1: ([[[[30.0, 40], [90, 20]]]], [[[1, 0]]]), 2: ([[[[20.0, 30], [79, 99]]]], [[[2, 3]]])}
    for number, (points, labels) in asked.items():
        index = processor.obj_id_to_idx(number)
        inputs = {"point_coords": torch.tensor(points), "point_labels": torch.tensor(labels, dtype=torch.int32)}
        processor.add_point_inputs(index, first, inputs)
    processor.obj_with_new_inputs = [1, 2]
    theirs(inference_session=processor, frame_idx=first)
    wanted = {
        said.frame_idx: said.pred_masks
        for said in theirs.propagate_in_video_iterator(processor, start_frame_idx=first, reverse=backward)
    }
    count = 0
    for frame, _ in session.track(backward=backward):
        known = torch.stack([session._objects[number].find(frame).mask_logits for number in (1, 2)])
        torch.testing.assert_close(
            known, wanted[frame][:, 0].float(), rtol=0.02, atol=0.05, msg=lambda t, at=frame: f"{at}: {t}"
        )
        count += 1
    assert count == 9


@pytest.mark.parametrize("preset", OF_VIDEO)
def test_every_published_file_fits(preset, manifest):
    renamed = sam2.rename(manifest(preset))
    with torch.device("meta"):
        network = sam2.PRESETS[preset].build()
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_the_files_of_the_hub_fit(manifest):
    with torch.device("meta"):
        whole = {name: tensor.shape for name, tensor in sam2.PRESETS["sam2.1_hiera_tiny"].build().state_dict().items()}
    of_video = sam2.rename(manifest("hf_sam2.1_hiera_tiny_video"))
    assert {name: tensor.shape for name, tensor in of_video.items()} == whole
    of_images = sam2.rename(manifest("hf_sam2.1_hiera_tiny_image"))
    assert {name: tensor.shape for name, tensor in of_images.items()}.items() < whole.items()
    assert all(name.startswith("memory.") for name in whole.keys() - of_images.keys())


def test_published_weights_name_their_presets():
    assert {each.preset for each in sam2.WEIGHTS.values()} == set(sam2.PRESETS) and len(sam2.WEIGHTS) == 16
    assert sam2.WEIGHTS["sam2.1_hiera_base_plus_sav"].file == "sam2.1_hiera_base_plus.pt"


def test_a_person_s_mask_is_taken_as_it_is_and_remembered(authors):
    _, network = authors("sam2_a")
    embedding = torch.randn(1, 256, 8, 8)
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    masks[0, 32:96] = True  # edges between pixels of the answer
    with torch.no_grad():
        said = network.adopt(embedding, masks)
        assert said.presence.tolist() == [10, -10] and said.scores.tolist() == [1, 1]
        assert torch.equal(said.pointers[1], network.memory.no_pointer)
        whole = F.interpolate(said.mask_logits[:, None], (SIDE, SIDE), mode="bilinear")[:, 0] > 0
        assert torch.equal(whole, masks)
        kept = network.remember(embedding, said, is_asked=True)
        blank = network.remember(embedding, said._replace(presence=said.presence.abs()), is_asked=True)
        torch.testing.assert_close(kept[0], blank[0])
        torch.testing.assert_close(kept[1] - blank[1], network.memory.absent.expand(64, 16), atol=1e-5, rtol=1e-5)


def test_an_unsteady_mask_gives_way_to_the_best_of_the_others():
    masks = torch.full((1, 2, 4, 100), 5.0)
    masks[0, 0, 0, :10] = 0.0  # a tenth of it is neither above the margin nor below
    masks[0, :, 2] = 7.0
    scores = torch.tensor([[[0.5, 0.6, 0.9, 0.7]] * 2])
    found, given = sam2.steady_mask(masks, scores, is_training=False)
    assert (
        found.shape == (1, 2, 1, 100)
        and found[0, :, 0, 50].tolist() == [7, 5]
        and given.flatten().tolist() == pytest.approx([0.9, 0.5])
    )
    assert torch.equal(sam2.steady_mask(masks, scores, is_training=True)[0], masks[:, :, :1])
    nothing = torch.full((1, 1, 4, 100), -5.0)
    assert torch.equal(sam2.steady_mask(nothing, scores[:, :1], is_training=False)[1], scores[:, :1, :1])


def test_gradients_reach_all_that_a_video_needs(authors):
    _, network = authors("sam2_a")
    for version in ("2.0", "2.1"):
        network = sam2.Config(encoder=ENCODER, version=version).build()
        embedding = network.encode(torch.randn(1, 3, SIDE, SIDE))
        masks = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
        masks[:, :64] = True
        first = network.adopt(embedding, masks)
        maps = [network.remember(embedding, each, is_asked=True) for each in (first, first._replace(presence=-first.presence))]
        memory = sam2.Memory(torch.stack(maps, dim=1), (0, 1), torch.stack([first.pointers] * 2, dim=1), (1.0, 0.5))
        second = network.answer(embedding, memory=memory)
        lost = network.answer(embedding)._replace(presence=second.presence)
        loss = (
            second.mask_logits.mean()
            + second.presence.sum()
            + second.scores.sum()
            + (second.pointers + lost.pointers).pow(3).sum()
        )
        (loss + network.memory.no_pointer.sum() + network.memory.times.pow(2).sum()).backward()
        unreached = {name for name, parameter in network.memory.named_parameters() if parameter.grad is None}
        assert not unreached


def test_any_encoder_can_take_the_hieras_place(tiny):
    tiny(WIDTH=64, MEMORY_WIDTH=16)
    for stride in (16, 32):
        encoder = resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=stride)
        network = sam2.Config(in_channels=1, encoder=encoder).build().eval()
        masks, scores = network.decode(network.encode(torch.randn(2, 1, 64, 32)), multimask=False)
        assert masks.shape == (2, 1, 1, 16, 8) and scores.shape == (2, 1, 1)
    with pytest.raises(SettingError, match="last maps have strides 4, 8, 8, 8, and 4, 8, 16 and 16 or 32 are needed"):
        sam2.Config(encoder=resnet.Config(output_stride=8)).build()


def test_refuses_what_it_cannot_take(tiny):
    network = tiny(WIDTH=64, MEMORY_WIDTH=16)
    with pytest.raises(ShapeError, match=r"50 x 64, .* divisible by 32; pad them to 64 x 64"):
        network(torch.zeros(1, 3, 50, 64))
    with pytest.raises(ShapeError, match="earlier masks are 16 x 16, and this image has masks of 32 x 32"):
        network.answer(torch.zeros(1, 256, 8, 8), Prompts(mask_logits=torch.zeros(1, 1, 16, 16)))
    with pytest.raises(SettingError, match="version is '3'; there are '2.0' and '2.1'"):
        sam2.Config(version="3")
    with pytest.raises(SettingError, match="in_channels is 0; it must be 1 or more"):
        sam2.Config(in_channels=0)


def test_the_golden_files_say_which_settings_they_are_of(golden):
    model = golden("sam2_a").config["model"]
    assert model["num_maskmem"] == sam2.RECENT + 1 and json.dumps(model).count('"rope_theta": 10000.0') == 2
