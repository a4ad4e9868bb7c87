"""Random changes of training images: each operation against plain numpy, the draws, and that nothing else changes."""

import math

import numpy as np
import pytest
import tensorflow as tf

from metarun.datasets.images.augmentation import ATTEMPTS, Augment, augmented
from metarun.datasets.random import TaskKeys
from metarun.datasets.tasks import EpisodeStream, ImageStream, Shape

EVERYTHING = Augment(
    crop_padding=2,
    resized_crop=(0.2, 0.9),
    flip=True,
    brightness=0.4,
    contrast=0.5,
    saturation=0.9,
    rotation=40.0,
)
CHANGES = {
    "crop": Augment(crop_padding=2),
    "crop and flip": Augment(crop_padding=3, flip=True),
    "resized crop": Augment(resized_crop=(0.1, 0.6), crop_ratio=(0.5, 2.0)),
    "rotation": Augment(rotation=90.0),
    "brightness": Augment(brightness=0.7),
    "contrast": Augment(contrast=0.9),
    "saturation": Augment(saturation=1.0),
    "colours": Augment(brightness=0.4, contrast=0.4, saturation=0.4),
    "everything": EVERYTHING,
}


def keys_of(index=0, tasks=2, seed=0):
    return TaskKeys.of_stream(seed, "train", index, tasks)


def pictures(tasks=2, count=3, size=(9, 8), channels=3):
    """Return uint8 images `[T, n, H, W, C]` of noise."""
    return np.random.default_rng(0).integers(0, 256, (tasks, count, *size, channels), dtype=np.uint8)


def pixel(image, row, column, background):
    inside = 0 <= row < image.shape[0] and 0 <= column < image.shape[1]
    return image[row, column] if inside else np.full(image.shape[2], background, np.float64)


def between(image, y, x, background):
    """Return the bilinear value at a real place of an image `[H, W, C]` that lies on an endless background."""
    top, left = math.floor(y), math.floor(x)
    down, right = y - top, x - left
    above = (1 - right) * pixel(image, top, left, background) + right * pixel(image, top, left + 1, background)
    below = (1 - right) * pixel(image, top + 1, left, background) + right * pixel(image, top + 1, left + 1, background)
    return (1 - down) * above + down * below


def rectangle(draws, options, height, width):
    """Return top, left, height and width of a resized crop from its draws `[attempts + 1, 2]`."""
    low, high = options.resized_crop
    narrow, broad = options.crop_ratio or (3 / 4, 4 / 3)
    for area, ratio in draws[:-1]:
        area = (low + (high - low) * area) * height * width
        ratio = math.exp(math.log(narrow) + (math.log(broad) - math.log(narrow)) * ratio)
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 1 <= wide <= width and 1 <= tall <= height:
            break
    else:
        raise AssertionError("none fits: a case of its own")
    down, right = draws[-1]
    return math.floor(down * (height - tall + 1)), math.floor(right * (width - wide + 1)), tall, wide


def grey(image):
    return image @ [0.299, 0.587, 0.114] if image.shape[-1] == 3 else image.mean(axis=-1)


def recoloured(image, kind, factor):
    """Return an image after one change of its colours."""
    if kind == "brightness":
        changed = factor * image
    elif kind == "contrast":
        mean = grey(image).mean()
        changed = mean + factor * (image - mean)
    else:
        changed = grey(image)[..., None] + factor * (image - grey(image)[..., None])
    return np.clip(changed, 0, 255)


def draws_of(keys, options, count):
    """Return the draws of each image as numpy arrays `[T, n, ...]`, by the names of the operations."""
    given = [kind for kind in ("brightness", "contrast", "saturation") if getattr(options, kind)]
    return {
        "flip": keys.bits("flip", count, 1).numpy()[..., 0] % 2 == 1,
        "crop": keys.uniform("crop", count, 2).numpy(),
        "rectangle": keys.uniform("resized-crop", count, ATTEMPTS + 1, 2).numpy(),
        "angle": keys.uniform("rotation", count, 1, 1, low=-1.0, high=1.0).numpy()[..., 0, 0],
        "factor": keys.uniform("colour", count, 3, low=-1.0, high=1.0).numpy(),
        "order": keys.distinct("colour-order", len(given), len(given), count).numpy() if given else None,
    }


