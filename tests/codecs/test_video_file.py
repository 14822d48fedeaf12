"""Frames on demand, from video files and from folders. Axes: C, H, W."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from segwright.codecs import video_file
from segwright.codecs.video_file import check_film, open_video, writing_video
from segwright.core.errors import FormatError, OutputError, ShapeError

COUNT = 70
DARKENED = 17  # what the codec makes of the 20 of frame 0


def picture(frame: int) -> np.ndarray:
    """A grey frame (H, W, 3) that a codec keeps: its brightness is its number, its right half is red."""
    image = np.full((48, 64, 3), 20 + 3 * frame, np.uint8)
    image[:, 32:, 1:] = 0
    return image


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with writing_video(path, (48, 64), 10.0) as write:
        for frame in range(COUNT):
            write(picture(frame))
    return path


def number_of(pixels: np.ndarray) -> int:
    return round((float(pixels[:, :, :24].mean()) - DARKENED) / 3)


def test_frames_come_in_any_order(clip):
    with open_video(clip) as frames:
        assert len(frames) == COUNT and frames.frames_per_second == 10
        for frame in (0, 1, 2, 20, 5, 69, 68, 33, 0):
            pixels = frames[frame]
            assert pixels.shape == (3, 48, 64) and pixels.dtype == np.uint8
            assert number_of(pixels) == frame
            assert pixels[0, :, 40:].mean() > pixels[2, :, 40:].mean() + 15  # red, green, blue
        with pytest.raises(IndexError):
            frames[COUNT]


def test_frames_that_follow_each_other_are_decoded_once(clip, monkeypatch):
    with open_video(clip) as frames:
        wound = []
        reader = frames._reader

        class Watched:
            def set(self, *place):
                wound.append(place)
                return reader.set(*place)

            def __getattr__(self, name):
                return getattr(reader, name)

        frames._reader = Watched()
        for frame in range(10):
            assert number_of(frames[frame]) == frame
        assert number_of(frames[10 + video_file.AHEAD]) == 10 + video_file.AHEAD and not wound
        assert number_of(frames[3]) == 3 and len(wound) == 1
        frames._reader = reader


def test_a_folder_is_read_in_natural_order(tmp_path):
    for number in (10, 9, 100):
        Image.fromarray(np.full((6, 8), number, np.uint8)).save(tmp_path / f"frame_{number}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    with open_video(tmp_path) as frames:
        assert [int(frames[index].max()) for index in range(len(frames))] == [9, 10, 100]
        assert frames[0].shape == (3, 6, 8)


def test_what_is_no_video_is_named_with_a_remedy(tmp_path, clip):
    with pytest.raises(FormatError, match="does not exist; give a video file"):
        open_video(tmp_path / "gone.mp4")
    with pytest.raises(FormatError, match="holds no images; give a folder of frames"):
        open_video(tmp_path)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(FormatError, match=r"text.mp4 cannot be read as a video; .* ffmpeg -i VIDEO"):
        open_video(tmp_path / "text.mp4")
    with (
        pytest.raises(OutputError, match="text.mp4/a.mp4 cannot be written"),
        writing_video(tmp_path / "text.mp4" / "a.mp4", (8, 8), 5.0),
    ):
        pass
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "00000.png")
    with pytest.raises(FormatError, match="00000.png is one image; give the folder of all frames, or a video file"):
        open_video(tmp_path / "00000.png")


def test_a_volume_is_no_frame(tmp_path):
    tifffile.imwrite(tmp_path / "0.tif", np.zeros((5, 6, 8), np.uint8), metadata={"axes": "ZYX"})
    with open_video(tmp_path) as frames, pytest.raises(ShapeError, match=r"0.tif is a volume \(5, 6, 8\); save its slices"):
        frames[0]


@pytest.mark.parametrize(
    ("sides", "fits"), [((2, 2), True), ((3, 5), True), ((2, 8191), True), ((1, 9), False), ((9, 8192), False)]
)
def test_a_film_takes_sides_that_its_codec_takes(sides, fits, tmp_path):
    if not fits:
        with pytest.raises(OutputError, match=f"frames are {sides[1]} x {sides[0]}, and MPEG-4 takes 2 to 8191 pixels a side"):
            check_film(tmp_path / "a.mp4", sides)
        return
    with writing_video(tmp_path / "new" / "a.mp4", sides, 5.0) as write:
        write(np.zeros((*sides, 3), np.uint8))
    with open_video(tmp_path / "new" / "a.mp4") as frames:
        assert frames[0].shape == (3, *(side // 2 * 2 for side in sides))


def test_a_film_that_is_not_finished_leaves_what_was_there(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"earlier")
    with pytest.raises(KeyError), writing_video(tmp_path / "a.mp4", (8, 8), 5.0) as write:
        write(np.zeros((8, 8, 3), np.uint8))
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"] and (tmp_path / "a.mp4").read_bytes() == b"earlier"


def test_a_damaged_file_makes_no_noise(tmp_path, capfd):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(FormatError):
        open_video(tmp_path / "text.mp4")
    assert not capfd.readouterr().err


def test_a_damaged_video_says_which_frame(tmp_path, clip, monkeypatch):
    with open_video(clip) as frames:
        monkeypatch.setattr(frames, "_count", COUNT + 5)  # as a header may say
        assert number_of(frames[COUNT - 1]) == COUNT - 1
        with pytest.raises(FormatError, match=f"frame {COUNT + 2} of {COUNT + 5} cannot be decoded; .* write it anew"):
            frames[COUNT + 2]
        assert number_of(frames[4]) == 4
