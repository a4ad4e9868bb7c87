"""The residual network against plain numpy in float64; what it drops in training, and that tests drop nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from few_shot import learner
from specs import GOOD, mistakes

from metarun.algorithms import networks
from metarun.algorithms.adaptation import per_task
from metarun.algorithms.networks.options import ResNet12Options
from metarun.algorithms.networks.resnet12 import ResNet12, drop_block, dropout
from metarun.algorithms.optimizer_options import OptimizerOptions
from metarun.algorithms.options import MAMLOptions, PrototypicalNetworkOptions, ReptileOptions
from metarun.algorithms.programs import program
from metarun.datasets.errors import DataError
from metarun.datasets.random import TaskKeys
from metarun.datasets.tasks import Shape
from metarun.experiments.training import conformance

GENERATOR = np.random.default_rng(0)
WIDTHS = (3, 4, 2, 5)
TINY = ResNet12Options(widths=WIDTHS)
LEAK = float(np.float32(0.1))  # TensorFlow's operation has a slope of this precision


def random(*shape):
    return tf.constant(GENERATOR.normal(size=shape))


def build(options=TINY, shape=(16, 16, 3), outputs=None, precision="float64", seed=0, fuse=False):
    network = networks.build(options, shape, outputs, precision, seed, fuse)
    assert isinstance(network, ResNet12)
    for name, value in network.parameters.items():  # scales of 1 and offsets of 0 would hide mistakes
        if name.startswith("norm"):
            value.assign(value + tf.cast(GENERATOR.uniform(-0.5, 0.5, value.shape), value.dtype))
    return network


def keys_of(tasks=2):
    return TaskKeys.of_stream(0, "train", 0, tasks)


def convolved(x, kernel):
    """Return a 3x3 convolution of images `[N, H, W, C]` with zeros around them."""
    height, width = x.shape[1:3]
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    return sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))


def network_of_numpy(values, x, slope=LEAK, epsilon=1e-5, mean=False, masks=(1, 1, 1, 1), before_sum=False):
    """Return the features of the images of one task, `[N, H, W, C]`, from its parameters.

    `masks` multiply the maps at the end of each block. `before_sum` is a wrong variant.
    """

    def normalised(x, number):
        center, spread = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        return (x - center) / np.sqrt(spread + epsilon) * values[f"norm{number}/scale"] + values[f"norm{number}/offset"]

    def leaky(x):
        return np.where(x > 0, x, slope * x)

    for block in range(4):
        first = 3 * block + 1
        shortcut = normalised(x @ values[f"shortcut{block + 1}/kernel"], 13 + block)
        for number in (first, first + 1):
            x = leaky(normalised(convolved(x, values[f"conv{number}/kernel"]), number))
        x = normalised(convolved(x, values[f"conv{first + 2}/kernel"]), first + 2)
        x = leaky((leaky(x) if before_sum else x) + shortcut)
        height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
        parts = [x[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]
        x = np.max(parts, axis=0) * masks[block]
    return x.mean(axis=(1, 2)) if mean else x.reshape(len(x), -1)


def arrays(parameters, task=None):
    return {name: np.asarray(value if task is None else value[task]) for name, value in parameters.items()}


@pytest.mark.parametrize("shape", [(16, 16, 3), (19, 34, 1)])
@pytest.mark.parametrize("changes", [{}, {"activation": "relu", "features": "mean"}, {"norm_epsilon": 0.1}])
def test_the_network_is_that_of_numpy(shape, changes):
    """Compare with one set of parameters, and with a set per task. Reject another slope, an activation before the sum,
    and the moments of all tasks."""
    options = TINY.model_copy(update=changes)
    network, x = build(options, shape), random(2, 3, *shape)
    parameters = network.parameters
    told = {
        "slope": 0.0 if options.activation == "relu" else LEAK,
        "epsilon": options.norm_epsilon,
        "mean": options.features == "mean",
    }
    found = network(parameters, x)
    for task in range(2):
        expected = network_of_numpy(arrays(parameters), x[task].numpy(), **told)
        np.testing.assert_allclose(found[task], expected, atol=1e-10)
        for wrong in ({"slope": 0.2}, {"before_sum": True}):
            assert (
                np.abs(network_of_numpy(arrays(parameters), x[task].numpy(), **(told | wrong)) - found[task]).max()
                > 1e-3
            )
    together = network(parameters, tf.reshape(x, (1, 6, *shape)))
    assert np.abs(together[0, :3] - found[0]).max() > 1e-2
    own = {name: value + 0.1 * random(*value.shape) for name, value in per_task(parameters, 2).items()}
    np.testing.assert_allclose(network(per_task(parameters, 2), x), found, atol=1e-10)
    for task in range(2):
        expected = network_of_numpy(arrays(own, task), x[task].numpy(), **told)
        np.testing.assert_allclose(network(own, x)[task], expected, atol=1e-9)


def test_groups_and_running_averages():
    network, x = build(), random(2, 6, 16, 16, 3)
    groups = network(network.parameters, x, groups=3)
    np.testing.assert_allclose(groups[:, 2:4], network(network.parameters, x[:, 2:4]), atol=1e-10)
    assert np.abs(groups - network(network.parameters, x)).max() > 1e-2
    _, moments = network.apply(network.parameters, x[:1])
    assert len(moments) == len(network.running) == 32
    for _ in range(300):
        network.update_running(moments)
    averaged = network(network.parameters, x[:1], running=True)
    np.testing.assert_allclose(averaged, network(network.parameters, x[:1]), atol=1e-6)


@pytest.mark.parametrize("running", [False, True])
def test_a_program_takes_any_number_of_images(running):
    """Compare with a known number, as an exported learner is called."""
    network, x = build(), random(1, 5, 16, 16, 3)
    for parameters in (network.parameters, per_task(network.parameters, 1)):

        def outputs(x, parameters=parameters):
            return network(parameters, x, running=running)

        any_number = program(outputs, input_signature=[tf.TensorSpec((1, None, 16, 16, 3), tf.float64)])
        np.testing.assert_allclose(any_number(x), outputs(x), atol=1e-10)


def test_the_papers_network_has_as_many_parameters():
    """Compare with the 12,424,320 of MetaOptNet's network, and with its features of 84 and 32 pixels."""
    network = networks.build(ResNet12Options(), (84, 84, 3), None, "float32", 0)
    assert sum(np.prod(value.shape) for value in network.parameters.values()) == 12_424_320
    assert network.features == 16_000 and sum(network.layers) == 3_507_980_288
    assert networks.build(ResNet12Options(), (32, 32, 3), None, "float32", 0).features == 2560
    for number, filters in ((1, 64), (6, 160)):
        deviation = network.parameters[f"conv{number}/kernel"].numpy().std()
        assert deviation == pytest.approx((2 / (9 * filters)) ** 0.5, rel=0.05), "He et al., by the outputs"
    assert network.parameters["shortcut2/kernel"].numpy().std() == pytest.approx((2 / 160) ** 0.5, rel=0.05)
    assert networks.build(ResNet12Options(features="mean"), (84, 84, 3), 5, "float32", 0).features == 640


