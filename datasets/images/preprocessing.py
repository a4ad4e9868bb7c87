"""The images that a network reads, and how others become such images. TensorFlow is imported by `as_input` alone.

The rule, in this order:
1. Channels: grey becomes RGB by repetition, RGB becomes grey by Pillow's luma (0.299 R + 0.587 G + 0.114 B).
2. Size: Pillow's Lanczos, as the images of users are read; height and width need not keep their ratio. Where the
   network has binary images, an image that is binary already is resized by nearest neighbour, as Omniglot itself.
3. Binary: where the network has binary images, values from 128 on become 255, the others 0.
4. Polarity: light and dark are exchanged (255 - x) if both have ink, one light on dark and the other dark on light.
5. Values: (x / 255 - mean) / std with the mean and std of the training. Reptile's Omniglot, ink 0, is such a
   normalisation: its uint8 images have light ink.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from ..errors import DataError
from .decode import Decoded, examine

Ink = Literal["light", "dark"]  # of drawings: light on dark, or dark on light
Convert = Literal["as-is", "invert"]
HALF = 128  # from this value on a pixel of a binary image is light


class Preprocessing(BaseModel):
    """Hold the images of a dataset: uint8 `[height, width, channels]`, and the floating-point inputs made of them.

    It is frozen, and plain data: `model_dump(mode="json")` writes it, `model_validate` reads it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: int
    width: int
    channels: int
    mean: tuple[float, ...] = (0.0,)  # of each channel, or one for all, of values from 0 to 1
    std: tuple[float, ...] = (1.0,)
    ink: Ink | None = None  # of the uint8 images, which the normalisation may invert; None: photographs, or not known
    binary: bool = False  # all values are 0 or 255
    bits: int | None = None  # significant bits of 16-bit files, as in `decode.examine`

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (height, width, channels)."""
        return self.height, self.width, self.channels

    def as_input(self, images: Any, dtype: Any = "float32") -> Any:
        """Return the inputs of a network, a tensor of `dtype`, from uint8 images `[..., height, width, channels]`."""
        import tensorflow as tf

        mean, std = np.asarray(self.mean), np.asarray(self.std)
        scale, shift = 1.0 / (255.0 * std), -mean / std
        return tf.cast(images, dtype) * tf.constant(scale, dtype) + tf.constant(shift, dtype)

    def pixels(self, inputs: Any) -> np.ndarray:
        """Return the images of inputs, from 0 to 1."""
        return np.clip(np.asarray(inputs) * np.asarray(self.std) + np.asarray(self.mean), 0.0, 1.0)

    def decode(self, data: bytes, where: str, invert: bool = False) -> Decoded:
        """Decode a user's file to the uint8 image that a network with this preprocessing reads.

        Args:
            data: The bytes of the file.
            where: The name of the file, for messages.
            invert: Exchange light and dark.

        Raises:
            DataError: The bytes are not an image that can be read, or it is too large.
        """
        size = None if self.binary else (self.height, self.width)
        decoded = examine(data, where, size, self.channels, self.bits)
        return decoded._replace(pixels=converted(decoded.pixels, self, invert))


class Conversion(NamedTuple):
    """Hold the way from images of one dataset to those of another."""

    given: Preprocessing
    wanted: Preprocessing
    invert: bool

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return an image as the wanted one, uint8 `[height, width, channels]`."""
        return converted(image, self.wanted, self.invert)

    @property
    def changes_pixels(self) -> bool:
        """Return whether an image may differ from its converted one."""
        return self.invert or self.given.shape != self.wanted.shape or self.wanted.binary and not self.given.binary

    @property
    def words(self) -> str:
        """Return what changes, for a reader: `105x105 to 28x28, RGB to grey, binary, inverted`; "" if nothing does."""
        given, wanted = self.given, self.wanted
        sizes = [f"{each.height}x{each.width}" for each in (given, wanted)]
        colours = ["grey" if each.channels == 1 else "RGB" for each in (given, wanted)]
        parts = [" to ".join(pair) for pair in (sizes, colours) if pair[0] != pair[1]]
        parts += ["made binary"] if wanted.binary and not given.binary else []
        return ", ".join(parts + ["inverted"] * self.invert)


def conversion(given: Preprocessing, wanted: Preprocessing, convert: Convert | None = None) -> Conversion:
    """Return how images become those that a network reads.

    Args:
        given: The images.
        wanted: Those of the network.
        convert: "invert": exchange light and dark; "as-is": do not; None: as the polarity of their ink says.

    Raises:
        DataError: One of them has ink and of the other it is not known, so `convert` must say it; or the channels
            cannot be converted. The message goes on after the name of the images.
    """
    if given.shape != wanted.shape and (not {given.channels, wanted.channels} <= {1, 3}):
        raise DataError(f"has images {given.shape}, which cannot become those of the network, {wanted.shape}")
    if convert is None and (given.ink is None) != (wanted.ink is None):
        raise DataError(
            f"has {_polarity(given)}, and the network was trained on {_polarity(wanted)}: set test.convert (--convert) "
            "to invert, which exchanges light and dark, or to as-is"
        )
    return Conversion(given, wanted, convert == "invert" or convert is None and given.ink != wanted.ink)


def _polarity(images: Preprocessing) -> str:
    known = {"light": "light ink on dark", "dark": "dark ink on light"}
    return known[images.ink] if images.ink else "images whose ink is not known, or none"


def converted(image: np.ndarray, wanted: Preprocessing, invert: bool = False) -> np.ndarray:
    """Return a uint8 image `[h, w, 1 or 3]` as one that a network reads, see the rule of this module."""
    if image.shape != wanted.shape:
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        if image.shape[2] != wanted.channels:
            picture = picture.convert("L" if wanted.channels == 1 else "RGB")
        if picture.size != (wanted.width, wanted.height):
            nearest = wanted.binary and bool(np.isin(image, (0, 255)).all())
            way = Image.Resampling.NEAREST if nearest else Image.Resampling.LANCZOS
            picture = picture.resize((wanted.width, wanted.height), way)
        image = np.asarray(picture).reshape(wanted.shape)
    if wanted.binary:
        image = np.where(image >= HALF, 255, 0).astype(np.uint8)
    return 255 - image if invert else image


class ConvertedImages:
    """Convert images when they are read: an array `[N, height, width, channels]` uint8, to index by rows.

    A test draws fewer images than a large dataset has, so converting all of them would take longer, and fill a disk.
    """

    def __init__(self, images: np.ndarray, convert: Conversion):
        """Keep the images, which may be memory-mapped, and how they are converted."""
        self.images, self.convert = images, convert
        self.shape = (len(images), *convert.wanted.shape)
        self.dtype = np.dtype(np.uint8)
        self.nbytes = math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return the converted images at integer `rows` `[...]`, as `[..., height, width, channels]`, or of a slice."""
        rows = np.arange(len(self))[rows]
        found = np.empty((rows.size, *self.convert.wanted.shape), np.uint8)
        for place, row in enumerate(rows.ravel()):
            found[place] = self.convert(np.asarray(self.images[row]))
        return found.reshape(*rows.shape, *self.convert.wanted.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.uint8, copy=False)
