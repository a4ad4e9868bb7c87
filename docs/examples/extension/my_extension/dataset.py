"""A dataset: random patterns of 16 x 16 pixels, each a class, with noise in every image."""

from typing import Any, Literal

from pydantic import Field

from metarun.datasets.options import Options


class Patterns(Options):
    """Random patterns with noise."""

    name: Literal["patterns"] = "patterns"
    classes: int = Field(default=20, ge=2, description="Classes in each split.")

    def build(self, dtype: str) -> Any:
        import numpy as np

        from metarun.datasets.images.source import ClassPool, ImageSource

        generator, pools = np.random.default_rng(0), {}
        for split in ("train", "val", "test"):
            patterns = generator.integers(0, 100, (self.classes, 1, 16, 16, 1))
            images = (patterns + generator.integers(0, 100, (self.classes, 10, 16, 16, 1))).astype(np.uint8)
            names = tuple(f"{split} {number}" for number in range(self.classes))
            pools[split] = ClassPool(images.reshape(-1, 16, 16, 1), np.full(self.classes, 10), names)
        return ImageSource("patterns", pools, dtype=dtype)
