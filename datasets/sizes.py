"""The numbers of classes and images in a split, which bound the tasks that can be drawn from it. No TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Sizes(NamedTuple):
    """The size of a split."""

    classes: int | None  # to draw from, with turns that are classes; None: not known before the data are prepared
    images: int  # of the smallest class
    smallest: str  # its name; "" where all classes have so many

    @classmethod
    def of(cls, counts: Sequence[int] | np.ndarray, names: Sequence[str], turns: int = 1) -> Sizes:
        """Return the size of a split from the images of each class, and the names of the classes."""
        fewest = int(np.argmin(counts))
        every = min(counts) == max(counts)
        return cls(turns * len(counts), int(counts[fewest]), "" if every else names[fewest])
