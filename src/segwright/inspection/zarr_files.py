"""What Zarr folders lack: chunks that are not there, which Zarr takes for chunks of the fill value, whatever became of them."""

from pathlib import Path

from segwright.codecs.zarr_image import LABELS, chunks_of_zarr, is_zarr, labels_of_zarr, zarr_stem
from segwright.core.errors import SegwrightError
from segwright.formats.ome_zarr import zarrs_below
from segwright.inspection.finding import SHOWN, Finding, listed


def about_zarrs(root: Path) -> list[Finding]:
    """A note on the Zarrs below a folder, or the one that it is, which lack chunks; what cannot be read is told elsewhere."""
    try:
        zarrs = {zarr_stem(root.name): root} if is_zarr(root) else zarrs_below(root)
    except SegwrightError:  # two of one name
        return []
    lacking = []
    for stem, path in zarrs.items():
        for name, array in _arrays(path).items():
            try:
                gone, count = chunks_of_zarr(array)
            except SegwrightError:
                continue
            if gone:
                lacking.append(f"{stem}{name}: {gone} of {count}")
    if not lacking:
        return []
    evidence = f"Chunks are not there ({listed(lacking, SHOWN)}), and count as full of the fill value, mostly 0."
    remedy = (
        "Most programs leave out empty chunks, and then nothing has to be done. A copy that was cut short looks the same: "
        "compare the number of files with the original. What segwright convert --to ome_zarr writes has all chunks, so that a "
        "lost one is an error."
    )
    return [Finding("missing-chunks", "note", evidence, remedy, {"arrays": len(lacking)})]


def _arrays(path: Path) -> dict[str, Path]:
    """The Zarr folder of an image and those of its label images, by what follows the name of the image."""
    try:
        names = labels_of_zarr(path)
    except SegwrightError:
        names = ()
    return {"": path, **{f"/{LABELS}/{name}": path / LABELS / name for name in names}}