def expected(image, options, draws, background=0):
    """Return one image `[H, W, C]` after one operation after the other, pixel by pixel, in float64."""
    image = image.astype(np.float64)
    height, width, _ = image.shape
    center = np.array([(height - 1) / 2, (width - 1) / 2])

    def rotated(y, x):
        if options.rotation is None:
            return between(image, y, x, background)
        angle = math.radians(options.rotation * draws["angle"])
        down, right = (y, x) - center
        turned = down * math.cos(angle) + right * math.sin(angle), right * math.cos(angle) - down * math.sin(angle)
        return between(image, *(turned + center), background)

    def resized(row, column):
        if options.resized_crop is None:
            return rotated(row, column)
        top, left, tall, wide = rectangle(draws["rectangle"], options, height, width)
        y = min(max((row + 0.5) * tall / height - 0.5, 0), tall - 1)
        x = min(max((column + 0.5) * wide / width - 0.5, 0), wide - 1)
        return rotated(top + y, left + x)

    def cropped(row, column):
        if options.crop_padding is not None:
            offset = np.floor(draws["crop"] * (2 * options.crop_padding + 1)).astype(int) - options.crop_padding
            row, column = row + offset[0], column + offset[1]
        if not (0 <= row < height and 0 <= column < width):
            return np.full(image.shape[2], background, np.float64)
        return resized(row, column)

    def flipped(row, column):
        return cropped(row, width - 1 - column if options.flip and draws["flip"] else column)

    moved = np.array([[flipped(row, column) for column in range(width)] for row in range(height)])
    kinds = ("brightness", "contrast", "saturation")
    given = [kind for kind in kinds if getattr(options, kind)]
    for turn in range(len(given)):
        kind = given[draws["order"][turn]]
        moved = recoloured(moved, kind, 1 + getattr(options, kind) * draws["factor"][kinds.index(kind)])
    return moved


def all_expected(images, options, background=0, keys=None):
    drawn = draws_of(keys or keys_of(), options, images.shape[1])
    return np.array([
        [
            expected(
                image, options, {name: each[t, n] for name, each in drawn.items() if each is not None}, background
            )
            for n, image in enumerate(task)
        ]
        for t, task in enumerate(images)
    ])  # fmt: skip


@pytest.mark.parametrize("background", [0, 255])
@pytest.mark.parametrize("name", CHANGES)
def test_each_operation_is_that_of_numpy(name, background):
    """Compare for the draws of the keys; wrong: the draws of another task, and a black border where it is white."""
    options, images = CHANGES[name], pictures()
    found = augmented(tf.constant(images), keys_of(), options, background)
    assert found.shape == images.shape and found.dtype == tf.float32
    np.testing.assert_allclose(found, all_expected(images, options, background), atol=2e-2)
    assert np.abs(found - all_expected(images, options, background, keys_of(1))).max() > 10
    if options.crop_padding or options.rotation:
        assert np.abs(found - all_expected(images, options, 255 - background)).max() > 100


@pytest.mark.parametrize("channels", [1, 2])
def test_other_numbers_of_channels(channels):
    """Check that contrast is about the mean of all channels."""
    options, images = Augment(contrast=0.9, brightness=0.5, flip=True), pictures(channels=channels)
    found = augmented(tf.constant(images), keys_of(), options)
    np.testing.assert_allclose(found, all_expected(images, options), atol=1e-3)


def test_whole_moves_keep_every_value():
    """Reject rounding: a crop after padding, and a flip, are exact."""
    images = pictures()
    found = augmented(tf.constant(images), keys_of(), Augment(crop_padding=2, flip=True)).numpy()
    np.testing.assert_array_equal(found, all_expected(images, Augment(crop_padding=2, flip=True)))