def test_seeds_decide_the_first_values():
    first, again, other = (networks.build(TINY, (16, 16, 3), 5, "float32", seed).parameters for seed in (3, 3, 4))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        if name.endswith("kernel"):
            assert np.abs(value - other[name]).max() > 1e-3
    assert np.abs(first["conv2/kernel"] - first["conv3/kernel"]).max() > 1e-3  # no two layers share a seed


def test_images_that_vanish_or_are_none_are_named():
    with pytest.raises(DataError, match="images of 15x16 are too small for resnet12"):
        networks.build(TINY, (15, 16, 3), None, "float32", 0)
    with pytest.raises(DataError, match="resnet12 takes images"):
        networks.build(TINY, (1,), None, "float32", 0)


DROPPING = TINY.model_copy(update={"drop_rate": 0.3, "drop_block": 2})


def masks_of(keys, task, sizes, examples, options=DROPPING):
    """Return what multiplies the maps at the end of each block, for one task."""
    masks = []
    for block, (size, filters) in enumerate(zip(sizes, WIDTHS, strict=True), start=1):
        ones = tf.ones((keys.tasks, examples, size, size, filters), tf.float64)
        own = keys.numbered(block)
        if block <= 2:
            masks.append(dropout(ones, options.drop_rate, own)[task].numpy())
        elif options.drop_block:
            masks.append(drop_block(ones, options.drop_rate, options.drop_block, own)[task].numpy())
        else:
            masks.append(1)
    return masks


@pytest.mark.parametrize("side", [2, None])
def test_noise_drops_at_the_end_of_each_block(side):
    """Compare with numpy. Reject the same numbers in two blocks, and drops without noise, as in tests."""
    options = DROPPING.model_copy(update={"drop_block": side})
    network, x, keys = build(options, (32, 32, 3)), random(2, 6, 32, 32, 3), keys_of()
    assert network.drops and not build().drops
    found, _ = network.apply(network.parameters, x, noise=keys)
    for task in range(2):
        masks = masks_of(keys, task, (16, 8, 4, 2), 6, options)
        expected = network_of_numpy(arrays(network.parameters), x[task].numpy(), masks=masks)
        np.testing.assert_allclose(found[task], expected, atol=1e-9)
    plain = network(network.parameters, x)
    np.testing.assert_allclose(plain[0], network_of_numpy(arrays(network.parameters), x[0].numpy()), atol=1e-9)
    again, _ = network.apply(network.parameters, x[1:], noise=TaskKeys.of_stream(0, "train", 1, 1))
    np.testing.assert_allclose(again, found[1:], atol=1e-9)  # of the task alone
    assert np.abs(plain - found).max() > 0.1


