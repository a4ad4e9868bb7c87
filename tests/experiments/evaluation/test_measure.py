"""Evaluation: tasks in batches that depend on the spec alone, and that never change a result."""

import threading
import warnings

import numpy as np
import pytest
import tensorflow as tf

from metarun.algorithms.build import Setup, build
from metarun.algorithms.networks.options import Conv4Options
from metarun.algorithms.options import MAMLOptions, PrototypicalNetworkOptions, ReptileOptions
from metarun.datasets import tasks
from metarun.datasets.tasks import Shape
from metarun.experiments.evaluation import measure
from metarun.experiments.evaluation.measure import Evaluation, Judge

SHAPE = Shape(5, 1, 15)


def learner(options, protocol, source, dtype="float32"):
    return build(Setup(options, Conv4Options(filters=4), protocol=protocol, way=5, precision=dtype), source)


@pytest.mark.parametrize(
    ("options", "protocol", "images"),
    [
        (PrototypicalNetworkOptions(), "inductive", 5 + 75),  # the queries of a task share its supports
        (PrototypicalNetworkOptions(), "transductive", 5 + 75),
        (MAMLOptions(inner_lr=0.1), "transductive", 5 + 75),
        (MAMLOptions(inner_lr=0.1), "inductive", 5 + 75 * 6),  # each query beside all supports
    ],
)
def test_a_call_holds_what_the_learner_needs_for_a_task(make_source, options, protocol, images):
    source = make_source(images=16, size=28)
    evaluation = Evaluation(learner(options, protocol, source), source.stream("test", SHAPE, 0), 1000)
    assert evaluation.batch == 1_000_000 // (images * 28 * 28)


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_size_of_the_calls_changes_no_result(make_source, in_memory, monkeypatch):
    source = make_source(images=16, in_memory=in_memory, dtype="float64")
    model = learner(PrototypicalNetworkOptions(), "inductive", source, "float64")
    measured = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size in (7, 2):
            monkeypatch.setattr(tasks, "EPISODES_AT_ONCE", size)
            measured.append(Evaluation(model, source.stream("test", SHAPE, 0), 7).measure("test"))
    first, second = measured
    assert first.episodes_digest == second.episodes_digest
    for name, values in first.values.items():
        np.testing.assert_allclose(values, second.values[name], rtol=1e-9)
    assert np.std(first.values["accuracy"]) > 0


def test_calls_at_once_change_no_bit_and_wait_for_memory(make_source, monkeypatch):
    """Reject calls one after the other, values in the order in which calls end, and calls without room in memory."""
    monkeypatch.setattr(tasks, "EPISODES_AT_ONCE", 2)
    source, both = make_source(images=16), threading.Barrier(2)
    model = learner(ReptileOptions(inner_lr=0.1, inner_steps=2, inner_batch=5), "transductive", source)

    def together(accuracy):
        both.wait(timeout=60)
        return accuracy

    def meeting(learner, batch):
        metrics = learner.evaluate(batch)
        accuracy = tf.numpy_function(together, [metrics["accuracy"]], tf.float32)
        return metrics | {"accuracy": tf.ensure_shape(accuracy, metrics["accuracy"].shape)}

    def measured(threads, **judge):
        monkeypatch.setattr(measure, "threads", lambda: threads)
        evaluation = Evaluation(model, source.stream("test", SHAPE, 0), 8, **judge)
        assert evaluation.at_once == threads
        return evaluation.measure("test")

    one, two = measured(1), measured(2, judge=Judge(meeting))
    assert one.episodes_digest == two.episodes_digest and len(set(one.values["negative_log_likelihood"])) == 8
    for name, values in one.values.items():
        np.testing.assert_array_equal(values, two.values[name])
    monkeypatch.setattr(measure, "available_bytes", lambda: 1000)
    assert Evaluation(model, source.stream("test", SHAPE, 0), 8).at_once == 1