def test_a_crop_that_never_fits_is_the_largest_one():
    """Check the ratio 4 in a square: all of the width, a quarter of the height. Reject a rectangle larger than it."""
    ramp = np.tile(np.arange(8, dtype=np.uint8)[:, None, None] * 30, (1, 1, 1, 8, 3))
    options = Augment(resized_crop=(1.0, 1.0), crop_ratio=(4.0, 4.0))
    found = augmented(tf.constant(np.tile(ramp, (40, 2, 1, 1, 1))), keys_of(tasks=40), options).numpy()
    assert found.shape == (40, 2, 8, 8, 3) and np.ptp(found, axis=3).max() == 0
    heights = np.ptp(found, axis=2)[:, :, 0, 0]
    np.testing.assert_array_equal(heights, 30)  # two rows
    assert {0, 180} <= set(found[:, :, 0, 0, 0].ravel()), "the first and the last place"


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_image_is_a_function_of_its_task_alone(compiled):
    """Reject draws that depend on the other tasks of the batch, or are the same in every step."""
    images = tf.constant(pictures(tasks=4))

    def change(images, index):
        return augmented(images, keys_of(index, images.shape[0]), EVERYTHING)

    program = tf.function(change, autograph=False, jit_compile=compiled)
    together, step = program(images, tf.constant(10, tf.int64)).numpy(), tf.constant(12, tf.int64)
    alone = program(images[2:3], step).numpy()
    np.testing.assert_allclose(alone, together[2:3], atol=1e-2)
    among = tf.concat([images[2:3], 255 - images[:1]], axis=0)
    np.testing.assert_allclose(program(among, step)[:1], alone, atol=1e-2)
    np.testing.assert_allclose(change(images, 10), together, atol=1e-2)
    assert np.abs(program(images, tf.constant(11, tf.int64)) - together).max() > 50
    assert np.abs(augmented(images, keys_of(10, 4, seed=1), EVERYTHING) - together).max() > 50
    same = augmented(tf.tile(images[:1, :1], (1, 3, 1, 1, 1)), keys_of(10, 1), EVERYTHING).numpy()[0]
    assert min(np.abs(same[a] - same[b]).max() for a, b in ((0, 1), (0, 2), (1, 2))) > 50, "each has draws of its own"


def chi_square(values, cells):
    """Return the statistic of the hypothesis that whole numbers below `cells` are equally likely."""
    counts = np.bincount(values, minlength=cells)
    share = len(values) / cells
    return ((counts - share) ** 2 / share).sum()


