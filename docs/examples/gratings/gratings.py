"""A dataset for metarun: striped images. A class is a direction and a width of the stripes."""

from typing import Literal

import numpy as np
from pydantic import Field

from metarun.datasets.options import Options


class Gratings(Options):
    """Draw noisy stripes, 16x16: 64 classes for training, 16 for validation, 20 for the test, 20 images per class."""

    name: Literal["gratings"] = "gratings"
    noise: float = Field(default=40.0, ge=0, description="Standard deviation of the noise, in steps of 1/255.")

    def build(self, dtype: str):
        from metarun.datasets.images.source import ClassPool, ImageSource

        generator, pools = np.random.default_rng(0), {}
        y, x = np.mgrid[:16, :16]
        for split, classes in (("train", 64), ("val", 16), ("test", 20)):
            angle, width = generator.uniform([[0], [1]], [[np.pi], [3]], (2, classes))[..., None, None, None]
            shift = generator.uniform(0, 2 * np.pi, (classes, 20, 1, 1))
            stripes = np.sin((x * np.cos(angle) + y * np.sin(angle)) / width + shift)  # [classes, 20, 16, 16]
            pixels = 128 + 80 * stripes + generator.normal(0, self.noise, stripes.shape)
            images = pixels.clip(0, 255).astype(np.uint8).reshape(-1, 16, 16, 1)  # class after class
            pools[split] = ClassPool(images, np.full(classes, 20), tuple(f"{split} {n}" for n in range(classes)))
        return ImageSource("gratings", pools, dtype=dtype)
