"""SAM 2.1 on the tiny Hiera, following objects through videos: beside transformers' Sam2Video, and through 2 000 frames.

    python benchmarks/track.py frames --side 1024
    python benchmarks/track.py long --frames 2000

* frames: milliseconds of a frame once the memory is full, from its pixels to the masks of all objects, on the same random
  weights and frames: `segwright.inference.video.Tracker` against transformers' `Sam2VideoModel`; both in float32, both keep
  memory in bfloat16. Sides take turns frame by frame; the median is told, with the share of pixels on which masks agree.
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
    import torch
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    theirs, tracker = networks(side)
    frames = Drawn(count)
    prompts = [prompt(number) for number in range(1, objects + 1)]
    session = tracker.open(frames)
    session.segment(*prompts)
    mean, std = (torch.tensor(part)[:, None, None] for part in (tracker.intake.mean, tracker.intake.std))
    their_session = Sam2VideoInferenceSession(video=None, video_height=SHAPE[0], video_width=SHAPE[1], dtype=torch.float32)
    for each in prompts:
        index = their_session.obj_id_to_idx(each.object_id)
        step = np.array([side / SHAPE[1], side / SHAPE[0]], np.float32)
        coords = torch.from_numpy(each.points_xy * step)[None, None] - 0.5
        inputs = {"point_coords": coords, "point_labels": torch.ones(1, 1, coords.shape[2], dtype=torch.int32)}
        their_session.add_point_inputs(index, 0, inputs)
    their_session.obj_with_new_inputs = [each.object_id for each in prompts]
    steps, spent, agreed = session.track(), {"segwright": list[float](), "transformers": list[float]()}, list[float]()
    for frame in range(count):
        start = time.perf_counter()
        _, found = next(steps)
        spent["segwright"].append(time.perf_counter() - start)
        start = time.perf_counter()
        image = torch.nn.functional.interpolate(
            torch.from_numpy(frames[frame])[None].float(), (side, side), mode="bilinear", antialias=True
        )[0]
        with torch.inference_mode():
            said = theirs(inference_session=their_session, frame=(image - mean) / std)
            masks = torch.nn.functional.interpolate(said.pred_masks, SHAPE, mode="bilinear")[:, 0] > 0
        spent["transformers"].append(time.perf_counter() - start)
        for row, number in enumerate(each.object_id for each in prompts):
            ours = found.mask(found.instance_ids.tolist().index(number)) if number in found.instance_ids else 0
            agreed.append(float((masks[row].numpy() == ours).mean()))
        print(f"frame {frame}: " + ", ".join(f"{name} {1000 * times[-1]:.0f} ms" for name, times in spent.items()), flush=True)
    ours, other = (1000 * statistics.median(spent[name][WARM:]) for name in spent)
    print(
        f"side {side}, {objects} objects, full memory: segwright {ours:.0f} ms, transformers {other:.0f} ms, "
        f"{other / ours:.2f} times as fast; masks agree on {100 * min(agreed):.2f} % of pixels or more"
    )


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