def test_offsets_are_uniform_and_reach_both_ends():
    """Read the offset from the pixel in the middle. Reject a crop that never reaches the last offset."""
    numbers = np.arange(49, dtype=np.uint8).reshape(7, 7, 1)
    images = np.tile(numbers, (1000, 2, 1, 1, 1))
    found = augmented(tf.constant(images), keys_of(tasks=1000), Augment(crop_padding=2)).numpy().astype(int)
    middle = found[:, :, 3, 3, 0].ravel()
    places = (middle // 7 - 1) * 5 + middle % 7 - 1  # of 5 x 5
    assert set(places) == set(range(25)) and chi_square(places, 25) < 51.2  # the 99.9% quantile of 24 degrees
    wrong = places[(places // 5 < 4) & (places % 5 < 4)]
    assert chi_square(wrong, 25) > 51.2
    assert (middle.reshape(1000, 2)[:, 0] == middle.reshape(1000, 2)[:, 1]).mean() < 0.1  # one draw for a task: 1


def test_half_of_the_images_are_flipped_each_by_its_own_draw():
    """Reject one draw for a whole task, and a flip of every image."""
    images = np.tile(np.arange(2, dtype=np.uint8).reshape(1, 2, 1), (1000, 2, 1, 1, 1))
    flips = augmented(tf.constant(images), keys_of(tasks=1000), Augment(flip=True)).numpy()[:, :, 0, 0, 0] == 1
    assert abs(flips.mean() - 0.5) < 0.04 and abs((flips[:, 0] != flips[:, 1]).mean() - 0.5) < 0.06


def test_angles_are_uniform_between_both_ends():
    """Read the angle from a ramp, whose gradient turns. Reject angles of one sign, and those of a normal law."""
    ramp = np.tile((20 * np.arange(9, dtype=np.uint8) + 40)[None, :, None], (400, 2, 9, 1, 1))
    found = augmented(tf.constant(ramp), keys_of(tasks=400), Augment(rotation=30.0)).numpy()[..., 0]
    middle = found[:, :, 4, 4]
    angles = np.degrees(np.arctan2(middle - found[:, :, 5, 4], found[:, :, 4, 5] - middle)).ravel()
    assert -30 <= angles.min() < -29 and 29 < angles.max() <= 30
    assert chi_square(((angles + 30) // 6).astype(int).clip(0, 9), 10) < 27.9
    assert abs(np.corrcoef(angles.reshape(400, 2).T)[0, 1]) < 0.2


def test_rectangles_have_the_areas_and_ratios_of_the_options():
    """Read their size from ramps of rows and columns. Reject ratios uniform in themselves, whose logarithm is askew."""
    size = 64
    rows, columns = np.meshgrid(3 * np.arange(size), 3 * np.arange(size), indexing="ij")
    images = np.tile(np.stack([rows, columns, rows], axis=-1).astype(np.uint8), (200, 2, 1, 1, 1))
    options = Augment(resized_crop=(0.25, 0.5), crop_ratio=(0.5, 2.0))
    found = augmented(tf.constant(images), keys_of(tasks=200), options).numpy() / 3
    tall, wide = (
        np.rint((found[:, :, 40, 40, axis] - found[:, :, 24, 24, axis]) * size / 16).ravel() for axis in (0, 1)
    )
    area, ratio = tall * wide / size**2, np.log(wide / tall)
    assert 0.235 < area.min() < 0.27 and 0.48 < area.max() < 0.52 and abs(area.mean() - 0.375) < 0.02
    assert -0.73 < ratio.min() < -0.6 and 0.6 < ratio.max() < 0.73 and abs(ratio.mean()) < 0.07
    assert np.log(np.random.default_rng(0).uniform(0.5, 2, 400)).mean() > 0.1  # the wrong variant
    top, left = (found[:, :, 0, 0, axis].ravel() for axis in (0, 1))
    for start, length in ((top, tall), (left, wide)):
        assert start.min() < 0.5 and (start + length).max() > size - 0.5, "the first and the last place"


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
def test_factors_fill_their_range(kind):
    """Read the factor from an image of two colours. Reject a factor of 1 or more only, and one for a whole task."""
    image = np.full((2, 2, 3), (100, 120, 110), np.uint8)
    image[1] += 10
    images = np.tile(image, (400, 2, 1, 1, 1))
    found = augmented(tf.constant(images), keys_of(tasks=400), Augment(**{kind: 0.4})).numpy()
    factors = {
        "brightness": found[:, :, 0, 0, 0] / 100,
        "contrast": (found[:, :, 1, 0, 0] - found[:, :, 0, 0, 0]) / 10,
        "saturation": (found[:, :, 0, 0, 1] - found[:, :, 0, 0, 0]) / 20,
    }[kind]
    assert 0.599 < factors.min() < 0.61 and 1.39 < factors.max() < 1.401 and abs(factors.mean() - 1) < 0.04
    assert chi_square(((factors.ravel() - 0.6) / 0.08).astype(int).clip(0, 9), 10) < 27.9
    assert abs(np.corrcoef(factors.T)[0, 1]) < 0.2


def test_every_order_of_the_colours_is_taken():
    """Count those that the draws give. Reject a fixed order, and orders of one task alike."""
    order = keys_of(tasks=600).distinct("colour-order", 3, 3, 2).numpy()
    numbers = (order @ [9, 3, 1]).reshape(600, 2)
    kinds = np.unique(numbers)
    assert len(kinds) == 6 and chi_square(np.searchsorted(kinds, numbers).ravel(), 6) < 20.5
    assert (numbers[:, 0] == numbers[:, 1]).mean() < 0.25


SHAPE = Shape(way=3, shot=2, query=2)
SMALL = Augment(crop_padding=3, flip=True, brightness=0.4)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_training_task_keeps_its_classes_and_labels(make_source, in_memory):
    """Reject changed images of support or queries alone, and a change that is the same in both."""
    source = make_source(in_memory=in_memory)
    plain, changed = (EpisodeStream(source, "train", SHAPE, 0, one).sample(5, 2) for one in (None, SMALL))
    for name in ("support_y", "query_y", "classes"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(changed, name))
    parts = [np.concatenate([one.support_x, one.query_x], axis=1) for one in (plain, changed)]
    assert (np.abs(parts[1] - parts[0]).max(axis=(2, 3, 4)) > 0.05).all()
    assert parts[1].shape == parts[0].shape and parts[1].dtype == parts[0].dtype
    assert parts[1].min() >= 0 and parts[1].max() <= 1
    alone = EpisodeStream(source, "train", SHAPE, 0, SMALL).sample(6, 1)
    for one, other in zip(alone, changed, strict=True):
        np.testing.assert_allclose(one, other[1:], atol=1e-6)
    np.testing.assert_array_equal(changed.drawn[:, : plain.drawn.shape[1]], plain.drawn)
    assert changed.drawn.shape[1] == plain.drawn.shape[1] + 2  # equal rows, equal tasks


def test_the_images_of_a_task_are_changed_as_they_are_drawn(make_source):
    """Compare with the function on the images of the plain task, support before queries in each class."""
    source = make_source()
    plain, changed = (EpisodeStream(source, "train", SHAPE, 0, one).sample(5, 2) for one in (None, SMALL))
    shape = (2, 3, 2, 16, 16, 1)
    images = tf.concat([tf.reshape(plain.support_x, shape), tf.reshape(plain.query_x, shape)], axis=2)
    images = tf.cast(tf.round(255 * images), tf.uint8)
    expected = augmented(tf.reshape(images, (2, 12, 16, 16, 1)), keys_of(5), SMALL).numpy().reshape(2, 3, 4, 16, 16, 1)
    np.testing.assert_allclose(changed.support_x, expected[:, :, :2].reshape(2, 6, 16, 16, 1) / 255, atol=1e-6)
    np.testing.assert_allclose(changed.query_x, expected[:, :, 2:].reshape(2, 6, 16, 16, 1) / 255, atol=1e-6)


def test_images_of_shuffled_epochs_are_changed_by_their_numbers(make_source):
    """Reject one change for a whole mini-batch, and the same change of an image in every epoch."""
    source = make_source()
    plain, changed = (ImageStream(source, "train", 0, one).sample(70, 5) for one in (None, SMALL))
    np.testing.assert_array_equal(plain.y, changed.y)
    images = tf.cast(tf.round(255 * plain.x), tf.uint8)[:, None]
    expected = augmented(images, keys_of(70, 5), SMALL).numpy()[:, 0] / 255
    np.testing.assert_allclose(changed.x, expected, atol=1e-6)
    np.testing.assert_array_equal(changed.drawn[:, :1], plain.drawn)
    epochs = [ImageStream(source, "train", 0, SMALL).sample(72 * epoch, 72) for epoch in (0, 1)]
    first, second = (each.x.numpy()[np.argsort(each.drawn.numpy()[:, 0])] for each in epochs)
    assert np.median(np.abs(first - second).max(axis=(1, 2, 3))) > 0.1


@pytest.mark.parametrize(("ink", "background"), [("dark", 1), ("light", 0), (None, 0)])
def test_what_comes_from_outside_is_paper(make_source, ink, background):
    """Reject black borders around dark ink on white paper."""
    stream = EpisodeStream(make_source(ink=ink), "train", SHAPE, 0, Augment(crop_padding=16))
    x = stream.sample(0, 20).support_x.numpy()
    edges = np.concatenate([x[:, :, 0].ravel(), x[:, :, -1].ravel()])
    assert (edges == background).mean() > 0.6 and (edges == 1 - background).mean() < 0.05
