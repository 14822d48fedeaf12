"""What every data format promises: it recognises and reads back what it wrote."""

import numpy as np
import pytest

from segwright.core import Classes, Sample, Segmentation
from segwright.core.errors import OutputError, SegwrightError
from segwright.formats import open_dataset, readers

WRITERS = [name for name, module in readers().items() if hasattr(module, "write")]
THREE = Classes.of(["road", "car", "sky"], colors=[(1, 2, 3), (40, 50, 60), (7, 8, 9)])
CELLS = Classes.of(["background", "cell"], is_thing=[False, True])


def semantic(key, *shape, channels=3):
    generator = np.random.default_rng(len(key))
    image = generator.integers(0, 256, (channels, *shape), dtype=np.uint8)
    return Sample.of(key, image, Segmentation.semantic(generator.integers(-1, 3, shape), THREE))


def panoptic(key, *shape):
    generator = np.random.default_rng(len(key))
    truth = Segmentation.panoptic(generator.integers(0, 3, shape) + 1, [0, 1, 1], [0, 5, 9], classes=CELLS)
    return Sample.of(key, generator.integers(0, 65536, (1, *shape), dtype=np.uint16), truth)


SETS = {
    "semantic": [semantic("one", 5, 7), semantic("second", 4, 9)],
    "single pixel": [semantic("pixel", 1, 1, channels=1)],
    "panoptic": [panoptic("a", 6, 8), panoptic("bb", 3, 5)],
    "volumes": [semantic("volume", 3, 5, 7, channels=2)],
}


@pytest.mark.parametrize("name", readers())
def test_a_format_recognises_and_reads(name, tmp_path):
    module = readers()[name]
    assert module.matches(tmp_path / "nothing") is False
    with pytest.raises(SegwrightError):
        module.read(tmp_path / "nothing")
    assert (module.__doc__ or "").splitlines()[0].endswith(".")  # it is shown where nothing is recognised


OF_VOLUMES = ("mask_folder", "nnunet", "ome_zarr", "tiff", "volume")
WITHOUT_NUMBERS = ("nnunet", "yolo")  # of objects


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("name", WRITERS)
def test_a_format_reads_back_what_it_wrote(name, kind, tmp_path):
    module, samples = readers()[name], SETS[kind]
    if kind == "volumes" and name not in OF_VOLUMES:
        with pytest.raises(OutputError, match="write it (as|to) nnunet, volume or mask_folder"):
            module.write(tmp_path / "data", iter(samples))
        assert not (tmp_path / "data").exists()
        return
    module.write(tmp_path / "data", iter(samples))
    assert module.matches(tmp_path / "data")
    for data in (module.read(tmp_path / "data"), open_dataset(str(tmp_path / "data"))):
        assert data.keys == tuple(sample.key for sample in samples)
        assert data.classes == samples[0].truth.classes
        for written, read in zip(samples, data, strict=True):
            assert read.key == written.key and read.image.dtype == written.image.dtype
            assert np.array_equal(read.image, written.image)
            assert np.array_equal(read.truth.class_map(), written.truth.class_map())
            if name not in WITHOUT_NUMBERS:
                assert sorted(read.truth.instance_ids) == sorted(written.truth.instance_ids)
