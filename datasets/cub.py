"""CUB-200-2011 (Wah et al. 2011): 200 species of birds, 11,788 photographs, 41 to 60 per class, resized to 84x84.

Two divisions are in use, and their results must not be compared: 100 / 50 / 50 by number (Chen et al. 2019; odd numbers
are for training, those that leave 2 when divided by 4 for validation, multiples of 4 for the test) and 140 / 30 / 30 by
the list of Meta-Dataset (Triantafillou et al. 2020). Both are in cub_splits.csv. Whole photographs are used, not the
bounding boxes; both sides are resized by Lanczos, as Chen et al. do (before a crop of the centre, which is left out).
Some photographs are in ImageNet too.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

from .images import published
from .images.layout import WHOLE, Layout
from .options import CubOptions

if TYPE_CHECKING:
    from .images.source import ImageSource
    from .tasks import Split

CLASSES, TOTAL = {WHOLE: 200}, {WHOLE: 11_788}


@functools.cache
def division(split: str) -> Mapping[Split, list[str]]:
    """Return the names of the classes of each split."""
    text = files(__package__ or "").joinpath("cub_splits.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return {each: [row["class"] for row in rows if row[split] == each] for each in published.SPLITS}


def layout(name: str = "cub") -> Layout:
    """Return what is known of CUB-200-2011."""
    return Layout(
        name=name,
        title="CUB-200-2011",
        shape=(84, 84, 3),
        classes=CLASSES,
        totals=TOTAL,
        fewest=41,
        expected="CUB_200_2011.tgz, or its folder with images/<number>.<name>/*.jpg",
        archives={"CUB_200_2011.tgz": "97eceeb196236b17998738112f37df78", "CUB_200_2011.tar.gz": ""},
        known={name: WHOLE for members in division("100-50-50").values() for name in members},
        folder="images",
    )


def members(options: CubOptions) -> Mapping[Split, list[str]]:
    """Return the names of the classes of each split of a spec."""
    return division(options.split)


def build(options: CubOptions, dtype: str = "float32") -> ImageSource:
    """Build the source of a spec.

    Raises:
        DataError: The data have not been imported.
    """
    return published.source(layout(), members(options), dtype, options.normalisation, options.in_memory)
