"""Episodes from classes of images, as a pure function of (seed, split, index).

An episode draws `way` classes without replacement, and from each class shot + query images without replacement; the
first `shot` are the support. Labels are the order in which the classes were drawn, so they are independent of any order
of the classes themselves. Where the classes of a pool have groups, all classes of a task are of one group. The group is
drawn first; groups with at least `way` classes are equally likely. A turned class belongs to its group at that angle,
which is a group of its own.
"""

from __future__ import annotations

import mmap
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf

from ..errors import DataError, counted, first_of
from ..random import TaskKeys
from ..tasks import Episode, LabelledImages, Shape, Split, TaskSource
from .augmentation import Augment, augmented
from .preprocessing import Convert, ConvertedImages, Ink, Preprocessing, conversion

Rotations = Literal["none", "classes", "per-task"]
DEVICE_BYTES = 4 * 2**30  # "auto": a pool up to this size is held in memory as one tensor
CONVERTED_BYTES = 64 * 2**20  # up to this size the images of another dataset are converted once, and held in memory
TOO_FEW_SHOWN = 20  # classes that an error names


class ClassPool(NamedTuple):
    """Hold the images of one split."""

    images: np.ndarray  # [N, H, W, C] uint8, one class after the other; may be memory-mapped
    counts: np.ndarray  # [classes] images of each class
    names: tuple[str, ...]  # one per class
    groups: tuple[str, ...] = ()  # one per class: all classes of a task are of one group; (): of any
    kind: str = "group"  # what a group is, for messages


