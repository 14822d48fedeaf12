"""Prompts followed through a video: each object that a person points at in some frame becomes a mask in every frame.

A frame is read, encoded and answered once, in order, forward and then backward from the first frame that a prompt is about;
its answer is given out before the next frame is read. What later frames need of it lies in a temporary file, not in memory. A
prompt for a frame that was tracked corrects it: it heeds what was remembered and the mask that is corrected, and counts from
then on as a frame that a person pointed at (the authors' code forgets it when it goes on). Only what follows is tracked anew.

As SAM 2 was trained, frames are resized to squares whatever their sides are. Frames are averaged when they shrink (the authors'
code for videos takes bicubic ones, that for images the same as here).

Axes: C channels, H, W sides of a frame, h, w of the network's masks, P objects, N pixels of a frame's map, E of a pointer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segwright.checkpoints.fill import fill
from segwright.checkpoints.named_weights import named_weights
from segwright.core import Classes, Prompt, Segmentation
from segwright.core.errors import SettingError, ShapeError, UsageError
from segwright.core.prompt import check_prompts, check_within
from segwright.core.weights import Intake
from segwright.inference import frame_memory
from segwright.inference.frame_memory import FrameMemory, Known
from segwright.inference.frame_precision import FramePrecision
from segwright.inference.prompting import check_8_bit, check_pixels, published_for
from segwright.layers.prompts import Prompts
from segwright.models import preset, sam2
from segwright.transforms.resize import resize_image

_CLASSES = Classes.of(["object"])
_SIDE = 1024  # pixels of each side, with which SAM 2 was trained
_SUREST = 32.0  # beyond which logits of a mask to be corrected say no more, in the authors' code
_HALF = 0.5  # of a pixel of the network's that a person's mask covers, for it to count

Direction = Literal["forward", "backward", "both"]


class Frames(Protocol):
    """Frames by their number, each (C, H, W) with values of 0 to 255, read when they are asked for: a list, or a video file."""

    def __len__(self) -> int: ...

    def __getitem__(self, frame: int, /) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Tracker:
    """A network that remembers, in evaluation, and how frames reach it: values 0 to 255, squares of `side` pixels."""

    network: Any
    intake: Intake = Intake()
    side: int = _SIDE

    def __post_init__(self) -> None:
        step = max(self.network.frame_divisors)
        if self.side < step or self.side % step:
            raise SettingError(
                f"side is {self.side}; this network takes sides that are multiples of {step}, such as "
                f"{step * max(1, _SIDE // step)}"
            )

    def open(self, frames: Frames, *, can_correct: bool = True) -> "TrackSession":
        """The session of a video.

        With `can_correct`, what is known of each frame stays in a temporary file, 0.8 MB a frame and object, so that any can be
        corrected; without it, that of the last 16 frames alone.

        Raises:
            UsageError: the video has no frame.
        """
        if not len(frames):
            raise UsageError("the video has no frames; check the file, or the folder of its images")
        return TrackSession(tracker=self, frames=frames, can_correct=can_correct)

    def track(
        self, frames: Frames, prompts: Sequence[Prompt], *, direction: Direction = "both"
    ) -> Iterator[tuple[int, Segmentation]]:
        """Frames of a video with what is found in them, from the first prompted one to the end and, `both`, then back from it.

        Objects have the numbers of their prompts' `object_id`; those that are not seen in a frame are not in its segmentation.

        Raises:
            UsageError: there are no prompts, or one has a text or none but a mask with points, or two are about one object.
            ShapeError: a prompt is beyond the video or its frame, or a frame has another size than the first.
            SettingError: there is no such direction.
        """
        if direction not in get_args(Direction):
            raise SettingError(f"direction is {direction!r}; give one of {', '.join(get_args(Direction))}")
        if not prompts:
            raise UsageError(
                "there is no prompt; give at least one, such as Prompt(box_xyxy=np.array([10, 20, 200, 150]), frame=0)"
            )
        check_prompts(prompts)
        with self.open(frames, can_correct=False) as session:
            for frame in sorted({prompt.frame for prompt in prompts}):
                session.segment(*[prompt for prompt in prompts if prompt.frame == frame])
            yield from session.track(backward=direction == "backward")
            first = min(prompt.frame for prompt in prompts)
            if direction == "both" and first:
                yield from session.track(first - 1, backward=True)


@dataclass(eq=False)
class FollowedObject:
    """One object: the frames in which a person pointed at it, and those in which it was followed."""

    asked: dict[int, Known] = field(default_factory=dict)
    followed: FrameMemory = field(default_factory=FrameMemory)

    def find(self, frame: int) -> Known | None:
        """What is known of it in a frame, or None."""
        return self.asked[frame] if frame in self.asked else self.followed.find(frame)


@dataclass(kw_only=True, eq=False)
class TrackSession:
    """One video that prompts are about; `with` closes it and removes its temporary files."""

    tracker: Tracker
    frames: Frames
    can_correct: bool = True
    _objects: dict[int, FollowedObject] = field(default_factory=dict)
    _shape: tuple[int, int] | None = None  # (H, W) of the frames
    _seen: tuple[int, Tensor] | None = None  # the last frame that was encoded, and its embedding
    _stale_from: int | None = None  # the first frame that a prompt was given for since tracking

    @cached_property
    def precision(self) -> FramePrecision:
        """What encodes frames, and answers them by memory."""
        return FramePrecision(self.tracker.network)

    def __enter__(self) -> "TrackSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget all objects, and remove the temporary files."""
        for each in self._objects.values():
            each.followed.close()
        self._objects.clear()

    @torch.inference_mode()
    def segment(self, *prompts: Prompt) -> Segmentation:
        """All objects of one frame after prompts for it, one for each object; what a prompt leaves out is not remembered.

        Raises:
            UsageError: there is no prompt, they are about several frames or twice about one object, or one is of a kind that a
                video does not take.
            ShapeError: a prompt lies beyond the video or its frame, or the frame has another size than the first.
        """
        check_prompts(prompts)
        frames = sorted({prompt.frame for prompt in prompts})
        if len(frames) != 1:
            raise UsageError(
                f"the prompts are about {len(frames)} frames; give one or more for one frame, and call again for another"
            )
        (frame,) = frames
        embedding = self._embedding(frame)
        for prompt in prompts:
            _check(prompt, self._shape or (0, 0))
        for prompt in prompts:
            self._ask(prompt, embedding)
        self._stale_from = frame if self._stale_from is None else min(self._stale_from, frame)
        return self._segmentation(frame)

    @torch.inference_mode()
    def track(self, start: int | None = None, *, backward: bool = False) -> Iterator[tuple[int, Segmentation]]:
        """Frames with what is found in them, one after the other, to the end or, `backward`, to the beginning of the video.

        They start with `start` or, without it, with the first frame that a prompt was given for since the last time, or ever.

        Raises:
            UsageError: there is no prompt yet.
            ShapeError: there is no such frame, or one has another size than the first.
        """
        if not self._objects:
            raise UsageError("there is no prompt yet; call segment(Prompt(...)) for a frame, then track")
        if start is None:
            asked = min(frame for each in self._objects.values() for frame in each.asked)
            start = asked if self._stale_from is None else self._stale_from
        self._check_frame(start)
        self._stale_from = None
        step = -1 if backward else 1
        for frame in range(start, -1 if backward else len(self.frames), step):
            self._follow(frame, step)
            yield frame, self._segmentation(frame)
            old = frame - step * sam2.POINTERS
            if (
                not self.can_correct and abs(old - start) >= sam2.POINTERS
            ):  # nearer ones are what the other direction begins with
                for each in self._objects.values():
                    each.followed.drop([old])

    def _check_frame(self, frame: int) -> None:
        if not 0 <= frame < len(self.frames):
            raise ShapeError(
                f"frame {frame} is asked for, and the video has {len(self.frames)}; give a number from 0 to "
                f"{len(self.frames) - 1}"
            )

    def _embedding(self, frame: int) -> Tensor:
        """The embedding of a frame, which is read and encoded unless it was the last one."""
        self._check_frame(frame)
        if self._seen is not None and self._seen[0] == frame:
            return self._seen[1]
        pixels, channels, side = self.frames[frame], len(self.tracker.intake.mean), self.tracker.side
        check_pixels(pixels, f"frame {frame}")
        if pixels.ndim != 3 or len(pixels) != channels or 0 in pixels.shape:
            raise ShapeError(f"frame {frame} is {pixels.shape}; ({channels}, H, W) is needed, channels first and no empty axis")
        check_8_bit(pixels, f"frame {frame}")
        shape = (int(pixels.shape[1]), int(pixels.shape[2]))
        if self._shape is not None and shape != self._shape:
            raise ShapeError(
                f"frame {frame} is {shape[1]} wide and {shape[0]} high, and those before it {self._shape[1]} and "
                f"{self._shape[0]}; resize it, or track the frames behind it as a video of their own"
            )
        self._shape = shape
        parameter = next(self.tracker.network.parameters())
        values = torch.from_numpy(resize_image(pixels.astype(np.float32), (side, side))).to(parameter)
        mean, std = (values.new_tensor(part)[:, None, None] for part in (self.tracker.intake.mean, self.tracker.intake.std))
        self._seen = frame, self.precision.encode(((values - mean) / std)[None])
        return self._seen[1]

    def _ask(self, prompt: Prompt, embedding: Tensor) -> None:
        """Answer a prompt for its frame, and keep the answer."""
        network, frame = self.tracker.network, prompt.frame
        known = self._objects.setdefault(prompt.object_id, FollowedObject())
        if prompt.mask is not None:
            answers = network.adopt(embedding, self._person_mask(prompt.mask)[None].to(embedding.device))
        else:
            before = known.find(frame)
            memory = self._memory([known], frame, 1) if frame in known.followed and known.asked else None
            answers = network.answer(embedding, self._prompts(prompt, before, embedding), memory=memory)
        kept = network.remember(embedding, answers, is_asked=True)
        known.asked[frame] = _known(answers, kept, 0)
        known.followed.drop([frame])

    def _prompts(self, prompt: Prompt, before: Known | None, embedding: Tensor) -> Prompts:
        """A prompt in pixels of the network's image, with the mask that was the answer before."""
        height, width = self._shape or (1, 1)
        step = torch.tensor([self.tracker.side / width, self.tracker.side / height])
        points = labels = boxes = masks = None
        if prompt.points_xy is not None:
            points = (torch.from_numpy(prompt.points_xy).float() * step)[None, None].to(embedding)
            labels = torch.from_numpy(np.asarray(prompt.is_foreground, np.int64))[None, None].to(embedding.device)
        if prompt.box_xyxy is not None:
            inset = torch.tensor([0.5, 0.5, -0.5, -0.5])  # the authors' corners are the outermost pixels of an object
            boxes = ((torch.from_numpy(prompt.box_xyxy).float() + inset) * step.repeat(2))[None, None].to(embedding)
        if before is not None:
            masks = before.mask_logits.clamp(-_SUREST, _SUREST)[None, None].to(embedding)
        return Prompts(points, labels, boxes, masks)

    def _person_mask(self, mask: np.ndarray) -> Tensor:
        """A person's mask (H, W) in pixels of the network's image."""
        side = self.tracker.side
        return torch.from_numpy(resize_image(np.asarray(mask, bool)[None].astype(np.float32), (side, side))[0] >= _HALF)

    def _follow(self, frame: int, step: int) -> None:
        """Answer a frame for every object that a person did not point at in it; those with equal memories together."""
        groups: dict[tuple, list[FollowedObject]] = {}
        for each in self._objects.values():
            if frame not in each.asked:
                groups.setdefault(self._layout(each, frame, step), []).append(each)
        if not groups:
            return
        network, embedding = self.tracker.network, self._embedding(frame)
        for each_group in groups.values():
            answers = self.precision.answer(embedding, self._memory(each_group, frame, step))
            kept = network.remember(embedding, answers, is_asked=False)
            for number, each in enumerate(each_group):
                each.followed.keep(frame, _known(answers, kept, number))

    def _layout(self, each: FollowedObject, frame: int, step: int) -> tuple[tuple[int, ...], ...]:
        """Which frames an object is known by in a frame: those whose memory counts, and those whose pointer does.

        All frames that a person pointed at, and six just before; for pointers those of the past alone, and fifteen.
        """
        before = [frame - step * age for age in range(1, self._longest() + 1)]
        followed = [other for other in before if other in each.followed]
        recent = [other for other in followed if abs(frame - other) <= sam2.RECENT]
        asked = sorted(each.asked)
        past = [other for other in asked if (frame - other) * step >= 0]
        return (*asked,), (*recent,), (*past, *followed)

    def _longest(self) -> int:
        """How many frames ago a pointer may lie."""
        return min(len(self.frames), sam2.POINTERS) - 1

    def _memory(self, group: Sequence[FollowedObject], frame: int, step: int) -> sam2.Memory:
        """What objects with equal layouts are known by in a frame."""
        asked, recent, pointed = self._layout(group[0], frame, step)
        longest, like = max(self._longest(), 1), next(self.tracker.network.parameters())
        maps, pointers = [], []
        for each in group:
            found = {other: each.find(other) for other in {*asked, *recent, *pointed}}
            maps.append(torch.stack([found[other].memory for other in (*asked, *recent)]))  # type: ignore[union-attr]
            known = [found[other].pointer for other in pointed]  # type: ignore[union-attr]
            pointers.append(torch.stack(known) if known else each.asked[asked[0]].pointer[None, :][:0])
        ages = (*[0] * len(asked), *[abs(frame - other) for other in recent])
        distances = tuple((frame - other) * step / longest for other in pointed)
        return sam2.Memory(torch.stack(maps).to(like), ages, torch.stack(pointers).to(like), distances)

    def _segmentation(self, frame: int) -> Segmentation:
        """The objects that are known in a frame and seen in it, in pixels of the video."""
        masks, numbers, scores = [], [], []
        for number, each in sorted(self._objects.items()):
            known = each.find(frame)
            if known is None or known.presence <= 0:
                continue
            whole = F.interpolate(known.mask_logits[None, None].float(), self._shape, mode="bilinear", align_corners=False)
            mask = (whole[0, 0] > 0).numpy()
            if mask.any():
                masks.append(mask)
                numbers.append(number)
                scores.append(float(known.score.float().clamp(0, 1)))
        stacked = np.stack(masks) if masks else np.zeros((0, *(self._shape or (0, 0))), bool)
        class_ids = np.zeros(len(masks), np.int32)
        return Segmentation.instances(stacked, class_ids, instance_ids=numbers, scores=scores, classes=_CLASSES)


