"""Images of shuffled epochs, on which classifiers are trained."""

import numpy as np
import tensorflow as tf

from metarun.datasets.images.augmentation import Augment
from metarun.datasets.images.source import ClassPool, ImageSource
from metarun.datasets.tasks import ImageStream

COUNTS = np.array([3, 5, 2])


def source_of(rotations="none", **more):
    """Return a source whose images tell their number in the pool, in the first pixel."""
    images = np.zeros((10, 4, 4, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(10) + 1
    pool = ClassPool(images, COUNTS, ("a", "b", "c"))
    return ImageSource("numbered", {"train": pool}, rotations={"train": rotations}, **more)


def numbers_of(batch):
    return np.rint(batch.x.numpy().max(axis=(1, 2, 3)) * 255).astype(int) - 1


def test_each_epoch_has_each_image_once_in_a_new_order_with_its_class():
    """Reject images drawn with replacement, one order for all epochs, and classes of images in the order drawn."""
    stream = ImageStream(source_of(), "train", 0)
    first, second = (stream.sample(10 * epoch, 10) for epoch in range(2))
    for epoch in (first, second):
        assert sorted(numbers_of(epoch)) == list(range(10))
        np.testing.assert_array_equal(epoch.y, np.repeat([0, 1, 2], COUNTS)[numbers_of(epoch)])
    assert (numbers_of(first) != numbers_of(second)).any()
    other = ImageStream(source_of(), "train", 1).sample(0, 10)
    assert (numbers_of(first) != numbers_of(other)).any()


def test_a_batch_may_end_one_epoch_and_begin_the_next():
    stream = ImageStream(source_of(), "train", 0)
    whole = np.concatenate([numbers_of(stream.sample(0, 10)), numbers_of(stream.sample(10, 10))])
    parts = np.concatenate([numbers_of(stream.sample(first, 4)) for first in range(0, 20, 4)])
    np.testing.assert_array_equal(parts, whole)


def test_images_on_the_disk_and_in_a_traced_program_are_the_same():
    memory, disk = (ImageStream(source_of(in_memory=where), "train", 3) for where in (True, False))
    traced = tf.function(lambda number: disk.sample(number, 7), autograph=False)(tf.constant(5, tf.int64))
    for one, other in zip(memory.sample(5, 7), traced, strict=True):
        np.testing.assert_array_equal(one, other)


def test_turns_that_are_classes_are_images_of_their_own():
    """Reject turns without classes of their own, and a turn to the other side."""
    source = source_of("classes")
    assert source.size("train") == 40
    epoch = ImageStream(source, "train", 0).sample(0, 40)
    corner = epoch.x.numpy()[..., 0]
    corners = {0: (0, 0), 1: (3, 0), 2: (3, 3), 3: (0, 3)}  # counter-clockwise
    for image, label, number in zip(corner, epoch.y.numpy(), numbers_of(epoch), strict=True):
        turn, kind = divmod(int(label), 3)
        assert kind == np.repeat([0, 1, 2], COUNTS)[number]
        assert image[corners[turn]] > 0
    assert sorted(epoch.y.numpy()) == sorted(np.tile(np.repeat([0, 1, 2], COUNTS), 4) + np.repeat(range(4), 10) * 3)


def test_images_by_their_place_are_those_of_the_pool():
    x, y = source_of().labelled("train", tf.constant([0, 4, 9]))
    np.testing.assert_array_equal(np.rint(x.numpy()[:, 0, 0, 0] * 255), [1, 5, 10])
    np.testing.assert_array_equal(y, [0, 1, 2])


def test_random_changes_are_those_of_the_number_of_an_image():
    """Reject draws of the epoch, which all its images would share, and of the place in a batch."""
    augment = Augment(brightness=0.9)
    stream = ImageStream(source_of(), "train", 0, augment)
    plain = ImageStream(source_of(), "train", 0).sample(0, 20)
    whole = stream.sample(0, 20)
    np.testing.assert_array_equal(whole.y, plain.y)
    parts = [stream.sample(first, 4).x.numpy() for first in range(0, 20, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole.x)
    factors = whole.x.numpy().max(axis=(1, 2, 3)) / plain.x.numpy().max(axis=(1, 2, 3))
    assert len(set(np.round(factors, 4))) == 20 and 0.1 <= factors.min() < factors.max() <= 1.9
    assert whole.drawn.shape[1] > plain.drawn.shape[1]
