"""Videos on disk to masks on disk; the command is tested in tests/cli/test_track.py. Axes: H, W."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from segwright.codecs.rle import decode, from_text
from segwright.codecs.video_file import open_video
from segwright.core import Classes, Prompt, Segmentation
from segwright.core.errors import FormatError, OutputError, SettingError, ShapeError
from segwright.formats.davis import PALETTE
from segwright.inference.track_files import track_video

SHAPE = (24, 32)


class Boxes:
    """Stands for a tracker: object 1 is a box that moves, object 2 lies over it, and is not seen in frame 1."""

    def track(self, frames, prompts, *, direction) -> Iterator[tuple[int, Segmentation]]:
        for frame in range(len(frames)):
            masks = np.zeros((2, *SHAPE), bool)
            masks[0, 4:12, frame : frame + 8] = True
            masks[1, 8:16, 4:12] = True
            seen = [0] if frame == 1 else [0, 1]
            yield frame, Segmentation.instances(
                masks[seen], [0] * len(seen), instance_ids=[1, 2][: len(seen)], scores=[0.5, 0.25][: len(seen)],
                classes=Classes.of(["object"]),
            )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "frames").mkdir()
    for frame in range(3):
        Image.fromarray(np.full((*SHAPE, 3), 40 * frame, np.uint8)).save(tmp_path / "frames" / f"{frame}.png")
    return tmp_path / "frames"


PROMPT = Prompt(box_xyxy=np.array([0, 4, 8, 12], np.float32))


def test_each_frame_gets_a_mask_with_davis_colours_and_lines_that_hold_whole_masks(folder, tmp_path):
    told = []
    count = track_video(Boxes(), folder, [PROMPT], tmp_path / "out", watch=lambda *step: told.append(step))
    assert count == 3 and told == [("track", 0, 3), ("track", 1, 3), ("track", 2, 3)]
    mask = Image.open(tmp_path / "out" / "00002.png")
    assert mask.mode == "P" and mask.getpalette()[3:9] == [*PALETTE[1], *PALETTE[2]]
    wanted = np.zeros(SHAPE, np.uint8)
    wanted[4:12, 2:10] = 1
    wanted[8:16, 4:12] = 2
    assert np.array_equal(np.array(mask), wanted)
    assert set(np.unique(np.array(Image.open(tmp_path / "out" / "00001.png")))) == {0, 1}
    lines = [json.loads(line) for line in (tmp_path / "out" / "tracks.jsonl").read_text().splitlines()]
    assert [(line["frame"], line["object"], line["score"]) for line in lines] == [
        (0, 1, 0.5), (0, 2, 0.25), (1, 1, 0.5), (2, 1, 0.5), (2, 2, 0.25)
    ]  # fmt: skip
    whole = decode(from_text(lines[3]["segmentation"]["counts"]), tuple(lines[3]["segmentation"]["size"]))
    assert whole[4:12, 2:10].all() and whole.sum() == 64  # also what another object covers


def test_a_film_shows_frames_with_objects(folder, tmp_path):
    track_video(Boxes(), folder, [PROMPT], tmp_path / "out", direction="forward", film=tmp_path / "seen.mp4")
    with open_video(tmp_path / "seen.mp4") as film:
        assert len(film) == 3 and film.frames_per_second == 25
        assert abs(int(film[1][:, 20, 28].mean()) - 40) < 12 and film[1][:, 6, 4].astype(int).max() > 60


def test_what_cannot_be_written_is_refused_before_the_work(folder, tmp_path):
    with pytest.raises(OutputError, match="an object has the number 255, and masks hold 1 to 254"):
        track_video(Boxes(), folder, [Prompt(box_xyxy=PROMPT.box_xyxy, object_id=255)], tmp_path / "out")
    with pytest.raises(SettingError, match='a film needs its frames in order, and direction is "both"; give "forward"'):
        track_video(Boxes(), folder, [PROMPT], tmp_path / "out", film=tmp_path / "seen.mp4")
    with pytest.raises(OutputError, match="masks in .*frames would replace the frames there; choose another folder"):
        track_video(Boxes(), folder, [PROMPT], tmp_path / "out" / ".." / "frames")
    (tmp_path / "clip.mp4").write_bytes(b"frames")
    with pytest.raises(OutputError, match="clip.mp4 would replace the video itself; choose another name"):
        words = {"direction": "forward", "film": tmp_path / "clip.mp4"}
        track_video(Boxes(), tmp_path / "clip.mp4", [PROMPT], tmp_path / "out", **words)
    with pytest.raises(FormatError, match="gone does not exist"):
        track_video(Boxes(), tmp_path / "gone", [PROMPT], tmp_path / "out")
    assert not (tmp_path / "out").exists() and (tmp_path / "clip.mp4").read_bytes() == b"frames"


class Failing(Boxes):
    """Cannot track the frame `last`."""

    def __init__(self, last):
        self.last = last

    def track(self, frames, prompts, *, direction):
        for frame, found in super().track(frames, prompts, direction=direction):
            if frame == self.last:
                raise ShapeError(f"frame {frame} is odd; mend it")
            yield frame, found


def test_nothing_is_written_before_the_first_frame_and_no_film_after_a_failure(folder, tmp_path):
    out, film = tmp_path / "out", tmp_path / "seen.mp4"
    film.write_bytes(b"of an earlier call")
    with pytest.raises(ShapeError, match="^frame 0 is odd; mend it$"):
        track_video(Failing(0), folder, [PROMPT], out, direction="forward", film=film)
    assert not out.exists()
    with pytest.raises(ShapeError, match="frame 2 is odd; mend it; the masks of 2 frames before it are in .*out"):
        track_video(Failing(2), folder, [PROMPT], out, direction="forward", film=film)
    assert sorted(path.name for path in out.iterdir()) == ["00000.png", "00001.png", "tracks.jsonl"]
    assert len((out / "tracks.jsonl").read_text().splitlines()) == 3 and film.read_bytes() == b"of an earlier call"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_masks_of_other_frames_are_not_mixed_with_those_of_this_video(folder, tmp_path):
    out = tmp_path / "out"
    track_video(Boxes(), folder, [PROMPT], out)
    track_video(Boxes(), folder, [PROMPT], out)  # the same frames may be written again
    (out / "notes.txt").write_text("mine")
    (out / "00003.png").write_bytes(b"of a longer video")
    with pytest.raises(
        OutputError, match="holds 1 masks of frames that are not tracked now, such as 00003.png; choose another"
    ):
        track_video(Boxes(), folder, [PROMPT], out)
    later = [Prompt(box_xyxy=PROMPT.box_xyxy, frame=1)]
    (out / "00003.png").unlink()
    for direction, stale in (("forward", "00000"), ("backward", "00002")):
        with pytest.raises(OutputError, match=f"such as {stale}.png"):
            track_video(Boxes(), folder, later, out, direction=direction)


def test_a_film_is_refused_where_it_cannot_be(folder, tmp_path):
    words = {"direction": "forward"}
    (tmp_path / "made.mp4").mkdir()
    for name in ("frames/0.png", "seen.gif", "seen", "made.mp4"):
        with pytest.raises(OutputError, match="cannot be written as a video; give a file whose name ends in .mp4, "):
            track_video(Boxes(), folder, [PROMPT], tmp_path / "out", film=tmp_path / name, **words)
    assert np.array(Image.open(folder / "0.png")).shape == (*SHAPE, 3) and not (tmp_path / "out").exists()
