"""Prompts followed through videos, by a network that is seen through, and a real one. Axes: C, H, W, P, N, R, E."""

import tracemalloc
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segwright.core import Prompt
from segwright.core.errors import SettingError, ShapeError, UsageError
from segwright.encoders import hiera
from segwright.inference import frame_precision
from segwright.inference.video import Tracker, open_tracker
from segwright.models import sam2
from segwright.models.sam2 import Memory, ObjectAnswers

SIDE, SHAPE = 64, (30, 60)
PATCHES = (SIDE // 16) ** 2


class Asked(NamedTuple):
    frame: int
    prompts: object
    memory: Memory | None


class Follower(nn.Module):
    """Answers with the disc that its pointer says, a pixel of the network's further right in each frame than in the last one.

    Memory holds the number of the frame it is of. A frame's number is its first value.
    """

    frame_divisors = (32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.asked: list[Asked] = []
        self.encoded: list[int] = []
        self.hidden: set[int] = set()  # frames in which nothing is seen

    def encode(self, image: Tensor) -> Tensor:
        frame = round(float(image[0, 0, 0, 0] * 58.395 + 123.675))
        self.encoded.append(frame)
        return torch.full((1, 4, SIDE // 16, SIDE // 16), float(frame))

    def answer(self, embedding: Tensor, prompts=None, *, memory: Memory | None = None) -> ObjectAnswers:
        frame = round(float(embedding[0, 0, 0, 0]))
        self.asked.append(Asked(frame, prompts, memory))
        if prompts is not None and prompts.points_xy is not None:
            centres = prompts.points_xy[0, :, 0]
        elif prompts is not None and prompts.boxes_xyxy is not None:
            centres = prompts.boxes_xyxy[0].unflatten(1, (2, 2)).mean(1)
        elif not memory.distances:  # nothing is known of the past
            centres = torch.full((len(memory.maps), 2), -100.0)
        else:
            nearest = min(range(len(memory.distances)), key=lambda place: abs(memory.distances[place]))
            start = memory.pointers[:, nearest]
            centres = torch.stack([start[:, 0] + frame - start[:, 2], start[:, 1]], dim=1)
        return self._disc(centres, frame)

    def adopt(self, embedding: Tensor, masks: Tensor) -> ObjectAnswers:
        places = [mask.nonzero().float().mean(0).flip(0) + 0.5 for mask in masks]
        return self._disc(torch.stack(places), round(float(embedding[0, 0, 0, 0])))

    def _disc(self, centres: Tensor, frame: int) -> ObjectAnswers:
        y, x = 4 * (torch.arange(SIDE // 4) + 0.5)[:, None], 4 * (torch.arange(SIDE // 4) + 0.5)
        apart = ((x - centres[:, 0, None, None]) ** 2 + (y - centres[:, 1, None, None]) ** 2).sqrt()
        pointers = torch.cat([centres, torch.full((len(centres), 1), float(frame))], dim=1)
        presence = torch.full((len(centres),), -1.0 if frame in self.hidden else 1.0)
        return ObjectAnswers(10 - apart, torch.full((len(centres),), 0.75), presence, pointers)

    def remember(self, embedding: Tensor, answers: ObjectAnswers, *, is_asked: bool) -> Tensor:
        return torch.full((len(answers.scores), PATCHES, 2), float(embedding[0, 0, 0, 0]))


class Numbered:
    """A video whose frames say their numbers; it counts what is read."""

    def __init__(self, count: int, shape: tuple[int, int] = SHAPE) -> None:
        self.count, self.shape, self.read = count, shape, []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, frame: int) -> np.ndarray:
        self.read.append(frame)
        return np.full((3, *self.shape), frame, np.uint8)


@pytest.fixture
def follower():
    return Follower()


@pytest.fixture
def tracker(follower, monkeypatch):
    monkeypatch.setattr(frame_precision, "cpu_knows_bfloat16", lambda: False)  # some frames are answered twice where it does
    return Tracker(network=follower, side=SIDE)


def point(x: float, y: float, frame: int = 0, number: int = 1) -> Prompt:
    return Prompt(points_xy=np.array([[x, y]], np.float32), is_foreground=np.array([True]), frame=frame, object_id=number)


def centre(found, number: int = 1) -> float:
    """The column of the middle of an object."""
    return float(np.nonzero(found.mask(found.instance_ids.tolist().index(number)))[1].mean() + 0.5)


def test_an_object_is_followed_both_ways_frame_by_frame(tracker, follower):
    frames = Numbered(30)
    found = dict(tracker.track(frames, [point(30, 15, frame=10)]))
    assert list(found) == [*range(10, 30), *range(9, -1, -1)]
    for frame, each in found.items():
        assert each.shape == SHAPE and each.instance_ids.tolist() == [1] and each.scores.tolist() == [0.75]
        if 5 <= frame <= 20:  # later the disc leaves the frame
            assert centre(each) == pytest.approx(30 + (frame - 10) * 60 / 64, abs=1.5)
    assert sorted(frames.read) == list(range(30)) == sorted(follower.encoded)  # each is read and encoded once
    assert list(dict(tracker.track(Numbered(30), [point(30, 15, frame=10)], direction="forward"))) == list(range(10, 30))
    assert list(dict(tracker.track(Numbered(30), [point(30, 15, frame=10)], direction="backward"))) == list(range(10, -1, -1))


def test_frames_are_given_out_as_they_are_read(tracker):
    frames = Numbered(200)
    steps = tracker.track(frames, [point(30, 15)])
    assert next(steps)[0] == 0 and frames.read == [0]
    assert next(steps)[0] == 1 and frames.read == [0, 1]


def test_which_frames_are_heeded(tracker, follower):
    session = tracker.open(Numbered(40))
    session.segment(point(30, 15, frame=2))
    session.segment(point(30, 15, frame=33))
    list(session.track())
    memory = next(each.memory for each in follower.asked if each.frame == 30)
    assert memory.maps[0, :, 0, 0].tolist() == [2, 33, 29, 28, 27, 26, 25, 24] and memory.ages == (0, 0, 1, 2, 3, 4, 5, 6)
    pointed = [int(each) for each in memory.pointers[0, :, 2]]
    assert pointed == [2, *range(29, 14, -1)]  # of frames that a person pointed at those of the past alone
    assert memory.distances == pytest.approx([28 / 15, *[age / 15 for age in range(1, 16)]])
    follower.asked.clear()
    list(session.track(1, backward=True))
    memory = follower.asked[0].memory
    assert memory.maps[0, :, 0, 0].tolist() == [2, 33, 3, 4, 5, 6, 7] and memory.ages == (0, 0, 2, 3, 4, 5, 6)
    assert memory.distances[:2] == pytest.approx([1 / 15, 32 / 15])
    session.close()


def test_a_short_video_measures_time_by_its_length(tracker, follower):
    list(tracker.track(Numbered(5), [point(30, 15)]))
    assert follower.asked[-1].memory.distances[:2] == pytest.approx([4 / 4, 1 / 4])
    assert list(dict(tracker.track(Numbered(1), [point(30, 15)]))) == [0]


def test_several_objects_share_a_frame_and_are_answered_together(tracker, follower):
    prompts = [point(20, 15, number=3), point(40, 10, number=5), point(45, 20, frame=4, number=9)]
    found = dict(tracker.track(Numbered(12), prompts))
    assert sorted(follower.encoded) == sorted([*range(12), 0, 4])  # those that are pointed at are seen before
    assert found[6].instance_ids.tolist() == [3, 5, 9]
    groups = [len(each.memory.maps) for each in follower.asked if each.frame == 2]
    assert sorted(groups) == [1, 2]  # objects with equal memories together
    for number, (x, frame) in {3: (20, 0), 5: (40, 0), 9: (45, 4)}.items():
        assert centre(found[6], number) == pytest.approx(x + (6 - frame) * 60 / 64, abs=1.5)


def test_what_is_not_seen_is_not_in_a_frame_and_comes_back(tracker, follower):
    follower.hidden = {3, 4}
    found = dict(tracker.track(Numbered(8), [point(30, 15)]))
    assert [len(found[frame]) for frame in range(8)] == [1, 1, 1, 0, 0, 1, 1, 1]
    assert found[3].shape == SHAPE


def test_a_correction_tracks_anew_what_comes_after_it_alone(tracker, follower):
    frames = Numbered(120)
    with tracker.open(frames) as session:
        session.segment(point(30, 15))
        before = dict(session.track())
        frames.read.clear()
        follower.asked.clear()
        found = session.segment(point(15, 15, frame=100))
        asked = follower.asked[0]
        assert frames.read == [100] and centre(found) == pytest.approx(15, abs=1.5)
        assert asked.memory.maps[0, :, 0, 0].tolist() == [0, 99, 98, 97, 96, 95, 94]
        assert asked.prompts.mask_logits.shape == (1, 1, 16, 16)  # the answer that is corrected
        after = dict(session.track())
        assert list(after) == list(range(100, 120)) and frames.read == list(range(100, 120))
        assert centre(after[100]) == pytest.approx(15, abs=1.5) and centre(after[105]) == pytest.approx(
            15 + 5 * 60 / 64, abs=1.5
        )
        assert np.array_equal(before[99].planes, session._segmentation(99).planes)


def test_a_mask_is_taken_as_it_is(tracker):
    mask = np.zeros(SHAPE, bool)
    mask[10:20, 25:35] = True
    found = dict(tracker.track(Numbered(4), [Prompt(mask=mask)]))
    assert centre(found[2]) == pytest.approx(30 + 2 * 60 / 64, abs=1.5)


def test_memory_does_not_grow_with_a_video(tracker):
    """Also on disk: of each object the last frames are kept, and those that the other direction begins with."""
    tracemalloc.start()
    seen = []
    frames = Numbered(250)
    with tracker.open(frames, can_correct=False) as session:
        session.segment(point(30, 15), point(10, 10, number=2))
        for frame, _ in session.track():
            if frame % 50 == 49:
                seen.append(tracemalloc.get_traced_memory()[0])
                assert all(len(each.followed.frames()) <= 2 * sam2.POINTERS for each in session._objects.values())
            for told in (tracker.network.asked, tracker.network.encoded, frames.read):  # by the test alone
                told.clear()
    tracemalloc.stop()
    assert seen[-1] - seen[0] < 200 * 1000  # bytes in 200 frames, of which each is 5400


def test_a_real_network_follows_and_gives_back_a_person_s_mask(monkeypatch):
    for name, value in {"WIDTH": 64, "MEMORY_WIDTH": 16, "MEMORY_DEPTH": 1, "MEMORY_MLP": 32, "MLP_WIDTH": 32}.items():
        monkeypatch.setattr(sam2, name, value)
    monkeypatch.setattr(frame_precision, "cpu_knows_bfloat16", lambda: False)
    torch.manual_seed(0)
    network = sam2.Config(encoder=hiera.Config(width=8, depths=(1, 1, 1, 1), global_blocks=())).build().eval()
    mask = np.zeros((48, 64), bool)
    mask[16:32, 16:48] = True
    frames = list(np.random.default_rng(0).integers(0, 255, (5, 3, 48, 64), np.uint8))
    tracker = Tracker(network=network, side=128)
    prompts = [Prompt(mask=mask), Prompt(box_xyxy=np.array([5, 5, 40, 40], np.float32), object_id=2)]
    first, again = (list(tracker.track(frames, prompts)) for _ in range(2))
    assert [frame for frame, _ in first] == [0, 1, 2, 3, 4]
    assert (first[0][1].mask(0) == mask).mean() > 0.99
    for (_, one), (_, other) in zip(first, again, strict=True):
        assert np.array_equal(one.planes, other.planes)
    alone = list(tracker.track(frames, prompts[:1]))
    for (_, one), (_, other) in zip(first, alone, strict=True):  # an object does not hang on the others
        here, there = (
            each.mask(each.instance_ids.tolist().index(1)) if 1 in each.instance_ids else 0 * mask for each in (one, other)
        )
        assert (here == there).mean() > 0.999


def test_what_cannot_be_used_is_told_with_a_remedy(tracker):
    session = tracker.open(Numbered(10))
    with pytest.raises(UsageError, match=r"there is no prompt yet; call segment\(Prompt"):
        next(session.track())
    with pytest.raises(UsageError, match="there is no prompt; give at least one"):
        next(tracker.track(Numbered(10), []))
    with pytest.raises(UsageError, match="the prompts are about 2 frames; give one or more for one frame"):
        session.segment(point(1, 1), point(1, 1, frame=1))
    with pytest.raises(ShapeError, match="frame 10 is asked for, and the video has 10; give a number from 0 to 9"):
        session.segment(point(1, 1, frame=10))
    with pytest.raises(ShapeError, match=r"points .* of object 4 lie outside frame 2, which is 60 wide and 30 high"):
        session.segment(point(61, 1, frame=2, number=4))
    with pytest.raises(ShapeError, match=r"the box .* is empty; give x1, y1, x2, y2"):
        session.segment(Prompt(box_xyxy=np.array([5, 5, 5, 9], np.float32)))
    with pytest.raises(ShapeError, match=r"the mask is \(3, 3\) and frame 0 \(30, 60\)"):
        session.segment(Prompt(mask=np.ones((3, 3), bool)))
    with pytest.raises(UsageError, match="the prompt says 'dog', and this network reads no text"):
        session.segment(Prompt(text="dog"))
    with pytest.raises(UsageError, match="a mask with points or a box; give a mask alone"):
        session.segment(Prompt(mask=np.zeros(SHAPE, bool), box_xyxy=np.array([1, 1, 9, 9], np.float32)))
    for call in (session.segment, lambda *prompts: next(tracker.track(Numbered(10), prompts))):
        with pytest.raises(UsageError, match="2 prompts are about object 1"):
            call(point(1, 1), point(5, 5))
    with pytest.raises(SettingError, match="direction is 'up'; give one of forward, backward, both"):
        next(tracker.track(Numbered(10), [point(1, 1)], direction="up"))
    assert not session._objects
    for pixels, message in (
        (np.full((3, *SHAPE), 300, np.uint16), "frame 0 has values from 300 to 300, and this network takes 0 to 255"),
        (np.full((3, *SHAPE), np.nan), "frame 0 has values that are no numbers"),
        ([[0]], "frame 0 is a list; give an array of numbers"),
    ):
        with pytest.raises(ShapeError, match=message):
            next(tracker.track([pixels], [point(1, 1)]))
    with pytest.raises(UsageError, match="the video has no frames"):
        tracker.open([])
    with pytest.raises(SettingError, match="side is 100; this network takes sides that are multiples of 32, such as 1024"):
        Tracker(network=Follower(), side=100)


def test_a_frame_of_another_size_is_named(tracker):
    frames = [np.zeros((3, *SHAPE), np.uint8)] * 3 + [np.zeros((3, 20, 20), np.uint8)]
    found = []
    with pytest.raises(ShapeError, match="frame 3 is 20 wide and 20 high, and those before it 60 and 30; resize it, or track"):
        for frame, _ in tracker.track(frames, [point(30, 15)]):
            found.append(frame)
    assert found == [0, 1, 2]
    with pytest.raises(ShapeError, match=r"frame 0 is \(20, 20\); \(3, H, W\) is needed"):
        next(tracker.track([np.zeros((20, 20), np.uint8)], [point(1, 1)]))


def test_networks_that_do_not_remember_are_refused():
    with pytest.raises(
        SettingError, match="sam_vit_b remembers no frames; name a network for videos, such as 'sam2.1_hiera_tiny'"
    ):
        open_tracker("sam_vit_b", weights="a.pth")
    with pytest.raises(UsageError, match="a.pt"):
        open_tracker("sam2.1_hiera_tiny", weights="a.pt")
