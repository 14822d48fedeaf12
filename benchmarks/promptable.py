"""Segment Anything on a CPU: segwright against the authors' segment-anything, with the same weights.

    python benchmarks/promptable.py                       all parts
    python benchmarks/promptable.py encoder --threads 1   one part, on one core

Both sides have the same random weights, as nobody's trained ones may be fetched here; a random network takes as long as a
trained one. Each part is timed in turns, and the fastest turn of each side counts. With --threads 1 it is the processor's time
that is taken, which is fair on a busy machine.

It needs the authors' package: pip install segment-anything==1.0 pycocotools

* encoder: an image of 1024 x 1024 through ViT-B, float32 as both are without further ado, and through the engine that
  segwright picks, if one is picked: it must give the same masks to an IoU of 0.99 on the machine itself.
* click: one point about an image that is encoded already, to a mask of its size, with the full-size decoder.
* everything: what follows the decoder when all objects are looked for by 32 x 32 points. Decoders are replaced by drawn answers
  on both sides: objects of many sizes, each answered whole, in part, and in a part of that, as trained networks do, and poor
  answers beside objects. Both sides give COCO's run lengths of the masks that are left.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

THREADS = 2  # cores at most: the machine that the figures are for
SIDE, COARSE = 1024, 256  # pixels of a side of the image, and of the masks that a network gives
TURNS = 3
CLICKS = 10
OBJECTS = 60  # drawn: about as many as the authors' network finds in a photograph
PARTS = ("encoder", "click", "everything")


def main() -> None:
    """Print a table of each part that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=f"of {', '.join(PARTS)}; all without any"
    )
    parser.add_argument("--threads", type=int, default=THREADS, help="cores that both sides may take")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    torch.set_num_threads(arguments.threads)
    print("| part | segment-anything, ms | segwright, ms | ratio | equal |")
    print("|---|--:|--:|--:|---|", flush=True)
    wanted = arguments.parts or list(PARTS)
    if "encoder" in wanted or "click" in wanted:
        theirs, ours = networks()
        if "encoder" in wanted:
            encoder(theirs, ours)
        if "click" in wanted:
            click(theirs, ours)
    if "everything" in wanted:
        everything()


def networks() -> tuple[Any, Any]:
    """The authors' ViT-B and ours, with the same random weights."""
    from segment_anything import sam_model_registry

    from segwright.models import sam

    torch.manual_seed(0)
    theirs = sam_model_registry["vit_b"]().eval()
    with torch.no_grad():  # tables that begin as zeros are none in trained networks
        for name, parameter in theirs.named_parameters():
            if "rel_pos" in name or name.endswith("pos_embed"):
                parameter.normal_(0, 0.02)
    ours = sam.PRESETS["sam_vit_b"].build().eval()
    ours.load_state_dict(sam.rename(theirs.state_dict()))
    return theirs, ours


def fastest(*sides: Callable[[], Any], turns: int = TURNS) -> list[float]:
    """Milliseconds of the fastest run of each side; they take turns, after one that does not count."""
    for side in sides:
        side()
    return timed(*sides, turns=turns)[0]


