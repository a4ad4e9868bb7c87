"""Random changes of training images: the section `augment` of a spec. TensorFlow is imported by what changes images.

The changes, in this order, each with draws of its own for every image:
1. Rotation about the centre. What comes from outside of the image has the value of the background: 0, or 255 where the
   images are known to have dark ink.
2. Resized crop: a rectangle of a random area and ratio at a random place, resized bilinearly to the size of the image
   (`RandomResizedCrop` of torchvision, in the code of "A Closer Look at Few-shot Classification", Chen et al. 2019).
3. Crop at a random place after padding with the background (the code of MetaOptNet, Lee et al. 2019).
4. Flip, left to right, of every second image.
5. Brightness, contrast and saturation in a random order for each image, clipped to 0..255 after each (`ColorJitter` of
   torchvision, in MetaOptNet's code). Each is base + factor * (x - base), and the base of brightness is 0, that of
   contrast the mean of the grey image, that of saturation the grey image.

Deviations from torchvision. Changes 1 to 4 are one reading of the image, bilinear where 1 or 2 are among them, and no
step is rounded: torchvision rounds to whole numbers after each. The crop of 2 has a random place also in the rare case
that no rectangle fits in ten attempts, where torchvision takes the centre.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator

from ..options import Options

if TYPE_CHECKING:
    import tensorflow as tf

    from ..random import TaskKeys

ATTEMPTS = 10  # to draw a rectangle that fits into the image
RATIO = (3 / 4, 4 / 3)  # width over height of a resized crop, by default
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in a grey image
Share = Annotated[float, Field(gt=0, le=1)]


class Augment(Options):
    """Change training images at random; images of validation and test stay as they are.

    Each image of a task, support and query, has draws of its own. The keys are applied in the order rotation,
    resized_crop, crop_padding, flip, and then brightness, contrast and saturation in a random order.
    """

    crop_padding: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Pad each side by this many pixels of the background, and crop the image's size at a random place "
        "(Lee et al. 2019: 8 for images of 84 pixels, 4 for 32).",
        examples=[8],
    )
    resized_crop: tuple[Share, Share] | None = Field(
        default=None,
        strict=False,
        description="Crop a random rectangle whose share of the area is in this range, and resize it to the image's "
        "size (Chen et al. 2019: 0.08 to 1).",
        examples=[[0.08, 1.0]],
    )
    crop_ratio: tuple[Annotated[float, Field(gt=0, le=100)], Annotated[float, Field(gt=0, le=100)]] | None = Field(
        default=None,
        strict=False,
        description="Range of width over height of resized_crop, uniform in the logarithm. Default: 3/4 to 4/3.",
        examples=[[0.75, 1.3333]],
    )
    flip: bool | None = Field(
        default=None, description="Flip every second image, chosen at random, left to right.", examples=[True]
    )
    brightness: Share | None = Field(
        default=None,
        description="Multiply by a factor that is uniform between 1 - this and 1 + this (Lee et al. 2019: 0.4).",
        examples=[0.4],
    )
    contrast: Share | None = Field(
        default=None,
        description="Multiply by such a factor the differences from the mean of the grey image.",
        examples=[0.4],
    )
    saturation: Share | None = Field(
        default=None, description="Multiply by such a factor the differences from the grey image.", examples=[0.4]
    )
    rotation: float | None = Field(
        default=None,
        gt=0,
        le=180,
        description="Turn about the centre by an angle that is uniform between -this and this, in degrees. Corners "
        "that come from outside have the value of the background: 0, or 255 where images have dark ink.",
        examples=[15.0],
    )

    @field_validator("flip")
    @classmethod
    def _false_is_the_default(cls, flip: bool | None) -> bool | None:
        """Return null for false, so that specs that say it and specs that do not have one digest."""
        return flip or None

    def too_much_padding(self, side: int) -> str | None:
        """Return why `crop_padding` does not fit images of this side, in pixels; None if it does."""
        if self.crop_padding is None or self.crop_padding < side:
            return None
        return (
            f"is {self.crop_padding}: crops of images of {side} pixels would hold nothing but background; at most "
            f"{side - 1} here"
        )

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        dataset = experiment.dataset
        if dataset.has_images is False:
            yield "augment", f"has no effect: {dataset.name} has no images"
        elif dataset.is_grey and self.saturation is not None:
            yield "augment.saturation", f"has no effect: the images of {dataset.name} are grey"
        if (side := getattr(dataset, "image_size", None)) and (message := self.too_much_padding(side)):
            yield "augment.crop_padding", message
        for option in ("resized_crop", "crop_ratio"):
            low, high = getattr(self, option) or (0, 0)
            if low > high:
                yield f"augment.{option}", f"is [{low:g}, {high:g}]: the first number must not be the larger one"
        if self.crop_ratio is not None and self.resized_crop is None:
            yield "augment.crop_ratio", "has no effect without resized_crop"
        if all(getattr(self, option) is None for option in type(self).model_fields):
            yield "augment", f"is empty: expected one of {', '.join(type(self).model_fields)}, or `augment: null`"


def augmented(images: tf.Tensor, keys: TaskKeys, options: Augment, background: int = 0) -> tf.Tensor:
    """Return images changed at random, each by draws of its own: a pure function of the images and the keys.

    Args:
        images: uint8 `[T, n, H, W, C]`.
        keys: The keys of T tasks. The draws of a task depend on its key, and on n, not on the other tasks.
        options: The changes.
        background: The value outside of an image.

    Returns:
        float32 `[T, n, H, W, C]`, values from 0 to 255 that are not rounded.
    """
    import tensorflow as tf

    moved = _moved(images, keys, options, background)
    return _coloured(tf.cast(moved, tf.float32), keys, options)


def _moved(images: tf.Tensor, keys: TaskKeys, options: Augment, background: int) -> tf.Tensor:
    """Return images `[T, n, H, W, C]` after rotation, crops and flip."""
    import tensorflow as tf

    tasks, count, height, width, _ = images.shape
    rows = tf.broadcast_to(tf.range(height), (tasks, count, height))  # which row of the image each new row shows
    columns = tf.broadcast_to(tf.range(width), (tasks, count, width))
    if options.flip:
        flips = tf.cast(keys.bits("flip", count, 1) & tf.constant(1, tf.uint32), tf.bool)
        columns = tf.where(flips, width - 1 - columns, columns)
    if options.crop_padding is not None:
        # exact: whole numbers times 2^-32
        places = tf.floor(keys.uniform("crop", count, 2, high=2 * options.crop_padding + 1))
        offsets = tf.cast(places, tf.int32) - options.crop_padding  # [T, n, 2], from -padding to padding
        rows, columns = rows + offsets[..., :1], columns + offsets[..., 1:]
    if options.resized_crop is None and options.rotation is None:
        return _read_whole(images, rows, columns, background)
    inside = _within(rows, height)[..., None] & _within(columns, width)[..., None, :]
    rows, columns = tf.cast(rows, tf.float32), tf.cast(columns, tf.float32)
    if options.resized_crop is not None:
        top, left, high, wide = _boxes(keys, options, count, height, width)
        rows = _zoomed(rows, top, high, height)
        columns = _zoomed(columns, left, wide, width)
    y, x = tf.broadcast_to(rows[..., None], inside.shape), tf.broadcast_to(columns[..., None, :], inside.shape)
    if options.rotation is not None:
        angle = keys.uniform("rotation", count, 1, 1, low=-1.0, high=1.0) * (options.rotation * math.pi / 180)
        sine, cosine = tf.cast(tf.sin(angle), tf.float32), tf.cast(tf.cos(angle), tf.float32)
        down, right = y - (height - 1) / 2, x - (width - 1) / 2  # from the centre
        y, x = cosine * down + sine * right + (height - 1) / 2, cosine * right - sine * down + (width - 1) / 2
    return _read_between(images, tf.where(inside, y, -1.0), x, background)


def _within(places: tf.Tensor, length: int) -> tf.Tensor:
    return (places >= 0) & (places < length)


def _boxes(keys: TaskKeys, options: Augment, count: int, height: int, width: int) -> tuple[tf.Tensor, ...]:
    """Draw the rectangles of resized crops: top, left, height and width, whole numbers in float32 `[T, n, 1]` each."""
    import tensorflow as tf

    assert options.resized_crop is not None
    (least, most), (narrow, broad) = options.resized_crop, options.crop_ratio or RATIO
    draws = keys.uniform("resized-crop", count, ATTEMPTS + 1, 2)
    area = height * width * (least + (most - least) * draws[:, :, :-1, 0])  # [T, n, attempts]
    ratio = tf.exp(math.log(narrow) + (math.log(broad) - math.log(narrow)) * draws[:, :, :-1, 1])
    highs = tf.maximum(tf.round(tf.sqrt(area / ratio)), 1)
    wides = tf.maximum(tf.round(tf.sqrt(area * ratio)), 1)
    # where none fits: the largest one with a ratio of the range
    largest = min(height, max(1, round(width / narrow))), min(width, max(1, round(height * broad)))
    highs, wides = (
        tf.concat([drawn, tf.fill((*drawn.shape[:2], 1), tf.constant(full, drawn.dtype))], axis=2)
        for drawn, full in zip((highs, wides), largest, strict=True)
    )
    fits = tf.cast((highs <= height) & (wides <= width), tf.int32)  # the last one does
    first = tf.argmax(fits * tf.range(ATTEMPTS + 1, 0, -1), axis=2, output_type=tf.int32)[..., None]  # [T, n, 1]
    high, wide = tf.gather(highs, first, batch_dims=2), tf.gather(wides, first, batch_dims=2)
    top = tf.floor(draws[:, :, -1:, 0] * (height - high + 1))
    left = tf.floor(draws[:, :, -1:, 1] * (width - wide + 1))
    return tuple(tf.cast(each, tf.float32) for each in (top, left, high, wide))


def _zoomed(places: tf.Tensor, start: tf.Tensor, size: tf.Tensor, length: int) -> tf.Tensor:
    """Return which places of a crop the pixels of an image of this length show, from pixel centre to pixel centre."""
    import tensorflow as tf

    return start + tf.clip_by_value((places + 0.5) * (size / length) - 0.5, 0.0, size - 1)


def _read_whole(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, background: int) -> tf.Tensor:
    """Return the pixels of images `[T, n, H, W, C]` at whole rows `[T, n, H]` and columns `[T, n, W]`."""
    import tensorflow as tf

    height, width = images.shape[2:4]
    read = tf.gather(images, tf.clip_by_value(rows, 0, height - 1), axis=2, batch_dims=2)
    read = tf.gather(read, tf.clip_by_value(columns, 0, width - 1), axis=3, batch_dims=2)
    inside = _within(rows, height)[..., None, None] & _within(columns, width)[..., None, :, None]
    return tf.where(inside, read, tf.constant(background, read.dtype))


def _read_between(images: tf.Tensor, y: tf.Tensor, x: tf.Tensor, background: int) -> tf.Tensor:
    """Return the values of images `[T, n, H, W, C]` at rows y and columns x, float32 `[T, n, H, W]`, bilinear."""
    import tensorflow as tf

    tasks, count, height, width, channels = images.shape
    around = [[0, 0], [0, 0], [1, 1], [1, 1], [0, 0]]  # a border of background, which all that is further out reads
    bordered = tf.pad(images, around, constant_values=tf.constant(background, images.dtype))
    pixels = tf.reshape(bordered, (tasks, count, (height + 2) * (width + 2), channels))
    y, x = tf.clip_by_value(y, -1.0, height) + 1, tf.clip_by_value(x, -1.0, width) + 1
    top, left = tf.floor(y), tf.floor(x)
    read = tf.zeros(images.shape, tf.float32)
    for row, by_row in ((top, top + 1 - y), (tf.minimum(top + 1, height + 1.0), y - top)):
        for column, by_column in ((left, left + 1 - x), (tf.minimum(left + 1, width + 1.0), x - left)):
            place = tf.cast(row, tf.int32) * (width + 2) + tf.cast(column, tf.int32)
            values = tf.gather(pixels, tf.reshape(place, (tasks, count, height * width)), axis=2, batch_dims=2)
            read += (by_row * by_column)[..., None] * tf.cast(tf.reshape(values, images.shape), tf.float32)
    return read


def _coloured(images: tf.Tensor, keys: TaskKeys, options: Augment) -> tf.Tensor:
    """Return images, float32 `[T, n, H, W, C]`, after brightness, contrast and saturation."""
    import tensorflow as tf

    widths = (options.brightness, options.contrast, options.saturation)
    given = [number for number, width in enumerate(widths) if width is not None]
    if not given:
        return images
    count = images.shape[1]
    spread = tf.constant([width or 0.0 for width in widths], tf.float64)
    factors = tf.cast(1 + spread * keys.uniform("colour", count, 3, low=-1.0, high=1.0), tf.float32)  # [T, n, 3]
    order = tf.gather(tf.constant(given), keys.distinct("colour-order", len(given), len(given), count))  # [T, n, given]
    for turn in range(len(given)):
        number = order[..., turn]
        factor = tf.gather(factors, number, batch_dims=2)[..., None, None, None]
        kind, grey = number[..., None, None, None], _grey(images)
        mean = tf.reduce_mean(grey, axis=[2, 3, 4], keepdims=True)
        base = tf.where(kind == 0, 0.0, tf.where(kind == 1, mean, grey))
        images = tf.clip_by_value(base + factor * (images - base), 0.0, 255.0)
    return images


def _grey(images: tf.Tensor) -> tf.Tensor:
    """Return grey images `[..., 1]`: the luma of RGB; of other numbers of channels their mean."""
    import tensorflow as tf

    if images.shape[-1] != len(LUMA):
        return tf.reduce_mean(images, axis=-1, keepdims=True)
    return tf.reduce_sum(images * tf.constant(LUMA), axis=-1, keepdims=True)
