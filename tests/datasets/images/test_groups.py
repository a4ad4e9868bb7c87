"""Tasks whose classes are all of one group, such as the characters of one alphabet."""

import re

import numpy as np
import pytest
import tensorflow as tf

from metarun.datasets.errors import DataError
from metarun.datasets.images.source import ClassPool, ImageSource
from metarun.datasets.sizes import sizes_in
from metarun.datasets.tasks import Shape

GROUPS = tuple("cabbacacaab" + "d")  # a has 5 classes, b 3, c 3, d 1; mixed up
SHAPE = Shape(3, 1, 1)


def source(name="script", rotations="none", groups=GROUPS):
    pixels = np.arange(24 * 4, dtype=np.uint8).reshape(24, 2, 2, 1)
    pool = ClassPool(pixels, np.full(12, 2), tuple(f"class {n}" for n in range(12)), groups, "alphabet")
    return ImageSource(name, {"train": pool}, rotations={"train": rotations})


def draw(source, tasks=3000, shape=SHAPE, seed=0):
    return source.sample("train", 0, tasks, shape, seed).classes.numpy()


@pytest.mark.parametrize("rotations", ["none", "classes", "per-task"])
def test_all_classes_of_a_task_are_distinct_and_of_one_group(rotations):
    """Reject classes of any group, and turned classes that share a task with others than those of their angle."""
    classes = draw(source(rotations=rotations), tasks=400)
    groups = np.array(GROUPS)[classes % 12]
    assert (groups == groups[:, :1]).all() and (classes // 12 == classes[:, :1] // 12).all()
    assert all(len(set(task)) == 3 for task in classes)
    assert set(classes[:, 0] // 12) == set(range(4 if rotations == "classes" else 1))


def test_groups_are_equally_likely_and_so_are_the_classes_within():
    """Reject groups in proportion to their classes; d is too small."""
    classes = draw(source())
    names, counts = np.unique(np.array(GROUPS)[classes[:, 0]], return_counts=True)
    assert list(names) == ["a", "b", "c"]

    def statistic(counts, shares):
        expected = counts.sum() * np.array(shares)
        return ((counts - expected) ** 2 / expected).sum()

    assert statistic(counts, [1 / 3] * 3) < 13.8 < statistic(counts, [5 / 11, 3 / 11, 3 / 11])  # 2 degrees, 99.9%
    of_a = classes[np.array(GROUPS)[classes[:, 0]] == "a"]
    for label in range(3):  # any order, so that labels say nothing of classes
        assert statistic(np.unique(of_a[:, label], return_counts=True)[1], [1 / 5] * 5) < 18.5  # 4 degrees, 99.9%


def test_a_task_is_the_same_alone_in_a_batch_and_in_a_program():
    grouped = source(rotations="classes")
    batch = grouped.sample("train", 5, 3, SHAPE, 1)
    alone = tf.function(lambda number: grouped.sample("train", number, 1, SHAPE, 1), autograph=False)
    for number in range(3):
        for whole, one in zip(batch, alone(tf.constant(5 + number, tf.int64)), strict=True):
            np.testing.assert_array_equal(whole[number : number + 1], one)
    assert (draw(grouped, 10, seed=1) != draw(grouped, 10, seed=2)).any()


def test_small_groups_are_told_once_and_refused_if_no_group_is_left(capsys):
    for _ in range(2):
        source("told-once").check("train", SHAPE)
    assert capsys.readouterr().err == (
        "warning: told-once: 1 of 4 alphabets of train have fewer than 3 classes and are skipped: d 1\n"
    )
    told = "script: no alphabet of train has 6 classes, the largest is a with 5: lower way"
    with pytest.raises(DataError, match=re.escape(told)):
        source().check("train", Shape(6, 1, 1))
    assert sizes_in(source(rotations="classes"))["train"].classes == 5
    assert sizes_in(source(rotations="classes", groups=()))["train"].classes == 48
