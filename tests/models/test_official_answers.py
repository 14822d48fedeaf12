"""What the authors' Mask2Former answers for an image, from its weights on: classes, objects and panoptic segments."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segwright.core import Classes, Sample
from segwright.decoding import queries
from segwright.decoding.run import Run
from segwright.encoders import swin
from segwright.models import mask2former
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CLASSES = Classes.of("abcde", is_thing=[True] * 4 + [False])
NETWORK = mask2former.Config(
    num_classes=5,
    encoder=swin.Config(width=8, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4), window=4, drop_path=0.0),
    width=32,
    num_heads=4,
    encoder_layers=2,
    encoder_mlp_width=1024,
    decoder_layers=3,
    mlp_width=48,
    num_queries=8,
)


@pytest.fixture
def answered(golden, monkeypatch):
    """The golden file, and a run and a view of its network and image, with the thresholds of the file."""
    file = golden("m2f_official_swin_a")
    network = NETWORK.build().eval()
    network.load_state_dict(mask2former.rename(file.weights))
    monkeypatch.setattr(queries, "OBJECT_MASK_THRESHOLD", file.config["OBJECT_MASK_THRESHOLD"])
    monkeypatch.setattr(queries, "OVERLAP_THRESHOLD", file.config["OVERLAP_THRESHOLD"])
    monkeypatch.setattr(queries, "MOST_OBJECTS", file.config["DETECTIONS_PER_IMAGE"])

    def engine(images: np.ndarray) -> tuple[np.ndarray, ...]:
        with torch.no_grad():
            return tuple(each.numpy() for each in network(torch.from_numpy(images)))

    view = Preprocess(normalise=Normalise(mean=MEAN, std=STD))(Sample.of("a", file.input("image0").numpy()))
    return file, Run(engine=engine, classes=CLASSES, divisors=network.divisors, output=network.OUTPUT), view


def test_classes_have_the_authors_scores(answered):
    file, run, view = answered
    class_logits, mask_logits = run(view.image[None])
    probs = torch.from_numpy(class_logits[0]).softmax(1)
    masks = F.interpolate(torch.from_numpy(mask_logits), size=view.covered, mode="bilinear")[0].sigmoid()
    scores = torch.einsum("qk,qhw->khw", probs[:, :-1], masks)
    file.check("sem_seg0", scores)
    assert (queries.decode_classes(run, view).class_map() == scores.argmax(0).numpy()).all()


def test_objects_are_the_authors(answered):
    file, run, view = answered
    found = queries.decode_objects(run, view)
    scores, classes, areas = (file.arrays[f"out/inst0.{name}"].numpy() for name in ("scores", "classes", "mask_area"))
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= queries.LEAST_SCORE]
    np.testing.assert_allclose(found.scores, scores[order], atol=1e-5)
    assert found.class_ids.tolist() == classes[order].tolist()
    assert found.areas().tolist() == areas[order].tolist()


def test_panoptic_segments_are_the_authors(answered):
    file, run, view = answered
    found = queries.decode_panoptic(run, view)
    segments = file.arrays["out/panoptic0.segments"].tolist()  # number, thing or not, class
    assert [[n + 1, int(CLASSES.is_thing[k]), k] for n, k in enumerate(found.class_ids.tolist())] == segments
    seen = found.planes[0].reshape(-1)[:: file.meta["outputs"]["panoptic0.seg"]["stride"]]
    differs = seen != file.arrays["out/panoptic0.seg@sample"].numpy()
    assert differs.mean() <= file.meta["tolerance"]["panoptic0.seg"]["max_mismatch_fraction"]