def open_tracker(name: str, *, weights: str | None = None, online: bool = False, side: int = _SIDE) -> Tracker:
    """A network that follows objects, by its published name, such as "sam2.1_hiera_tiny", with the weights of a file or a name.

    Without any they are those that were published for it. `segwright models` lists names; `online` lets weights be fetched. A
    `side` below 1024 is faster and coarser.

    Raises:
        UnknownNameError: there is no such network.
        SettingError: it does not remember, or does not take images of that side.
        UsageError: weights are not on this machine, or do not fill the network.
    """
    config = preset(name)
    if not getattr(config, "remembers", False):
        raise SettingError(f"{name} remembers no frames; name a network for videos, such as 'sam2.1_hiera_tiny'")
    given, network = named_weights(weights or published_for(name), online=online), config.build()
    left = fill(network, given.tensors, source=given.source)
    if left:
        raise UsageError(f"{given.source} does not fill {name}: {'; '.join(left)}; give weights of all of it")
    intake = given.facts.intake if given.facts is not None else Intake()
    return Tracker(network=network.eval(), intake=intake, side=side)


def _known(answers: sam2.ObjectAnswers, kept: Tensor, number: int) -> Known:
    """What is kept of one of the objects of a frame."""
    parts = (answers.pointers, answers.mask_logits, answers.scores, answers.presence)
    return Known(kept[number].to("cpu", frame_memory.MEMORY_DTYPE), *(part[number].cpu() for part in parts))


def _check(prompt: Prompt, shape: tuple[int, int]) -> None:
    """See that a prompt is of a kind that a video takes, and lies within its frame.

    Raises:
        UsageError: it has a text, or a mask with points or a box.
        ShapeError: a point or a box lies outside the frame, or a mask has another shape.
    """
    if prompt.text is not None:
        raise UsageError(f"the prompt says {prompt.text!r}, and this network reads no text; give points, a box or a mask")
    if prompt.mask is not None and (prompt.points_xy is not None or prompt.box_xyxy is not None):
        raise UsageError(
            "the prompt has a mask with points or a box; give a mask alone, which is taken as it is, or points and a box, "
            "which correct the mask that was found before"
        )
    check_within(prompt, shape, f"frame {prompt.frame}")