def timed(*sides: Callable[[], Any], turns: int) -> tuple[list[float], Any]:
    """Milliseconds of the fastest run of each side, which take turns, and what the last side gave."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter  # the former knows no other processes
    best, answer = [np.inf] * len(sides), None
    for _ in range(turns):
        for number, side in enumerate(sides):
            begin = clock()
            answer = side()
            best[number] = min(best[number], 1000 * (clock() - begin))
    return best, answer


def row(part: str, slow: float, fast: float, equal: str) -> None:
    """Print one row of the table."""
    print(f"| {part} | {slow:.1f} | {fast:.1f} | {slow / fast:.2f} | {equal} |", flush=True)


def encoder(theirs: Any, ours: Any) -> None:
    """ViT-B on an image of 1024 x 1024."""
    from segwright.inference.prompting import Prompter

    photograph = picture()
    image = torch.from_numpy(photograph)[None].float() / 64 - 2
    with torch.inference_mode():
        slow, fast = fastest(lambda: theirs.image_encoder(image), lambda: ours.encode(image))
        wanted, found = theirs.image_encoder(image), ours.encode(image)
    row("encoder, float32", slow, fast, f"{float((found - wanted).norm() / wanted.norm()):.1e} of the embedding")
    prompter = Prompter(network=ours)
    prompter.engine.ahead = 100  # so many images are worth the picking
    prompter.open(photograph)
    ((_, fact),) = prompter.engine.cache.recall().items()
    batch = image.numpy()
    slow, fast = fastest(lambda: theirs.image_encoder(image), lambda: prompter.engine(batch), turns=2)
    engine = torch.from_numpy(prompter.engine(batch)[0].copy())
    row(f"encoder, {fact['engine']}", slow, fast, f"IoU {overlap(ours, engine, wanted):.4f}; {fact['found']}")


def overlap(network: Any, embedding: torch.Tensor, reference: torch.Tensor) -> float:
    """The mean IoU of masks that two embeddings give to a grid of points, each mask cut where the reference's has its median.

    A random network's masks are noise, all above 0 or all below; half of it is on either side of the median.
    """
    from segwright.layers.prompts import Prompts

    line = (torch.arange(4) + 0.5) * SIDE / 4
    points = torch.cartesian_prod(line, line).view(1, -1, 1, 2)
    prompts = Prompts(points, torch.ones(1, 16, 1, dtype=torch.int64))
    with torch.inference_mode():
        found, wanted = (network.decode(each, prompts).mask_logits.flatten(3) for each in (embedding, reference))
    middle = wanted.median(dim=3, keepdim=True).values
    both, either = (part.sum(dim=3) for part in ((found > middle) & (wanted > middle), (found > middle) | (wanted > middle)))
    return float((both / either.clamp(min=1)).mean())


def click(theirs: Any, ours: Any) -> None:
    """One point, from the prompt to the mask in pixels of the image."""
    from segment_anything import SamPredictor

    from segwright.core import Prompt
    from segwright.inference.prompting import Prompter

    image = picture()
    predictor = SamPredictor(theirs)
    predictor.set_image(np.ascontiguousarray(np.moveaxis(image, 0, -1)))
    session = Prompter(network=ours).open(image)
    point = np.array([[400.0, 300.0]], np.float32)
    prompt = Prompt(points_xy=point, is_foreground=np.array([True]))
    slow, fast = fastest(
        lambda: predictor.predict(point, np.ones(1), multimask_output=True), lambda: session.segment(prompt), turns=CLICKS
    )
    masks, scores, _ = predictor.predict(point - 0.5, np.ones(1), multimask_output=True)
    wanted, found = masks[scores.argmax()], session.segment(prompt).mask(0)
    row("click", slow, fast, f"IoU {(wanted & found).sum() / max(1, (wanted | found).sum()):.4f}")


def picture() -> np.ndarray:
    """A smooth random image uint8 (3, SIDE, SIDE)."""
    torch.manual_seed(1)
    coarse = torch.rand(1, 3, 32, 32)
    return (255 * F.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1))[0].byte().numpy()


def everything() -> None:
    """All that follows the decoder."""
    from segment_anything import SamAutomaticMaskGenerator, sam_model_registry

    from segwright.codecs import rle
    from segwright.inference.everything import segment_everything
    from segwright.inference.prompting import Prompter

    answers = drawn_answers()
    with torch.device("meta"):
        frame = sam_model_registry["vit_b"]()
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    for min_area in (0, 100):
        generator = SamAutomaticMaskGenerator(frame, output_mode="coco_rle", min_mask_region_area=min_area)
        generator.predictor = _TheirPredictor(frame, answers)
        prompter = Prompter(network=_OurNetwork(answers))

        def ours(prompter: Prompter = prompter, min_area: int = min_area) -> tuple[Any, list[np.ndarray]]:
            found = segment_everything(prompter, np.moveaxis(image, -1, 0), min_area=min_area)
            return found, rle.of_segments(found.planes, len(found))

        (slow,), theirs = timed(lambda generator=generator: generator.generate(image), turns=1)
        ours()  # compiles
        (fast,), (found, _) = timed(ours, turns=TURNS)
        row(f"everything, regions below {min_area} px mended", slow, fast, shared(theirs, found))


def shared(theirs: list[dict[str, Any]], ours: Any) -> str:
    """How many of the authors' masks are among ours to an IoU of 0.99."""
    from segwright.codecs import rle

    masks = ours.masks()
    again = 0
    for each in theirs:
        wanted = rle.decode(rle.from_text(each["segmentation"]["counts"]), (SIDE, SIDE))
        overlaps = (masks & wanted).sum(axis=(1, 2)) / (masks | wanted).sum(axis=(1, 2)).clip(1)
        again += bool((overlaps > 0.99).any())
    return f"{again} of their {len(theirs)} masks are among our {len(masks)}"


