"""Episodes: disjoint, uniform, leak-free, and a pure function of (seed, split, index)."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from metarun.datasets.errors import DataError
from metarun.datasets.images.source import ClassPool, ImageSource
from metarun.datasets.options import SinusoidOptions
from metarun.datasets.sinusoid import SinusoidSource
from metarun.datasets.tasks import Shape

SHAPE = Shape(way=5, shot=2, query=3)


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("rotations", ["none", "classes", "per-task"])
def test_a_task_is_the_same_alone_and_in_a_batch(make_source, rotations):
    source = make_source(rotations=rotations)
    batch = source.sample("train", 10, 4, SHAPE, seed=7)
    for offset in range(4):
        alone = source.sample("train", 10 + offset, 1, SHAPE, seed=7)
        assert same(alone, [part[offset : offset + 1] for part in batch])
    assert not same(batch, source.sample("train", 10, 4, SHAPE, seed=8))
    assert not same(batch, source.sample("test", 10, 4, SHAPE, seed=7))


def test_shapes_types_and_labels(make_source):
    episode = make_source(channels=3).sample("train", 0, 4, SHAPE, seed=0)
    assert episode.support_x.shape == (4, 10, 16, 16, 3) and episode.support_x.dtype == tf.float32
    assert episode.query_x.shape == (4, 15, 16, 16, 3)
    assert episode.support_y[0].numpy().tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert episode.query_y[0].numpy().tolist() == sorted([0, 1, 2, 3, 4] * 3)
    assert episode.classes.shape == (4, 5)


def test_support_and_query_are_disjoint_and_without_replacement(make_source):
    pixels = np.arange(12 * 6, dtype=np.uint8).reshape(72, 1, 1, 1)  # every image is its own number
    pool = ClassPool(pixels, np.full(12, 6), tuple(map(str, range(12))))
    episode = ImageSource("numbers", {"train": pool}).sample("train", 0, 500, Shape(5, 2, 4), seed=0)
    support = np.rint(episode.support_x.numpy().reshape(500, 5, 2) * 255).astype(int)
    query = np.rint(episode.query_x.numpy().reshape(500, 5, 4) * 255).astype(int)
    for task in range(500):
        images = np.concatenate([support[task], query[task]], axis=1)
        assert all(len(set(row)) == 6 for row in images)
        assert (images // 6 == images[:, :1] // 6).all()  # a label holds one class
        assert (images[:, 0] // 6 == episode.classes[task].numpy()).all()
        assert len(set(images[:, 0] // 6)) == 5


def test_classes_are_uniform_for_every_label(make_source):
    """Reject a sorted draw (trap T20), which puts low classes on low labels, by the chi-square test."""
    classes = make_source().sample("train", 0, 6000, Shape(5, 1, 1), seed=1).classes.numpy()

    def statistic(draws):
        counts = np.bincount(draws, minlength=12)
        return ((counts - 500) ** 2 / 500).sum()

    critical = 31.3  # 11 degrees of freedom, 99.9%
    assert all(statistic(classes[:, label]) < critical for label in range(5))
    assert all(statistic(np.sort(classes, axis=1)[:, label]) > critical for label in range(5))


@pytest.mark.parametrize("rotations", ["none", "classes", "per-task"])
def test_labels_say_nothing_about_the_order_of_classes(make_source, rotations):
    """Reject classes that are sorted within the episode (trap T20): a network could learn the labels without looking at
    the support."""
    classes = make_source(rotations=rotations).sample("train", 0, 2000, SHAPE, seed=3).classes.numpy()

    def correlation(drawn):
        return abs(np.corrcoef(drawn.ravel(), np.tile(np.arange(SHAPE.way), len(drawn)))[0, 1])

    critical = 4 / np.sqrt(classes.size)  # four standard deviations of the correlation of independent numbers
    assert correlation(classes) < critical < correlation(np.sort(classes, axis=1))


def test_support_images_are_uniform_within_a_class(make_source):
    rows = make_source().sample("train", 0, 6000, Shape(1, 1, 1), seed=1).drawn.numpy()[:, 2] % 6
    counts = np.bincount(rows, minlength=6)
    assert ((counts - 1000) ** 2 / 1000).sum() < 20.5  # 5 degrees of freedom, 99.9%


def test_classes_of_different_sizes_are_all_reached():
    counts = np.array([2, 5, 3])
    pixels = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    source = ImageSource("uneven", {"train": ClassPool(pixels, counts, ("a", "b", "c"))})
    episode = source.sample("train", 0, 400, Shape(3, 1, 1), seed=0)
    images = np.rint(episode.support_x.numpy()[..., 0, 0, 0] * 255).astype(int)
    assert set(images.ravel()) == set(range(10))
    first = np.array([0, 2, 7])
    member = (images >= first[episode.classes]) & (images < (first + counts)[episode.classes])
    assert member.all()


@pytest.mark.parametrize("turn", range(4))
def test_turns_are_those_of_numpy(turn):
    image = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1)
    pool = ClassPool(image.repeat(2, axis=0), np.array([2]), ("a",))
    source = ImageSource("turned", {"train": pool}, rotations={"train": "classes"})
    episode = source.sample("train", 0, 40, Shape(1, 1, 1), seed=0)
    for task in np.flatnonzero(episode.classes.numpy()[:, 0] == turn):
        seen = np.rint(episode.support_x[task, 0, :, :, 0].numpy() * 255)
        np.testing.assert_array_equal(seen, np.rot90(image[0, :, :, 0], turn))
    assert turn in episode.classes


def test_turns_per_task_are_one_for_a_class_and_never_two_classes_of_one_task(make_source):
    episode = make_source(rotations="per-task").sample("train", 0, 300, SHAPE, seed=0)
    turns = episode.drawn.numpy()[:, 5:10]
    assert set(turns.ravel()) == {0, 1, 2, 3}
    assert all(len(set(row)) == 5 for row in episode.classes.numpy())
    as_classes = make_source(rotations="classes").sample("train", 0, 300, SHAPE, seed=0).classes.numpy() % 12
    assert any(len(set(row)) < 5 for row in as_classes)  # the other mode may meet a character twice


def test_mean_and_std_are_subtracted_and_divided(make_source):
    plain = make_source().sample("train", 0, 1, SHAPE, 0).support_x
    inverted = make_source(mean=(1.0,), std=(-1.0,)).sample("train", 0, 1, SHAPE, 0).support_x
    np.testing.assert_allclose(inverted, 1 - plain, atol=1e-6)


def test_streaming_draws_the_same_tasks_as_memory(make_source):
    resident, streamed = make_source(in_memory=True), make_source(in_memory=False)
    assert same(resident.sample("train", 3, 2, SHAPE, 0), streamed.sample("train", 3, 2, SHAPE, 0))
    stream = tf.data.Dataset.range(3, 5).map(lambda number: streamed.sample("train", number, 1, SHAPE, 0))
    for number, task in zip((3, 4), stream, strict=True):
        assert same(task, resident.sample("train", number, 1, SHAPE, 0))


def test_too_few_classes_or_images_are_named(make_source):
    with pytest.raises(DataError, match="fake: train has 12 classes, fewer than way 13"):
        make_source().check("train", Shape(13, 1, 1))
    with pytest.raises(DataError, match=r"12 val classes have fewer images than shot \+ query = 5 \+ 2: class 0 6"):
        make_source().check("val", Shape(5, 5, 2))
    make_source().check("val", Shape(5, 5, 1))


def test_another_process_draws_the_same_bits():
    program = """
