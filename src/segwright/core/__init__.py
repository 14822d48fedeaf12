"""The values that everything else passes around: Grid, Classes, Segmentation, Sample, Prompt, Dataset. No torch."""

from segwright.core.classes import Classes
from segwright.core.dataset import Dataset
from segwright.core.grid import Grid
from segwright.core.prompt import Prompt
from segwright.core.sample import Sample
from segwright.core.segmentation import VOID, Segmentation

__all__ = ["VOID", "Classes", "Dataset", "Grid", "Prompt", "Sample", "Segmentation"]