class ImageSource(TaskSource):
    """Sample few-shot classification tasks from pools of uint8 images, as a `TaskSource`.

    Images are returned as (x / 255 - mean) / std.

        import numpy as np
        from metarun.datasets.images.source import ClassPool, ImageSource
        from metarun.datasets.tasks import Shape

        images = np.zeros((60, 28, 28, 1), np.uint8)  # 3 classes of 20 images, one class after the other
        pool = ClassPool(images, np.full(3, 20), ("cat", "dog", "owl"))
        source = ImageSource("animals", {"train": pool})
        batch = source.sample("train", 0, 4, Shape(way=2, shot=1, query=5), seed=0)
        batch.query_x.shape  # [4, 10, 28, 28, 1]
    """

    regression = False
    target_shape: tuple[int, ...] = ()

    def __init__(
        self,
        name: str,
        pools: Mapping[Split, ClassPool],
        *,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        rotations: Mapping[Split, Rotations] | None = None,
        in_memory: bool | Literal["auto"] = "auto",
        content_digest: str = "",
        former_digest: str = "",
        dtype: str = "float32",
        ink: Ink | None = None,
        binary: bool = False,
        bits: int | None = None,
    ):
        """Keep the pools; `sample` reads the images.

        Args:
            name: The name of the source, for messages.
            pools: The images of each split.
            mean: The mean of each channel, or one for all, of pixels from 0 to 1.
            std: The standard deviation, likewise.
            rotations: The turns by 0, 90, 180 and 270 degrees in each split. "none" (the default); "classes": each turn
                is a separate class with number class + turn * classes; "per-task": one turn is drawn for each class of
                each task.
            in_memory: Whether the images are one tensor in memory; "auto": up to 4 GiB. Otherwise `sample` reads them
                from the arrays.
            content_digest: The digest of data that the spec does not determine, such as a user's folder.
            former_digest: The digest that an older version gave to the same data.
            dtype: The dtype of the inputs.
            ink: Of drawings: "light" ink on dark, or "dark" on light, in the uint8 images. None: not known, or no ink.
            binary: Whether all values of the uint8 images are 0 or 255.
            bits: The significant bits of 16-bit files, for files that a trained network is given.
        """
        self.name = name
        self.content_digest = content_digest
        self.former_digest = former_digest
        self.pools = dict(pools)
        self.dtype = tf.as_dtype(dtype)
        self.rotations: dict[Split, Rotations] = {split: (rotations or {}).get(split, "none") for split in pools}
        self.input_shape: tuple[int, ...] = tuple(next(iter(pools.values())).images.shape[1:])
        size = sum(pool.images.nbytes for pool in pools.values())
        self.in_memory = size <= DEVICE_BYTES if in_memory == "auto" else in_memory
        height, width, channels = self.input_shape
        self.preprocessing = Preprocessing(
            height=height,
            width=width,
            channels=channels,
            mean=tuple(map(float, mean)),
            std=tuple(map(float, std)),
            ink=ink,
            binary=binary,
            bits=bits,
        )
        self._resident: dict[Split, tf.Tensor] = {}

    def classes(self, split: Split) -> int:
        """Return the number of classes to draw from, including turns that are classes."""
        turns = 4 if self.rotations[split] == "classes" else 1
        return turns * len(self.pools[split].counts)

    def check(self, split: Split, shape: Shape) -> None:
        """Raise DataError unless `split` has enough classes, and every class enough images."""
        if split not in self.pools:
            way_out = "set `validation: null`, or add classes to val" if split == "val" else "add classes"
            raise DataError(f"{self.name} has no {split} classes: {way_out}")
        pool, need = self.pools[split], shape.shot + shape.query
        if self.classes(split) < shape.way:
            raise DataError(
                f"{self.name}: {split} has {counted(self.classes(split), 'class', 'classes')}, "
                f"fewer than way {shape.way}: lower way, or add classes"
            )
        if pool.groups:
            self._check_groups(split, shape.way)
        if len(few := np.flatnonzero(pool.counts < need)):
            shown = first_of([f"{pool.names[number]} {pool.counts[number]}" for number in few], TOO_FEW_SHOWN)
            classes = f"{split} class has" if len(few) == 1 else f"{split} classes have"
            raise DataError(
                f"{self.name}: {len(few)} {classes} fewer images than shot + query = {shape.shot} + {shape.query}: "
                f"{shown}; lower them, or add images"
            )

    def sample(
        self,
        split: Split,
        index: tf.Tensor | int,
        tasks: int,
        shape: Shape,
        seed: int,
        augment: Augment | None = None,
    ) -> Episode:
        """Sample tasks `index` to `index + tasks - 1`, see `TaskSource`, with random changes of the images."""
        way, shot, query = shape
        pool, mode = self.pools[split], self.rotations[split]
        distinct_classes = len(pool.counts)
        keys = TaskKeys.of_stream(seed, split, index, tasks)
        classes = self._draw_classes(keys, split, way)  # [T, way]
        base = classes % distinct_classes
        if mode == "per-task":
            turns = tf.cast(keys.bits("turns", way) & tf.constant(3, tf.uint32), tf.int32)  # [T, way]
        else:
            turns = classes // distinct_classes
        counts = tf.gather(tf.constant(pool.counts, tf.int32), base)
        chosen = keys.distinct("images", int(pool.counts.max()), shot + query, way, counts=counts)
        first = np.concatenate([[0], np.cumsum(pool.counts)[:-1]])
        rows = tf.gather(tf.constant(first, tf.int32), base)[..., None] + chosen  # [T, way, shot + query]
        images = self._turned(split, rows, turns)  # [T, way, shot + query, H, W, C]
        drawn = [classes, turns, tf.reshape(rows, (tasks, -1))]
        if augment is not None:
            images = self._augmented(images, keys, augment)
            drawn += [_words_of(keys)]
        support, queries = images[:, :, :shot], images[:, :, shot:]
        return Episode(
            self._as_input(support, tasks, way * shot),
            tf.tile(tf.repeat(tf.range(way), shot)[None], (tasks, 1)),
            self._as_input(queries, tasks, way * query),
            tf.tile(tf.repeat(tf.range(way), query)[None], (tasks, 1)),
            classes,
            tf.concat(drawn, axis=1),
        )

    def size(self, split: Split) -> int:
        """Return the number of images, including turns that are classes."""
        turns = 4 if self.rotations[split] == "classes" else 1
        return turns * int(self.pools[split].counts.sum())

    def shuffled(
        self, split: Split, index: tf.Tensor | int, images: int, seed: int, augment: Augment | None = None
    ) -> LabelledImages:
        """Draw images `index` to `index + images - 1` of the shuffled epochs of a split, see `ImageStream`.

        A turn that would be drawn for each class of each task is not made: there are no tasks.
        """
        number = tf.cast(index, tf.int64) + tf.range(images, dtype=tf.int64)
        size = self.size(split)
        place = TaskKeys.of_numbers(seed, split, number // size).permuted(
            "order", size, tf.cast(number % size, tf.int32)
        )
        pixels, y = self._labelled(split, place)
        drawn = [place[:, None]]
        if augment is not None:
            keys = TaskKeys.of_stream(seed, split, index, images)
            pixels = self._augmented(pixels, keys, augment)
            drawn += [_words_of(keys)]
        return LabelledImages(self._as_input(pixels, images, 1)[:, 0], y, tf.concat(drawn, axis=1))

    def labelled(self, split: Split, place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the inputs `[N, *x]` and classes `[N]` of images by their places, int32 `[N]`, below `size`.

        Places are those of the pool; with turns as classes all images unturned come first, then all turned by 90
        degrees, and so on.
        """
        pixels, classes = self._labelled(split, place)
        return self._as_input(pixels, place.shape[0], 1)[:, 0], classes

    def _labelled(self, split: Split, place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return uint8 images `[N, 1, 1, H, W, C]` and classes `[N]`, see `labelled`."""
        pool = self.pools[split]
        unturned = len(pool.images)
        row, turn = place % unturned, place // unturned
        ends = tf.constant(np.cumsum(pool.counts), tf.int32)
        classes = tf.searchsorted(ends, row, side="right") + turn * len(pool.counts)
        images = self._gather(split, row)[:, None, None]
        if self.rotations[split] == "classes":
            images = _turn(images, turn[:, None])
        return images, classes

    def _draw_classes(self, keys: TaskKeys, split: Split, way: int) -> tf.Tensor:
        """Draw the classes of tasks, `[T, way]`; those of a task are of one group where the pool has groups."""
        pool = self.pools[split]
        if not pool.groups:
            return keys.distinct("classes", self.classes(split), way)
        names = np.asarray(pool.groups)
        large = [np.flatnonzero(names == name) for name, size in sorted(Counter(pool.groups).items()) if size >= way]
        sizes = [len(members) for members in large]
        table = np.stack([np.pad(members, (0, max(sizes) - len(members))) for members in large])
        turns = self.classes(split) // len(pool.counts)
        group = keys.distinct("groups", turns * len(large), 1)[:, 0]  # [T]
        number = group % len(large)
        chosen = keys.distinct("classes", max(sizes), way, counts=tf.gather(tf.constant(sizes, tf.int32), number))
        members = tf.gather(tf.gather(tf.constant(table, tf.int32), number), chosen, batch_dims=1)
        return members + (group // len(large) * len(pool.counts))[:, None]

    def _check_groups(self, split: Split, way: int) -> None:
        """Raise DataError unless a group has `way` classes; name those that have fewer, once, on standard error."""
        pool = self.pools[split]
        sizes = Counter(pool.groups)
        small = [f"{name} {size}" for name, size in sorted(sizes.items()) if size < way]
        if len(small) == len(sizes):
            largest, size = sizes.most_common(1)[0]
            raise DataError(
                f"{self.name}: no {pool.kind} of {split} has {way} classes, the largest is {largest} with {size}: "
                "lower way"
            )
        if small:
            _tell(
                f"warning: {self.name}: {len(small)} of {len(sizes)} {pool.kind}s of {split} have fewer than {way} "
                f"classes and are skipped: {', '.join(small)}"
            )

    def pixels(self, x: tf.Tensor) -> np.ndarray:
        """Return the images of inputs, from 0 to 1."""
        return self.preprocessing.pixels(x)

    def class_names(self, split: Split, batch: Episode) -> list[list[str]]:
        """Return the name of each class of each task, with its turn."""
        names, way = self.pools[split].names, batch.classes.shape[1]
        classes, turns = np.asarray(batch.classes), np.asarray(batch.drawn)[:, way : 2 * way]
        return [
            [
                names[number % len(names)] + (f", turned by {90 * turn}" if turn else "")
                for number, turn in zip(*task, strict=True)
            ]
            for task in zip(classes, turns, strict=True)
        ]

    def as_images_of(self, network: ImageSource, split: Split, convert: Convert | None = None) -> ImageSource:
        """Return one split of this source with images as a network that was trained on another source reads them.

        Args:
            network: The source that the network was trained on.
            split: The split to keep, which this source has.
            convert: "invert": exchange light and dark; "as-is": do not; None: as the polarity of the ink says.

        Raises:
            DataError: The conversion cannot be decided, or does not exist, see `preprocessing.conversion`.
        """
        pool, wanted = self.pools[split], network.preprocessing
        try:
            way = conversion(self.preprocessing, wanted, convert)
        except DataError as error:
            raise DataError(f"{self.name} {error}") from None
        images: Any = ConvertedImages(pool.images, way) if way.changes_pixels else pool.images
        small = self.in_memory and (not way.changes_pixels or images.nbytes <= CONVERTED_BYTES)
        return ImageSource(
            self.name,
            {split: pool._replace(images=images)},
            mean=wanted.mean,
            std=wanted.std,
            rotations=self.rotations,
            in_memory=small,
            content_digest=self.content_digest,
            former_digest=self.former_digest,
            dtype=network.dtype.name,
            ink=wanted.ink,
            binary=wanted.binary,
            bits=wanted.bits,
        )

    def _turned(self, split: Split, rows: tf.Tensor, turns: tf.Tensor) -> tf.Tensor:
        """Return uint8 images `[T, way, n, H, W, C]` of rows `[T, way, n]`, turned as the split turns its classes."""
        images = self._gather(split, rows)
        return images if self.rotations[split] == "none" else _turn(images, turns)

    def _gather(self, split: Split, rows: tf.Tensor) -> tf.Tensor:
        """Return uint8 images `[*rows.shape, H, W, C]`."""
        if self.in_memory:
            if split not in self._resident:
                with tf.init_scope():
                    self._resident[split] = _in_memory(self.pools[split].images)
            return tf.gather(self._resident[split], tf.cast(rows, tf.int64))  # int64 for more than 2 GiB of images
        images = self.pools[split].images
        gathered = tf.numpy_function(lambda chosen: np.asarray(images[chosen]), [rows], tf.uint8, stateful=False)
        return tf.ensure_shape(gathered, (*rows.shape, *self.input_shape))

    def _augmented(self, images: tf.Tensor, keys: TaskKeys, augment: Augment) -> tf.Tensor:
        """Return uint8 images `[T, ..., H, W, C]` of tasks with these keys after random changes, float32."""
        background = 255 if self.preprocessing.ink == "dark" else 0
        flat = tf.reshape(images, (keys.tasks, -1, *self.input_shape))
        return tf.reshape(augmented(flat, keys, augment, background), images.shape)

    def _as_input(self, images: tf.Tensor, tasks: int, each: int) -> tf.Tensor:
        return self.preprocessing.as_input(tf.reshape(images, (tasks, each, *self.input_shape)), self.dtype)


def _words_of(keys: TaskKeys) -> tf.Tensor:
    """Return the keys, which decide random changes, as int32 `[T, 2]`."""
    return tf.stack([tf.bitcast(word, tf.int32) for word in keys.key], axis=1)


def _in_memory(images: np.ndarray) -> tf.Tensor:
    """Return images as a tensor. The pages of a mapped file that were read for it do not stay in memory."""
    tensor = tf.constant(np.asarray(images))
    pages = getattr(images, "_mmap", None)
    if pages is not None and hasattr(pages, "madvise"):
        pages.madvise(mmap.MADV_DONTNEED)
    return tensor


@cache
def _tell(line: str) -> None:
    """Print a line on standard error, once in a process, which builds the source anew for every run."""
    print(line, file=sys.stderr)


def _turn(images: tf.Tensor, turns: tf.Tensor) -> tf.Tensor:
    """Rotate square images `[T, way, n, H, W, C]` counter-clockwise by 90 degrees x turns `[T, way]`."""
    flipped = tf.reverse(images, [-2])
    transposed = tf.transpose(images, (0, 1, 2, 4, 3, 5))
    turned = tf.reverse(transposed, [-3])
    choices = tf.stack([images, turned, tf.reverse(flipped, [-3]), tf.reverse(transposed, [-2])])
    tasks, way = turns.shape
    picked = tf.stack([turns, *tf.meshgrid(tf.range(tasks), tf.range(way), indexing="ij")], axis=-1)
    return tf.gather_nd(choices, picked)
