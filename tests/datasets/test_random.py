"""Threefry against its published known answers, and the draws built on it."""

import math

import numpy as np
import pytest
import tensorflow as tf

from metarun.datasets import random
from metarun.datasets.random import PURPOSES, STREAMS, TaskKeys, threefry

KNOWN = [  # key, counter, output: Random123's known-answer file, threefry2x32 with 20 rounds
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


def words(pair):
    return tuple(tf.constant(word, tf.uint32) for word in pair)


@pytest.mark.parametrize(("key", "counter", "expected"), KNOWN)
def test_threefry_known_answers(key, counter, expected):
    assert tuple(int(word) for word in threefry(words(key), words(counter))) == expected
    # wrong variant: key and counter exchanged
    if key != counter:
        assert tuple(int(word) for word in threefry(words(counter), words(key))) != expected


def test_a_compiled_program_draws_the_same_bits():
    def draw(index):
        return TaskKeys.of_stream(3, "train", index, 4).bits("images", 7)

    compiled = tf.function(draw, jit_compile=True)(tf.constant(11, tf.int64))
    np.testing.assert_array_equal(draw(11).numpy(), compiled.numpy())


def test_streams_purposes_and_indices_are_all_different():
    draws = [
        TaskKeys.of_stream(seed, split, index, 1).bits(purpose, 8).numpy().tobytes()
        for seed in (0, 1)
        for split in ("train", "val", "test")
        for index in (0, 1, 2**33)
        for purpose in ("classes", "images")
    ]
    assert len(set(draws)) == len(draws)


def test_no_two_purposes_or_streams_draw_the_same():
    """Reject one number for two of them, such as amplitude and phase, which would then be one draw."""
    assert len(set(PURPOSES.values())) == len(PURPOSES) and len(set(STREAMS.values())) == len(STREAMS)


def test_distinct_numbers_are_distinct_in_range_and_uniform():
    drawn = TaskKeys.of_stream(0, "train", 0, 4000).distinct("classes", 10, 3).numpy()
    assert all(len(set(row)) == 3 for row in drawn)
    for position in range(3):  # chi-square with 9 degrees of freedom, 99.9% quantile 27.9
        counts = np.bincount(drawn[:, position], minlength=10)
        assert ((counts - 400) ** 2 / 400).sum() < 27.9
    # wrong variant: sorted draws, which the test of position 0 rejects
    counts = np.bincount(np.sort(drawn, axis=1)[:, 0], minlength=10)
    assert ((counts - 400) ** 2 / 400).sum() > 27.9


def test_counts_lower_the_bound_of_each_draw():
    counts = tf.constant([[3, 8]])
    drawn = TaskKeys.of_stream(0, "train", 0, 1).distinct("images", 8, 3, 2, counts=counts).numpy()
    assert sorted(drawn[0, 0]) == [0, 1, 2]
    everything = TaskKeys.of_stream(0, "train", 0, 200).distinct("images", 8, 3, 2, counts=tf.tile(counts, (200, 1)))
    assert everything.numpy()[:, 0].max() == 2 and everything.numpy()[:, 1].max() == 7


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("among", [3000, 3001])
def test_fault_27_a_large_class_changes_no_draw_and_costs_the_others_nothing(monkeypatch, among, compiled):
    """Compare the draws with those of before, bit for bit. Rejected: a key for every image of the largest class."""
    generator = np.random.default_rng(0)
    for largest in (40, among):
        counts = tf.constant(generator.integers(7, largest, (4, 5), endpoint=True), tf.int32)
        drawn = []
        for at_once in (1024, 10_000):
            monkeypatch.setattr(random, "KEYS_AT_ONCE", at_once)

            def draw(counts=counts):
                return TaskKeys.of_stream(3, "test", 8, 4).distinct("images", among, 6, 5, counts=counts)

            drawn.append(tf.function(draw, jit_compile=True)() if compiled else draw())
        np.testing.assert_array_equal(*drawn)
    words, original = [], random.threefry
    monkeypatch.setattr(
        random, "threefry", lambda key, counter: words.append(counter[0].shape) or original(key, counter)
    )
    monkeypatch.setattr(random, "KEYS_AT_ONCE", 1024)
    TaskKeys.of_stream(3, "test", 8, 4).distinct("images", 1_000_000, 6, 5, counts=tf.fill((4, 5), 900))
    assert sum(math.prod(shape) for shape in words[1:]) == 5 * 1024


@pytest.mark.parametrize("among", [6, 7])
def test_some_orders_of_many_are_those_of_all(among):
    """Compare bit for bit, with an odd number of words too; reject orders that begin anew in each part."""
    keys = TaskKeys.of_stream(3, "test", 8, 4)
    every = keys.distinct("mini-batches", among, among, 5).numpy()
    for first, count in ((0, 5), (1, 3), (4, 1)):
        some = keys.orders("mini-batches", among, 5, first, count).numpy()
        np.testing.assert_array_equal(some, every[:, first : first + count])
    assert (keys.orders("mini-batches", among, 3, 0, 3).numpy() != every[:, :3]).any()


def test_normal_numbers_have_mean_0_variance_1_and_normal_tails():
    sample = TaskKeys.of_stream(0, "train", 0, 1).normal("noise", 100_000).numpy()
    assert abs(sample.mean()) < 0.015 and abs(sample.var() - 1) < 0.02
    beyond_two = np.mean(np.abs(sample) > 2)
    assert abs(beyond_two - 0.0455) < 0.003  # wrong variant: a uniform of variance 1 has none beyond 1.74


def test_keys_of_equal_tasks_are_equal_and_of_different_ones_differ():
    drawn = tf.constant([[1, 2, 3], [1, 2, 3], [2, 1, 3]])
    bits = TaskKeys.of_drawn(drawn).bits("mini-batches", 4).numpy()
    assert (bits[0] == bits[1]).all()
    assert (bits[0] != bits[2]).any()  # wrong variant: a sum of the words forgets their order


@pytest.mark.parametrize("among", [2, 3, 5, 16, 17, 100, 1000])
def test_an_order_has_each_number_once(among):
    """Reject a network that is not applied again: it gives numbers from `among` on, or by a remainder some twice."""
    places = tf.range(2 * among) % among
    keys = TaskKeys.of_numbers(3, "train", tf.cast(tf.range(2 * among) // among, tf.int64))  # two orders
    found = keys.permuted("order", among, places).numpy().reshape(2, among)
    for order in found:
        assert sorted(order) == list(range(among))
    if among > 10:
        assert (found[0] != found[1]).any()
        assert (found[0] != np.arange(among)).any()


def test_a_place_in_an_order_does_not_depend_on_the_others():
    number = tf.constant([0, 0, 7, 7], tf.int64)
    keys = TaskKeys.of_numbers(0, "train", number)
    together = keys.permuted("order", 50, tf.constant([4, 9, 4, 9])).numpy()
    for which in range(4):
        alone = TaskKeys.of_numbers(0, "train", number[which : which + 1])
        assert alone.permuted("order", 50, tf.constant([4, 9, 4, 9])[which : which + 1]).numpy() == together[which]
    compiled = tf.function(lambda places: keys.permuted("order", 50, places), jit_compile=True)
    np.testing.assert_array_equal(compiled(tf.constant([4, 9, 4, 9])).numpy(), together)


def test_each_number_is_equally_likely_at_each_place():
    """Reject too few rounds: with two, a place has half of the numbers far too often."""
    orders, among = 4000, 11
    keys = TaskKeys.of_numbers(1, "train", tf.range(orders, dtype=tf.int64))
    for place in (0, 6, 10):
        found = keys.permuted("order", among, tf.fill((orders,), place)).numpy()
        counts = np.bincount(found, minlength=among)
        chi_squared = ((counts - orders / among) ** 2 / (orders / among)).sum()
        assert chi_squared < 29.6  # 10 degrees of freedom: exceeded once in a thousand seeds


def test_bernoulli_draws_have_their_probability_and_do_not_depend_on_one_another():
    """Reject two draws of one word that are one draw, and the rounding of the probability to a multiple of 2^-8."""
    keys = TaskKeys.of_stream(0, "train", 0, 4)
    drawn = keys.bernoulli("dropout", 0.1, 500, 101).numpy()
    assert drawn.shape == (4, 500, 101) and abs(drawn.mean() - 0.1) < 0.002
    halves = drawn.reshape(4, 2, -1)
    assert abs(np.corrcoef(halves[:, 0].ravel(), halves[:, 1].ravel())[0, 1]) < 0.01
    assert not keys.bernoulli("dropout", 0.0, 1000).numpy().any() and keys.bernoulli("dropout", 1.0, 1000).numpy().all()
    few = keys.bernoulli("dropout", 0.0002, 200_000).numpy().mean()
    assert 0.0001 < few < 0.0003  # of 2^-8 there would be none, or 0.0039
    compiled = tf.function(lambda: keys.bernoulli("dropout", 0.1, 500, 101), jit_compile=True)()
    np.testing.assert_array_equal(compiled, drawn)