def step(one, batch):
    """Return the loss of a training step and how far each parameter moves."""
    before = {name: value.numpy() for name, value in one.parameters.items()}
    metrics = one.train_step(batch)
    return float(metrics["loss"]), {name: value.numpy() - before[name] for name, value in one.parameters.items()}


@pytest.mark.parametrize(
    "options",
    [
        PrototypicalNetworkOptions(),
        pytest.param(MAMLOptions(inner_lr=0.1, adapt="all"), marks=pytest.mark.slow),
        pytest.param(
            ReptileOptions(inner_lr=0.05, inner_optimizer="sgd", inner_steps=2, inner_batch=4), marks=pytest.mark.slow
        ),
    ],
    ids=lambda options: options.name,
)
def test_a_step_reaches_every_parameter(make_source, options):
    batch = make_source(channels=3, dtype="float64").sample("train", 0, 2, Shape(3, 2, 2), 0)
    optimizer = OptimizerOptions(name="sgd", learning_rate=1.0)
    one = learner(options, TINY, "transductive", (16, 16, 3), precision="float64", optimizer=optimizer, jit=False)
    loss, moved = step(one, batch)
    assert np.isfinite(loss) and len(moved) == 48 + 2 * (options.name != "protonet")
    assert all(np.isfinite(each).all() and np.abs(each).max() > 0 for each in moved.values())


def test_training_drops_and_a_test_does_not(make_source):
    """Reject a loss without noise, noise that changes when a step is repeated, and a test with noise."""
    source = make_source(channels=3, dtype="float64")
    batch, other = (source.sample("train", number, 2, Shape(3, 2, 2), 0) for number in (0, 2))

    def make(network):
        return learner(
            PrototypicalNetworkOptions(), network, "transductive", (16, 16, 3), precision="float64", jit=False
        )

    (first, moved), (again, same) = (step(make(DROPPING), batch) for _ in range(2))
    assert first == again and all(np.array_equal(moved[name], same[name]) for name in moved)
    dropping, plain = make(DROPPING), make(TINY)
    assert step(plain, batch)[0] != pytest.approx(first, rel=1e-3)
    dropping, plain = make(DROPPING), make(TINY)
    for one in (batch, other):
        np.testing.assert_array_equal(dropping.predict(one), plain.predict(one))