class _OurNetwork(torch.nn.Module):
    """A promptable network whose answers are drawn."""

    divisors = (16, 16)

    def __init__(self, answers: "_Answers") -> None:
        super().__init__()
        self.weight, self.answers = torch.nn.Parameter(torch.zeros(1)), answers

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        return image.new_zeros(1, 1, SIDE // 16, SIDE // 16)

    def decode(self, embedding: torch.Tensor, prompts: Any, *, multimask: bool) -> Any:
        from segwright.layers.prompts import PromptedMasks

        logits, scores = self.answers.at(prompts.points_xy[0, :, 0])
        return PromptedMasks(logits[None], scores[None])


class _TheirPredictor:
    """The authors' predictor whose decoder's answers are drawn; what follows the decoder is theirs."""

    def __init__(self, frame: Any, answers: "_Answers") -> None:
        from segment_anything.utils.transforms import ResizeLongestSide

        self.model, self.answers, self.device = frame, answers, torch.device("cpu")
        self.transform = ResizeLongestSide(SIDE)

    def set_image(self, image: np.ndarray) -> None:
        """Nothing is to be encoded."""

    def reset_image(self) -> None:
        """Nothing is kept."""

    def predict_torch(self, points: torch.Tensor, labels: torch.Tensor, **_: Any) -> tuple[torch.Tensor, ...]:
        logits, scores = self.answers.at(points[:, 0].float())
        return self.model.postprocess_masks(logits, (SIDE, SIDE), (SIDE, SIDE)), scores, logits


class _Answers:
    """What a decoder says of the points of a grid, made before anything is timed."""

    def __init__(self, logits: torch.Tensor, scores: torch.Tensor, owner: torch.Tensor) -> None:
        self.logits, self.scores, self.owner = logits, scores, owner

    def at(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mask logits (P, 3, h, w) and scores (P, 3) for points (P, 2) in pixels."""
        cells = (points / (SIDE / COARSE)).long().clamp(0, COARSE - 1)
        objects = self.owner[cells[:, 1], cells[:, 0]]
        return self.logits[objects], self.scores[objects]


def drawn_answers() -> _Answers:
    """Ellipses with wavy borders in three sizes each; the last answers are those for points on no object."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:COARSE, :COARSE] + 0.5
    owner = np.full((COARSE, COARSE), OBJECTS)
    logits = np.full((OBJECTS + 1, 3, COARSE, COARSE), -10.0, np.float32)
    for number in range(OBJECTS):
        cx, cy = random.uniform(10, COARSE - 10, 2)
        radius = random.uniform(6, 40) * (1 - number / (1.3 * OBJECTS)) + 4  # later ones lie on earlier ones, and are smaller
        stretch, turn = random.uniform(0.5, 1), random.uniform(0, 3)
        u, v = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn), (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        wave = 1 + 0.08 * np.sin(5 * np.arctan2(v, u) + number)
        apart = np.hypot(u, v / stretch) / wave
        for part, share in enumerate((1.0, 0.6, 0.35)):
            logits[number, part] = np.clip(3 * (share * radius - apart), -12, 12)
        owner[apart < radius] = number
    scores = np.tile(np.array([0.97, 0.93, 0.9], np.float32), (OBJECTS + 1, 1))
    scores[OBJECTS] = 0.4
    logits[OBJECTS] = random.normal(0, 1, logits[OBJECTS].shape)
    return _Answers(torch.from_numpy(logits), torch.from_numpy(scores), torch.from_numpy(owner))


if __name__ == "__main__":
    main()