import hashlib
import numpy as np
from metarun.datasets.options import SinusoidOptions
from metarun.datasets.images.source import ClassPool, ImageSource
from metarun.datasets.sinusoid import SinusoidSource
from metarun.datasets.tasks import Shape

def digest(source, shape):
    episode = source.sample("test", 5, 3, shape, seed=2)
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in episode)).hexdigest()

pixels = np.arange(72 * 4).astype(np.uint8).reshape(72, 2, 2, 1)
pool = ClassPool(pixels, np.full(12, 6), tuple(map(str, range(12))))
digests = [digest(SinusoidSource(SinusoidOptions()), Shape(1, 4, 6))]
for rotations in ("none", "per-task"):
    for in_memory in (True, False):
        source = ImageSource("x", {"test": pool}, rotations={"test": rotations}, in_memory=in_memory)
        digests.append(digest(source, Shape(5, 2, 3)))
print(digests)
"""
    here = {}
    exec(program, here)
    command = [sys.executable, "-c", program]
    other = subprocess.run(command, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(here["digests"])
    assert len(set(here["digests"])) == 3, "memory and files alike"


def test_sinusoids_have_the_papers_ranges_and_formula():
    source = SinusoidSource(SinusoidOptions(), "float64")
    episode = source.sample("train", 0, 2000, Shape(1, 5, 5), seed=0)
    amplitude, phase = np.ascontiguousarray(episode.drawn.numpy()[:, :2]).view(np.float32).T
    for values, low, high in ((amplitude, 0.1, 5.0), (phase, 0.0, np.pi), (episode.query_x.numpy(), -5.0, 5.0)):
        assert values.min() >= low and values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.03 * (high - low)
    expected = amplitude[:, None] * np.sin(episode.query_x.numpy()[..., 0] - phase[:, None])
    np.testing.assert_allclose(episode.query_y.numpy()[..., 0], expected, atol=1e-5)
    wrong = amplitude[:, None] * np.sin(episode.query_x.numpy()[..., 0] + phase[:, None])
    assert np.abs(episode.query_y.numpy()[..., 0] - wrong).max() > 1


def test_noise_is_on_the_support_targets_only():
    shape = Shape(1, 400, 400)
    clean = SinusoidSource(SinusoidOptions()).sample("train", 0, 1, shape, 0)
    noisy = SinusoidSource(SinusoidOptions(noise=0.5)).sample("train", 0, 1, shape, 0)
    np.testing.assert_array_equal(clean.query_y, noisy.query_y)
    assert abs(np.std(noisy.support_y - clean.support_y) - 0.5) < 0.06