def test_compiled_between_convolutions_its_outputs_are_the_same():
    fused, plain = (networks.build(TINY, (16, 16, 3), None, "float64", 0, fuse) for fuse in (True, False))
    x = random(2, 4, 16, 16, 3)
    np.testing.assert_allclose(fused(fused.parameters, x), plain(plain.parameters, x), atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_compiled_between_convolutions_its_derivatives_are_the_same(make_source, precision):
    """Compare a second-order gradient with and without `fuse`."""
    batch = make_source(channels=3, dtype=precision).sample("train", 0, 2, Shape(3, 2, 2), 0)
    problem = {"protocol": "transductive", "input_shape": (16, 16, 3), "precision": precision}
    fast, slow = (learner(MAMLOptions(inner_lr=0.01), TINY, jit=jit, **problem) for jit in (True, False))
    assert fast.network.fuse and not slow.network.fuse
    (metrics, gradients), (expected, others) = (one.compiled_gradient(batch) for one in (fast, slow))
    tolerance = {"float32": 1e-3, "float64": 1e-9}[precision]
    assert float(metrics["loss"]) == pytest.approx(float(expected["loss"]), rel=tolerance)
    for name, other in others.items():
        np.testing.assert_allclose(gradients[name], other, atol=tolerance * max(1.0, float(np.abs(other).max())))


def test_bfloat16_is_near_float32():
    half, full = (networks.build(DROPPING, (16, 16, 3), 3, precision, 0) for precision in ("bfloat16", "float32"))
    assert {value.dtype for value in half.parameters.values()} == {tf.float32}
    x = tf.cast(random(2, 6, 16, 16, 3), tf.float32)
    for noise in (None, keys_of()):
        (outputs, moments), (expected, _) = (one.apply(one.parameters, x, noise=noise) for one in (half, full))
        assert outputs.dtype == tf.float32 and all(value.dtype == tf.float32 for value in moments.values())
        np.testing.assert_allclose(outputs, expected, atol=0.15 * np.abs(expected).max())
        assert np.abs(outputs - expected).max() > 1e-5  # bfloat16 was used


@pytest.mark.slow
@pytest.mark.usefixtures("cache_folder", "eagerly")
@pytest.mark.parametrize(
    "check",
    [
        conformance.dtypes,
        conformance.queries_and_tasks_apart,
        conformance.variables_are_the_state,
        conformance.resumed_runs_are_equal,
        conformance.workers_share_a_step,
    ],
)
def test_it_meets_the_requirements(check):
    """Reject drops that depend on the other tasks of a step, on the worker, or on how often a run was stopped."""
    network = "network={name: resnet12, widths: [2, 2, 3, 3], drop_rate: 0.2, drop_block: 2}"
    experiment = conformance.example("protonet", [network, "validation=null", "jit=off", "test.episodes=4"])
    train = experiment.train.model_copy(update={"log_every": 1})
    test = experiment.test.model_copy(update={"checkpoint": "last"})
    assert check(experiment.model_copy(update={"train": train, "test": test})) is None


@pytest.mark.slow
def test_a_step_of_the_papers_network(make_source):
    """Train on images of 84 pixels; the second loss of the same tasks is the lower one."""
    batch = make_source(size=84, channels=3).sample("train", 0, 1, Shape(5, 1, 1), 0)
    one = learner(
        PrototypicalNetworkOptions(distance="cosine"),
        ResNet12Options(drop_rate=0.1),
        "transductive",
        (84, 84, 3),
        optimizer=OptimizerOptions(name="sgd", learning_rate=0.01),
        jit=False,
    )
    first, second = (float(one.train_step(batch)["loss"]) for _ in range(2))
    assert np.isfinite(first) and second < first


@pytest.mark.parametrize(
    ("network", "algorithm", "said"),
    [
        (
            "{name: resnet12, drop_rate: 0.1}",
            "maml",
            "network.drop_rate: is 0.1: a step of maml draws no random numbers",
        ),
        ("{name: resnet12, drop_block: 2}", "protonet", "network.drop_block: has no effect with drop_rate: 0"),
        ("{name: resnet12, drop_rate: 1e-6}", "protonet", "network.drop_rate: is 1e-06, which drops next to nothing"),
        ("{name: resnet12, drop_rate: 0.999}", "protonet", "network.drop_rate: expected a number at most 0.9"),
        ("{name: resnet12, drop_block: null}", "maml", "network.drop_block: has no effect with drop_rate: 0"),
        ("{name: resnet12, batch_norm: false}", "maml", "network.batch_norm: is false: resnet12 has batch norm after"),
        ("{name: resnet12, widths: [64, 64]}", "maml", "network.widths"),
        ("{name: resnet12, filters: 64}", "maml", "network.filters: has no effect: resnet12 has no option filters"),
        ("{name: resnet12, freeze: [conv13]}", "maml", "there is no layer 'conv13' to freeze; did you mean conv"),
    ],
)
def test_mistakes_are_told(tmp_path, network, algorithm, said):
    text = GOOD.replace("{name: conv4}", network)
    if algorithm != "maml":
        text = text.replace("  name: maml\n  inner_lr: 0.4\n", f"  name: {algorithm}\n")
    (tmp_path / "spec.yaml").write_text(text)
    assert any(said in each for each in mistakes(tmp_path / "spec.yaml"))


def test_numbers_are_no_images(tmp_path):
    (tmp_path / "spec.yaml").write_text(
        GOOD.replace("{name: conv4}", "{name: resnet12}").replace("omniglot", "sinusoid") + "  way: 1\n"
    )
    assert "resnet12 reads images; sinusoid has numbers: use mlp" in mistakes(tmp_path / "spec.yaml")[0]


def test_layers_are_frozen_by_their_names():
    network = ResNet12Options(widths=WIDTHS, freeze=("shortcut", "norm13", "conv12"))
    names = network.parameter_names(False)
    frozen = network.frozen(names, [])
    assert frozen == {
        *(f"shortcut{block}/kernel" for block in range(1, 5)),
        "norm13/scale",
        "norm13/offset",
        "conv12/kernel",
    }
    one = learner(PrototypicalNetworkOptions(), network, "inductive", jit=False)
    assert isinstance(one.network, ResNet12) and isinstance(one.optimizer.optimizer, keras.optimizers.Optimizer)
    assert one.network.norm == {name for name in names if name.startswith("norm")} and len(one.network.norm) == 32
