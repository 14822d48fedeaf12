"""SAM 2.1 on the tiny Hiera, following objects through videos: beside transformers' Sam2Video, and through 2 000 frames.

    python benchmarks/track.py frames --side 1024
    python benchmarks/track.py long --frames 2000

* frames: milliseconds of a frame once the memory is full, from its pixels to the masks of all objects, on the same random
  weights and frames: `segwright.inference.video.Tracker` in the precision that it picks, and in float32, against transformers'
  `Sam2VideoModel` in float32, and in autocast to bfloat16; all keep memory in bfloat16.
  Sides take turns frame by frame; medians are told, with the overlap of masks with those of transformers in float32.
* long: resident memory of a process that follows two objects, every fiftieth frame; then a correction in the middle, and how
  many frames were read for it and for tracking anew. Frames are drawn when they are asked for; the network sees them at
  `--side` 128, as what memory is needed does not hang on it.

Axes: C, H, W.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

THREADS = 2  # the machine that the figures are for
WARM = 7  # frames until the memory is full
SHAPE = (480, 854)  # of a video, as DAVIS has it
SOLID = 50  # frames between two looks at memory
GROWTH = 1.05  # times what it was after the first look


class Drawn:
    """A video whose frames are drawn when they are asked for: two discs that move over a slope; it knows which were read."""

    def __init__(self, count: int) -> None:
        self.count, self.read = count, list[int]()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, frame: int) -> np.ndarray:
        self.read.append(frame)
        height, width = SHAPE
        y, x = np.mgrid[:height, :width].astype(np.float32)
        picture = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)])
        for number, speed in enumerate((0.7, -0.4)):
            middle = width / 2 + width / 3 * np.sin(speed * frame / 40 + number), height * (0.3 + 0.4 * number)
            picture[:, (x - middle[0]) ** 2 + (y - middle[1]) ** 2 < (height / 8) ** 2] = 255 * number
        return picture.astype(np.uint8)


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["frames", "long"])
    parser.add_argument("--side", type=int, help="pixels that the network sees; 1024, or 128 of a long video")
    parser.add_argument("--frames", type=int, help="11, or 2000 of a long video")
    parser.add_argument("--objects", type=int, default=1)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    if arguments.kind == "frames":
        beside(arguments.side or 1024, arguments.frames or WARM + 4, arguments.objects)
    else:
        long(arguments.side or 128, arguments.frames or 2000)


def beside(side: int, count: int, objects: int) -> None:
    """Time frames of ours and of transformers' in turns."""
    theirs, tracker = networks(side)
    frames, prompts = Drawn(count), [prompt(number) for number in range(1, objects + 1)]
    sides = {
        "transformers": their_steps(theirs, tracker, frames, prompts, is_half=False),
        "transformers, bfloat16": their_steps(theirs, tracker, frames, prompts, is_half=True),
        "segwright, float32": our_steps(tracker, frames, prompts, is_plain=True),
        "segwright": our_steps(tracker, frames, prompts, is_plain=False),
    }
    spent, overlaps = {name: list[float]() for name in sides}, {name: list[float]() for name in sides}
    shares = list[float]()  # of the pixels, that objects have
    for frame in range(count):
        wanted = None
        for name, steps in sides.items():
            start = time.perf_counter()
            masks = next(steps)
            spent[name].append(time.perf_counter() - start)
            wanted = masks if wanted is None else wanted
            both, either = (part.sum((1, 2)) for part in (masks & wanted, masks | wanted))
            overlaps[name].append(float(np.where(either > 0, both / np.maximum(either, 1), 1).min()))
            shares.append(float(wanted.mean()))
        print(f"frame {frame}: " + ", ".join(f"{name} {1000 * times[-1]:.0f} ms" for name, times in spent.items()), flush=True)
    print(f"\nside {side}, {objects} objects of {100 * min(shares):.1f} % of the pixels or more, memory full\n")
    print("| | ms a frame | times transformers | IoU, least of frames |")
    print("|---|--:|--:|--:|")
    first = statistics.median(spent["transformers"][WARM:])
    for name, times in spent.items():
        took = statistics.median(times[WARM:])
        print(f"| {name} | {1000 * took:.0f} | {first / took:.2f} | {min(overlaps[name]):.4f} |")


def our_steps(tracker: Any, frames: Any, prompts: list, *, is_plain: bool) -> Iterator[np.ndarray]:
    """The masks (objects, H, W) of frame after frame, as a user gets them or in float32."""
    session = tracker.open(frames)
    if is_plain:
        session.precision.takes_half = False
    session.segment(*prompts)
    for _, found in session.track():
        masks = np.zeros((len(prompts), *SHAPE), bool)
        for row, number in enumerate(found.instance_ids.tolist()):
            masks[number - 1] = found.mask(row)
        yield masks


