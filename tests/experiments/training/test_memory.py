"""The estimate of memory before a run and what it says; what a run leaves in memory."""

import gc
import sys
import weakref

import numpy as np
import pytest
import tensorflow as tf
from few_shot import learner
from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.framework.ops import gradient_registry

from metarun.algorithms import adaptation
from metarun.algorithms.memory import peak_bytes
from metarun.algorithms.networks.options import MLPOptions
from metarun.algorithms.options import MAMLOptions, ReptileOptions
from metarun.algorithms.programs import free_graphs, program
from metarun.datasets.tasks import Episode
from metarun.experiments.config.load import load
from metarun.experiments.config.sections import Train
from metarun.experiments.errors import RunError, warn_once
from metarun.experiments.evaluation.measure import test_of as evaluation_of
from metarun.experiments.model import build
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.system.gpus import Memory
from metarun.experiments.system.signals import StopSignal
from metarun.experiments.training import memory
from metarun.experiments.training.loop import Training
from metarun.experiments.training.memory import foresee
from metarun.experiments.training.steps import TrainingSteps

MIB = 2**20


def traced(function, *shapes):
    return tf.function(function).get_concrete_function(*(tf.TensorSpec(shape) for shape in shapes))


def test_peak_counts_what_lives_at_once():
    """Count ten tensors of 1 MiB one after the other: two live at once, not ten; kept for a gradient they all do."""

    def chain(x):
        for _ in range(10):
            x = tf.sin(x)
        return x

    def kept(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = chain(x)
        return tape.gradient(y, x)

    size = (MIB // 4,)
    assert 2 * MIB <= peak_bytes(traced(chain, size)) < 3 * MIB
    assert 10 * MIB <= peak_bytes(traced(kept, size)) < 15 * MIB
    assert peak_bytes(traced(lambda x: tf.reshape(tf.identity(x), (2, -1)) + 1.0, size)) == MIB  # no copies


def test_peak_enters_loops_and_functions():
    """Check that a loop that does the work in chunks needs what one chunk needs."""
    inner = tf.function(lambda x: tf.reduce_sum(tf.sin(tf.cos(x))))

    def chunked(x):
        return tf.map_fn(inner, x, fn_output_signature=tf.float32, parallel_iterations=1)

    whole = peak_bytes(traced(lambda x: tf.reduce_sum(tf.sin(tf.cos(x)), axis=1), (8, MIB // 4)))
    assert whole >= 16 * MIB
    assert 2 * MIB <= peak_bytes(traced(chunked, (8, MIB // 4))) < 6 * MIB


@pytest.mark.parametrize(("free", "refused"), [(1500 * MIB, False), (700 * MIB, True), (10_000 * MIB, None)])
def test_it_warns_refuses_and_names_the_setting(monkeypatch, capsys, free, refused):
    monkeypatch.setattr(memory, "available_bytes", lambda: free)
    monkeypatch.setattr(memory, "peak_bytes", lambda update: 1700 * MIB)
    overrides = ["algorithm.first_order=false", "algorithm.inner_steps=3", "train.meta_batch=12"]
    experiment = load("quickstart/maml", overrides).experiment
    if refused:
        with pytest.raises(
            RunError, match=r"needs about 2\.0 GiB and 0\.7 GiB are free: set algorithm\.tasks_per_chunk: 4"
        ):
            foresee(experiment, None)
        return
    foresee(experiment, None)
    told = capsys.readouterr().err
    if refused is None:
        assert told == ""
    else:
        assert told.startswith("warning: ") and "tasks_per_chunk: 6" in told and "recompute_inner: true" in told


def test_on_a_gpu_its_own_memory_counts_with_the_programs_of_xla(monkeypatch, capsys):
    """Reject the machine's memory, and an estimate without the step that XLA compiles as a whole there. What it
    certainly needs is less: it fuses, so that the run is not refused."""
    inner = tf.function(lambda x: tf.reduce_sum(tf.sin(tf.cos(x))), jit_compile=True)
    update = traced(lambda x: inner(x), (MIB,))
    assert peak_bytes(update) < MIB and 4 * MIB <= peak_bytes(update, compiled=True) < 16 * MIB
    experiment = load("quickstart/maml").experiment
    monkeypatch.setattr(memory.gpus, "occupants", lambda: " (on the GPU: julia (process 812))")
    monkeypatch.setattr(memory, "COMPILER", 0)
    monkeypatch.setattr(memory.gpus, "memory", lambda: Memory(MIB, 2**40))
    foresee(experiment, update)
    told = capsys.readouterr().err
    assert "0.0 GiB are free (on the GPU: julia (process 812)): set algorithm.tasks_per_chunk" in told
    monkeypatch.setattr(memory.gpus, "memory", lambda: Memory(2**30, 2**40))
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    foresee(experiment, update)
    assert capsys.readouterr().err == ""


@pytest.fixture(scope="module")
def small():
    return build(load("quickstart/maml", [*SPECS["maml"][1], "train.meta_batch=12"]).experiment, 0)


@pytest.mark.parametrize(
    ("total", "runs", "chunk", "told"),
    [
        (80, "1", 6, "GPU's 80: it is computed in parts, which changes last bits alone; a spec with "
                     "algorithm.tasks_per_chunk: 6 has the same on every machine"),
        (160, "4", 4, "GPU's 160, which 4 runs share: it is computed in parts"),
        (120, "1", None, ""),
        (2000, "1", None, "100.0 GiB of the GPU's 2000: others can share it, "),
        (2000, "2", None, ""),
    ],
)  # fmt: skip
def test_a_step_is_fitted_into_the_gpu(monkeypatch, capsys, small, total, runs, chunk, told):
    """Reject a choice by what is free now, which differs when a run resumes; a spec whose digest changes; other initial
    weights; and a run's share of a card that is taken for the whole."""
    monkeypatch.setattr(memory.gpus, "memory", lambda: Memory(0, total * 2**30))
    monkeypatch.setattr(memory, "most_bytes", lambda update: 100 * 2**30)
    monkeypatch.setattr(memory.TrainingSteps, "traced_update", lambda steps: None)
    monkeypatch.setenv("METARUN_RUNS_PER_GPU", runs)
    warn_once.cache_clear()
    model = memory.fitted(small)
    said = capsys.readouterr().err
    assert told in said if told else said == ""
    assert model.learner.options.tasks_per_chunk == chunk and model.experiment == small.experiment
    assert memory.chosen_options(model) == ({"tasks_per_chunk": chunk} if chunk else {})
    own = small.learner.parameters
    assert all(np.array_equal(value, own[name]) for name, value in model.learner.parameters.items())


def test_a_spec_that_gives_the_size_of_its_parts_has_decided():
    """Reject a card that overrules the spec, and parts of one task."""
    decided = MAMLOptions(inner_lr=0.1, tasks_per_chunk=3)
    assert decided.in_parts(Train(meta_batch=12, steps=1), 0.1) is None
    assert MAMLOptions(inner_lr=0.1).in_parts(Train(steps=1), 0.1) is None
    assert MAMLOptions(inner_lr=0.1).in_parts(Train(meta_batch=12, steps=1), 0.01).tasks_per_chunk == 1


def test_available_memory_is_told_on_linux():
    available = memory.available_bytes()
    if sys.platform == "linux":
        assert available and 2**26 < available < 2**50
    else:
        assert available is None


@pytest.mark.parametrize(
    ("spec", "overrides", "told"),
    [
        (
            "finn2017/sinusoid",
            ["test.query=7", "test.shot=3", "validation={query: 5, episodes: 4, every: 1}", "network.hidden=[8]"],
            {
                "test": "2.0 GiB and 0.7 GiB are free: lower test.query (7) or lower test.shot (3)",
                "validation": "2.0 GiB and 0.7 GiB are free: lower validation.query (5) or lower validation.shot (3)",
            },
        ),
        (
            "duan2016/bandits-rl2",
            ["train.meta_batch=4", "algorithm.minibatch=4", "validation=null", "network.units=4"],
            {"test": "2.0 GiB and 0.7 GiB are free: lower test.episodes"},
        ),
    ],
)
def test_fault_23_the_memory_of_a_test_is_foreseen(monkeypatch, tmp_path, spec, overrides, told):
    """Reject the kernel's kill in the test, after the whole training; keys of the training, which change nothing."""
    experiment = load(spec, ["train.steps=1", "test.episodes=4", "jit=off", *overrides]).experiment
    training = Training(build(experiment, 0), RunDirectory(tmp_path))
    monkeypatch.setattr(memory, "available_bytes", lambda: 700 * MIB)
    for section, words in told.items():
        large = training.final if section == "test" else training.evaluation
        traced = large.traced()
        monkeypatch.setattr(memory, "peak_bytes", lambda one, traced=traced: 1700 * MIB if one is traced else MIB)
        with pytest.raises(RunError) as caught, StopSignal() as stop:
            training.train(stop)
        assert str(caught.value).startswith(f"a call of the {section} needs about {words}")
        assert not training.directory.metrics.exists()


@pytest.mark.parametrize("name", ["maml", "reptile"])
def test_fault_23_queries_beside_supports_are_predicted_in_parts(monkeypatch, name):
    """Reject all images at once; parts that see each other. Predict a task that is larger than a call should be."""
    network, shape = MLPOptions(hidden=[8], batch_norm=True), (28, 28, 1)
    options = {"maml": MAMLOptions(inner_lr=0.1), "reptile": ReptileOptions(inner_lr=0.01, inner_batch=5)}[name]
    generator = np.random.default_rng(0)
    support, query = (tf.constant(generator.random((2, each, *shape)), tf.float32) for each in (10, 30))
    labels = [tf.tile(tf.repeat(tf.range(5), each)[None], (2, 1)) for each in (2, 6)]
    batch = Episode(support, labels[0], query, labels[1], tf.zeros((2, 5), tf.int32), tf.zeros((2, 1), tf.int32))
    outputs, peaks = [], []
    for pixels in (10**9, 2 * 11 * 28 * 28 * 6):  # all 30 queries at once, and 6
        monkeypatch.setattr(adaptation, "PIXELS_AT_ONCE", pixels)
        one = learner(options, network, "inductive", shape, way=5, jit=False)
        outputs.append(one.predict(batch))
        peaks.append(peak_bytes(one.compiled_predict.get_concrete_function(batch)))
    together = learner(options, network, "transductive", shape, way=5, jit=False).predict(batch)
    assert np.abs(outputs[0] - together).max() > 0.01
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)
    assert peaks[1] < peaks[0] / 3


SMALL = ["network.filters=4", "train.way=5", "train.query=1", "test.query=1", "validation=null", "test.episodes=4"]
SPECS = {
    "protonet": ("quickstart/protonet", SMALL),
    "maml": (
        "quickstart/maml",
        ["network={name: mlp, hidden: [8]}", "protocol=inductive", "test.episodes=4", "jit=off"],
    ),
    "matchingnet": ("quickstart/matchingnet", SMALL),
    "maml of images": ("quickstart/maml", [*SMALL, "train.meta_batch=2"]),
    "rl2": ("duan2016/bandits-rl2", ["train.meta_batch=20", "algorithm.minibatch=10", "network.units=4"]),
}


@pytest.mark.parametrize("name", ["protonet", *(pytest.param(name, marks=pytest.mark.slow) for name in [*SPECS][1:])])
def test_fault_29_a_run_leaves_no_graph_behind(name, cache_folder):
    """Keep small programs of the first run, and nothing else. Rejected: TensorFlow's registry, which keeps every custom
    gradient for ever and with it the graph around it, and programs that are kept by more than their learner."""
    spec, overrides = SPECS[name]
    experiment = load(spec, overrides).experiment

    def run() -> list[weakref.ref]:
        model = build(experiment, 0)
        steps = TrainingSteps(model)
        steps.trace()
        evaluation_of(model).names()
        return [
            weakref.ref(each) for each in (model.learner, steps, steps.traced_update(), steps.traced_update().graph)
        ]

    def left() -> tuple[int, int]:
        gc.collect()
        graphs = sum(isinstance(each, FuncGraph) for each in gc.get_objects())
        return graphs, sum(name.startswith("CustomGradient") for name in gradient_registry.list())

    run()
    before = left()
    of_second = run()
    assert left() == before
    assert [reference() for reference in of_second] == [None] * 4


def test_custom_gradients_live_as_long_as_their_graph():
    """Reject gradients that are gone when a program that was traced before is differentiated."""
    free_graphs()

    @tf.custom_gradient
    def tripled(x):
        return x, lambda upstream: 3.0 * upstream

    inner = program(lambda x: tripled(x) ** 2)
    inner.get_concrete_function(tf.TensorSpec(()))
    gc.collect()

    @program
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = inner(x)
        return tape.gradient(y, x)

    assert gradient(tf.constant(2.0)) == 12.0
