import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from segwright.core.errors import SettingError, ShapeError
from segwright.inference import dense_crf, image_bands
from segwright.inference.dense_crf import DenseCRF

GOLDEN = Path(__file__).parent.parent / "golden" / "dense_crf_a"


def exact(settings: DenseCRF, image: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Mean field as the paper writes it, in float64 and over all pairs."""
    K, H, W = probs.shape
    places = np.stack(np.meshgrid(np.arange(W), np.arange(H)), axis=-1).reshape(-1, 2)
    colours = np.broadcast_to(image.reshape(len(image), -1).T, (H * W, 3)).astype(float)

    def kernel(*features):
        points = np.concatenate(features, axis=1)
        values = np.exp(-((points[:, None] - points[None]) ** 2).sum(axis=2) / 2)
        roots = np.sqrt(values.sum(axis=1))
        return values / roots / roots[:, None]

    distance = settings.gaussian_compat * kernel(places / settings.gaussian_sxy)
    both = settings.bilateral_compat * kernel(places / settings.bilateral_sxy, colours / settings.bilateral_srgb)
    logits = np.log(np.maximum(probs.astype(float), 1e-5)).reshape(K, -1)
    q = np.exp(logits) / np.exp(logits).sum(axis=0)
    for _ in range(settings.iterations):
        q = np.exp(logits + q @ (distance + both))
        q /= q.sum(axis=0)
    return q.reshape(K, H, W)


def scene(K: int = 3, H: int = 24, W: int = 31, seed: int = 0, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Coloured stripes, and probabilities that know them with much noise."""
    generator = np.random.default_rng(seed)
    truth = np.broadcast_to(np.arange(W) * K // W, (H, W))
    colours = generator.integers(0, 256, (K, channels))
    image = np.clip(colours[truth] + generator.normal(0, 4, (H, W, channels)), 0, 255).astype(np.uint8)
    logits = generator.normal(size=(K, H, W)) + 1.5 * (np.arange(K)[:, None, None] == truth)
    return np.moveaxis(image, -1, 0), (np.exp(logits) / np.exp(logits).sum(axis=0)).astype(np.float32)


@pytest.fixture(params=["pairs", "lattice"])
def either_way(request, monkeypatch):
    """All pairs, as in small images, or the lattice, as in large ones."""
    if request.param == "lattice":
        monkeypatch.setattr(dense_crf, "EXACT_PIXELS", 0)
    return request.param


# By hand


def test_a_speck_goes(either_way):
    probs = np.full((2, 9, 9), 0.1, np.float32)
    probs[0] = 0.9
    probs[:, 4, 4] = 0.4, 0.6
    found = DenseCRF()(np.full((3, 9, 9), 100, np.uint8), probs)
    assert (found.argmax(axis=0) == 0).all() and found.dtype == np.float32
    assert found.sum(axis=0) == pytest.approx(1, abs=1e-5)


def test_a_border_goes_to_the_edge_of_the_image(either_way):
    image = np.zeros((3, 16, 32), np.uint8)
    image[:, :, 16:] = 255
    probs = np.empty((2, 16, 32), np.float32)
    probs[1] = np.linspace(0.05, 0.95, 32) - 0.1  # says that the border is four columns further right
    probs[0] = 1 - probs[1]
    assert (probs.argmax(axis=0)[0] == 1).sum() == 13
    found = DenseCRF()(image, probs).argmax(axis=0)
    assert (found == (image[0] > 0)).all()


def test_one_pixel_and_one_class(either_way):
    assert DenseCRF()(np.zeros((3, 1, 1), np.uint8), np.ones((1, 1, 1), np.float32)).tolist() == [[[1]]]
    assert (DenseCRF()(np.zeros((1, 3, 5), np.uint8), np.ones((1, 3, 5), np.float32)) == 1).all()


def test_without_kernels_nothing_changes(either_way):
    image, probs = scene()
    assert DenseCRF(gaussian_compat=0, bilateral_compat=0)(image, probs) == pytest.approx(probs, abs=1e-5)


@pytest.mark.parametrize("iterations", [1, 5, 10])
def test_equals_all_pairs_computed_by_the_authors_of_the_golden_file(iterations):
    facts, arrays = json.loads(GOLDEN.with_suffix(".json").read_text()), load_file(GOLDEN.with_suffix(".safetensors"))
    crf = DenseCRF(iterations=iterations, bilateral_sxy=20)
    found = crf(np.moveaxis(arrays["in/image"], -1, 0), arrays["in/probs"])
    name = f"exact_bruteforce.iter{iterations}"
    wanted, stride = arrays[f"out/{name}@sample"], facts["outputs"][name]["stride"]
    np.testing.assert_allclose(found.reshape(-1)[::stride], wanted, **facts["tolerance"][name])


@pytest.mark.parametrize(("kernels", "least"), [("both", 0.99), ("gaussian", 0.99), ("bilateral", 0.99)])
@pytest.mark.parametrize("iterations", [1, 5, 10])
def test_large_images_are_labelled_as_by_pydensecrf(kernels, least, iterations, monkeypatch):
    monkeypatch.setattr(dense_crf, "EXACT_PIXELS", 0)
    facts, arrays = json.loads(GOLDEN.with_suffix(".json").read_text()), load_file(GOLDEN.with_suffix(".safetensors"))
    left_out = {"both": {}, "gaussian": {"bilateral_compat": 0.0}, "bilateral": {"gaussian_compat": 0.0}}[kernels]
    crf = DenseCRF(iterations=iterations, bilateral_sxy=20, **left_out)
    found = crf(np.moveaxis(arrays["in/image"], -1, 0), arrays["in/probs"])
    stride = facts["outputs"][f"{kernels}.iter{iterations}"]["stride"]
    theirs = arrays[f"out/{kernels}.iter{iterations}@sample"]
    ours = found.reshape(-1)[::stride]
    width = found.shape[1] * found.shape[2] // stride  # the sample holds every so many pixels of each class
    labels = [values.reshape(len(found), width).argmax(axis=0) for values in (ours, theirs)]
    assert np.mean(labels[0] == labels[1]) >= least
    assert np.abs(ours - theirs).mean() < 0.01


# By a slow twin


@pytest.mark.parametrize(("K", "channels"), [(2, 3), (5, 1), (9, 3)])
def test_small_images_equal_all_pairs(K, channels):
    image, probs = scene(K, channels=channels)
    crf = DenseCRF(iterations=4, gaussian_sxy=2, bilateral_sxy=11, bilateral_srgb=7, bilateral_compat=4)
    assert crf(image, probs) == pytest.approx(exact(crf, image, probs), abs=1e-5)


@pytest.mark.parametrize("sigma", [0.3, 1, 3, 40])
def test_the_gaussian_of_distance_ends_at_three_standard_deviations(sigma, monkeypatch):
    monkeypatch.setattr(dense_crf, "EXACT_PIXELS", 0)
    image, probs = scene()
    crf = DenseCRF(iterations=1, gaussian_sxy=sigma, bilateral_compat=0)
    assert np.abs(crf(image, probs) - exact(crf, image, probs)).max() < 0.01


def test_the_lattice_is_close_to_all_pairs(monkeypatch):
    monkeypatch.setattr(dense_crf, "EXACT_PIXELS", 0)
    image, probs = scene(4, 40, 50)
    crf = DenseCRF(iterations=5)
    assert np.mean(crf(image, probs).argmax(axis=0) == exact(crf, image, probs).argmax(axis=0)) > 0.99


def test_exponentials():
    values = np.linspace(-46, 0, 4001).astype(np.float32)
    pairs = np.stack([values, np.zeros_like(values)], axis=1)
    wanted = np.exp(pairs.astype(float))
    wanted /= wanted.sum(axis=1, keepdims=True)
    dense_crf.softmax_in_place(pairs)
    np.testing.assert_allclose(pairs, wanted, rtol=1e-6)


# By a law


def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    image, probs = scene(4, 90, 260)
    monkeypatch.setattr(image_bands, "BAND", 1000)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr("numba.config.NUMBA_NUM_THREADS", threads)
        found.append(DenseCRF(iterations=3)(image, probs))
    assert (found[0] == found[1]).all()


def test_classes_and_sides_have_no_order():
    image, probs = scene(3)
    crf = DenseCRF(iterations=3)
    found = crf(image, probs)
    assert crf(image, probs[::-1])[::-1] == pytest.approx(found, abs=1e-5)
    assert crf(image[..., ::-1], probs[..., ::-1])[..., ::-1] == pytest.approx(found, abs=1e-5)
    assert crf(image.transpose(0, 2, 1), probs.transpose(0, 2, 1)).transpose(0, 2, 1) == pytest.approx(found, abs=1e-5)


def test_grey_is_a_colour_of_three_equal_parts(either_way):
    image, probs = scene(channels=1)
    assert (DenseCRF()(image, probs) == DenseCRF()(np.repeat(image, 3, axis=0), probs)).all()


@pytest.mark.parametrize("what", ["image", "probs"])
def test_missing_pixels_leave_the_others_alone(what, either_way):
    image, probs = scene()
    holes = np.random.default_rng(3).random(probs.shape[1:]) < 0.2
    crf, found = DenseCRF(iterations=3), []
    for value in (np.nan, np.inf):
        pair = {"image": image.astype(np.float32), "probs": probs.copy()}
        pair[what][0, holes] = value
        found.append(crf(pair["image"], pair["probs"]))
    assert np.isfinite(found[0]).all() and (found[0] == found[1]).all()
    kept = probs[:, holes] if what == "image" else np.full((3, holes.sum()), 1 / 3)
    assert found[0][:, holes] == pytest.approx(kept, abs=1e-4)
    image[:, holes] = 255 - image[:, holes]  # what would have been there does not matter
    values = image.astype(np.float32)
    values[:, holes] = np.nan
    assert crf(values, probs)[:, ~holes] == pytest.approx(found[0][:, ~holes], abs=1e-6)


def test_an_image_without_any_value_keeps_its_probabilities(either_way):
    _, probs = scene()
    assert DenseCRF()(np.full((3, *probs.shape[1:]), np.nan), probs) == pytest.approx(probs, abs=1e-4)


def test_arguments_stay_as_they_are():
    image, probs = scene()
    before = image.copy(), probs.copy()
    DenseCRF(iterations=1)(image, probs)
    assert (image == before[0]).all() and (probs == before[1]).all()


# By its messages


@pytest.mark.parametrize(
    ("shape", "of_probs"), [((4, 5, 6), (2, 5, 6)), ((3, 5, 6), (2, 5, 7)), ((3, 5, 6), (2, 2, 5, 6)), ((3, 0, 6), (2, 0, 6))]
)
def test_what_does_not_lie_over_each_other_is_refused_with_a_remedy(shape, of_probs):
    with pytest.raises(ShapeError, match=r"a dense CRF needs \(3, H, W\), RGB.*image\[:3\]"):
        DenseCRF()(np.zeros(shape, np.uint8), np.zeros(of_probs, np.float32))
    DenseCRF(iterations=1)(np.zeros((4, 5, 6), np.uint8)[:3], np.full((2, 5, 6), 0.5, np.float32))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"iterations": 0}, "give 1 or more, such as 10"),
        ({"gaussian_sxy": 0}, "above 0, such as 3"),
        ({"bilateral_srgb": float("nan")}, "above 0, such as 13"),
        ({"bilateral_compat": -1}, "0 to leave the kernel out, or more, such as 10"),
    ],
)
def test_settings_out_of_range(setting, message):
    with pytest.raises(SettingError, match=message):
        DenseCRF(**setting)