def their_steps(theirs: Any, tracker: Any, frames: Any, prompts: list, *, is_half: bool) -> Iterator[np.ndarray]:
    """The same of transformers' network."""
    import torch
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    mean, std = (torch.tensor(part)[:, None, None] for part in (tracker.intake.mean, tracker.intake.std))
    session = Sam2VideoInferenceSession(video=None, video_height=SHAPE[0], video_width=SHAPE[1], dtype=torch.float32)
    for each in prompts:
        index = session.obj_id_to_idx(each.object_id)
        step = np.array([tracker.side / SHAPE[1], tracker.side / SHAPE[0]], np.float32)
        coords = torch.from_numpy(each.points_xy * step)[None, None] - 0.5
        inputs = {"point_coords": coords, "point_labels": torch.ones(1, 1, coords.shape[2], dtype=torch.int32)}
        session.add_point_inputs(index, 0, inputs)
    session.obj_with_new_inputs = [each.object_id for each in prompts]
    for frame in range(len(frames)):
        pixels = torch.from_numpy(frames[frame])[None].float()
        image = torch.nn.functional.interpolate(pixels, (tracker.side,) * 2, mode="bilinear", antialias=True)[0]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            said = theirs(inference_session=session, frame=(image - mean) / std)
            masks = torch.nn.functional.interpolate(said.pred_masks.float(), SHAPE, mode="bilinear")[:, 0] > 0
        yield masks.numpy()


def networks(side: int) -> tuple[Any, Any]:
    """transformers' network for images of a side, and ours with its weights."""
    import torch
    import transformers
    from safetensors.torch import load_file

    from segwright.inference.video import Tracker
    from segwright.models import sam2

    torch.manual_seed(0)
    config = transformers.Sam2VideoConfig()
    config.image_size = config.prompt_encoder_config.image_size = side
    config.vision_config.backbone_config.image_size = [side, side]
    config.vision_config.backbone_feature_sizes = [[side // stride] * 2 for stride in (4, 8, 16)]
    config.memory_attention_rope_feat_sizes = [side // 16] * 2
    theirs = transformers.Sam2VideoModel(config).eval().requires_grad_(False)
    theirs.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(5)  # objects are seen, whatever random weights say
    directions = theirs.prompt_encoder.shared_embedding.positional_embedding
    theirs.shared_image_embedding.positional_embedding.copy_(directions)  # as in all published files
    ours = sam2.PRESETS["sam2.1_hiera_tiny"].build().eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours.load_state_dict(sam2.rename(load_file(Path(folder) / "model.safetensors")))
    return theirs, Tracker(network=ours, side=side)


def prompt(number: int, frame: int = 0) -> Any:
    """A point for an object."""
    from segwright.core import Prompt

    place = np.array([[SHAPE[1] * (0.3 + 0.1 * number), SHAPE[0] * 0.4]], np.float32)
    return Prompt(points_xy=place, is_foreground=np.array([True]), object_id=number, frame=frame)


def long(side: int, count: int) -> None:
    """Look at resident memory while two objects are followed, then correct one in the middle."""
    import psutil
    import torch

    from segwright.inference.video import Tracker
    from segwright.models import sam2

    torch.manual_seed(0)
    tracker = Tracker(network=sam2.PRESETS["sam2.1_hiera_tiny"].build().eval(), side=side)
    frames, process, seen = Drawn(count), psutil.Process(), list[float]()
    with tracker.open(frames) as session:
        session.segment(prompt(1), prompt(2))
        start = time.perf_counter()
        for frame, _ in session.track():
            if frame % SOLID == 0 and frame:
                seen.append(process.memory_info().rss / 1e6)
                print(f"frame {frame}: {seen[-1]:.0f} MB", flush=True)
        print(f"{count / (time.perf_counter() - start):.1f} frames a second; memory {min(seen):.0f} to {max(seen):.0f} MB")
        print("flat" if max(seen) < GROWTH * seen[0] else "GREW")
        frames.read.clear()
        session.segment(prompt(1, frame=count // 2))
        asked, after = list(frames.read), [frame for frame, _ in session.track()]
        print(
            f"a correction in frame {count // 2} read {asked}; {len(after)} frames from {after[0]} on were tracked anew, and "
            f"{sum(frame < count // 2 for frame in frames.read)} before it read"
        )


if __name__ == "__main__":
    main()
