"""Requirements of every algorithm, every dataset and every spec that ships."""

import json
import math
from functools import cache

import few_shot
import numpy as np
import pytest
import tensorflow as tf
from few_shot import OPTIONS
from processes import counting_traces, metarun
from shipped import SHIPPED

from metarun.algorithms import ALGORITHMS
from metarun.algorithms.classical import bandits, mdps
from metarun.algorithms.networks.options import Conv4Options, MLPOptions
from metarun.algorithms.options import OptimizerOptions
from metarun.datasets import DATASETS
from metarun.datasets import build as build_source
from metarun.datasets.errors import DataError
from metarun.datasets.images.source import ClassPool, ImageSource
from metarun.datasets.options import ImageFolderOptions
from metarun.datasets.tasks import Shape
from metarun.experiments.config.load import load
from metarun.experiments.model import build as build_run
from metarun.experiments.model import shape_of, training_shape

SHAPE = Shape(way=3, shot=2, query=2)
REGRESSORS = {"maml", "reptile"}
FEW_SHOT = {name: entry for name, entry in ALGORITHMS.items() if entry.kind == "few-shot"}
TRIALS = {"bandits", "mdps"}  # in test_bandits.py and test_mdps.py


def learner(name, regression=False, dtype="float32", seed=0):
    network = MLPOptions(hidden=(8,)) if regression else Conv4Options(filters=4, downsample="stride")
    optimizer, shape = OptimizerOptions(learning_rate=0.01, schedule="cosine"), (1,) if regression else (16, 16, 1)
    return few_shot.learner(
        OPTIONS[name], network, "transductive", shape, regression=regression, optimizer=optimizer, precision=dtype,
        seed=seed,
    )  # fmt: skip


def batch_of(make_source, name, index=0, split="train", dtype="float32"):
    shape = SHAPE if ALGORITHMS[name].trains_on_queries or split != "train" else SHAPE._replace(query=0)
    return make_source(dtype=dtype).sample(split, index, 2, shape, seed=0)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("name", FEW_SHOT)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
class TestAlgorithm:
    def test_steps_give_scalars_and_evaluation_a_value_a_task(self, make_source, name, dtype):
        one = learner(name, dtype=dtype)
        before = [value.numpy().copy() for value in one.parameters.values()]
        metrics = one.train_step(batch_of(make_source, name, dtype=dtype))
        assert all(value.shape == () and math.isfinite(value) for value in metrics.values()) and "loss" in metrics
        assert any((old != new.numpy()).any() for old, new in zip(before, one.parameters.values(), strict=True))
        assert all(value.dtype == dtype for value in one.parameters.values())
        values = one.evaluate(batch_of(make_source, name, 5, "test", dtype))
        assert all(value.shape[0] == 2 for value in values.values())
        assert {"accuracy", "negative_log_likelihood", "calibration"} <= values.keys()
        assert (values["accuracy"].numpy() >= 0).all() and (values["accuracy"].numpy() <= 1).all()

    def test_evaluation_changes_nothing(self, make_source, name, dtype):
        one = learner(name, dtype=dtype)
        one.train_step(batch_of(make_source, name, dtype=dtype))
        before = [variable.numpy().copy() for variable in one.variables]
        test = batch_of(make_source, name, 5, "test", dtype)
        first, again = one.evaluate(test), one.evaluate(test)
        for old, new in zip(before, one.variables, strict=True):
            np.testing.assert_array_equal(old, new.numpy())
        np.testing.assert_array_equal(first["negative_log_likelihood"], again["negative_log_likelihood"])

    def test_variables_are_all_that_a_checkpoint_needs(self, make_source, name, dtype):
        one, other = learner(name, dtype=dtype), learner(name, dtype=dtype, seed=1)
        one.train_step(batch_of(make_source, name, dtype=dtype))
        for source, target in zip(one.variables, other.variables, strict=True):
            target.assign(source)
        incomplete = learner(name, dtype=dtype, seed=1)  # only the parameters: what a careless checkpoint keeps
        for key, value in one.parameters.items():
            incomplete.parameters[key].assign(value)
        batch = batch_of(make_source, name, 2, dtype=dtype)
        for each in (one, other, incomplete):
            each.train_step(batch)
        for key, value in one.parameters.items():
            np.testing.assert_array_equal(value.numpy(), other.parameters[key].numpy())
        assert any((value.numpy() != incomplete.parameters[key].numpy()).any() for key, value in one.parameters.items())

    def test_the_seed_decides_the_first_weights(self, name, dtype):
        weights = [
            np.concatenate(
                [value.numpy().ravel() for value in learner(name, dtype=dtype, seed=seed).parameters.values()]
            )
            for seed in (0, 0, 1)
        ]
        np.testing.assert_array_equal(weights[0], weights[1])
        assert (weights[0] != weights[2]).any()


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("name", FEW_SHOT)
def test_a_task_is_judged_alone(make_source, name):
    """The values of a task are those it has in any other batch."""
    one = learner(name, dtype="float64")
    both = one.evaluate(make_source(dtype="float64").sample("test", 0, 2, SHAPE, seed=0))
    for number in range(2):
        alone = one.evaluate(make_source(dtype="float64").sample("test", number, 1, SHAPE, seed=0))
        for key, value in alone.items():
            np.testing.assert_allclose(value[0], both[key][number], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", sorted(REGRESSORS))
def test_regression(name):
    from metarun.datasets.options import SinusoidOptions

    source, one = build_source(SinusoidOptions()), learner(name, regression=True)
    shape = Shape(1, 5, 5 if ALGORITHMS[name].trains_on_queries else 0)
    assert "loss" in one.train_step(source.sample("train", 0, 2, shape, 0))
    assert one.evaluate(source.sample("test", 0, 2, Shape(1, 5, 5), 0))["mse"].shape == (2,)


def test_every_algorithm_is_in_the_suite():
    """RL^2 has tests of its own, and the classical methods have theirs."""
    assert OPTIONS.keys() == FEW_SHOT.keys() == {SHIPPED[name].algorithm.name for name in QUICK}
    others = {name: entry.kind for name, entry in ALGORITHMS.items() if name not in FEW_SHOT}
    assert others.pop("rl2") == "trials" and set(others.values()) == {"classical"}
    assert set(others) == {*bandits.RULES, *mdps.PLANS, "random"}


@pytest.fixture
def source_of(request, cache_folder, tmp_path):
    """Return a function that builds the registered dataset of a name, of real data where there is no other."""

    def make(name):
        if name in ("omniglot", "miniimagenet"):
            import_real(name, request.getfixturevalue("real_data"))
        if name == "imagefolder":
            write_pictures(tmp_path)
            return build_source(ImageFolderOptions(path=tmp_path, image_size=16, channels=1))
        return build_source(DATASETS[name]())

    return make


def import_real(name, folder):
    """Fill the session's cache once."""
    from metarun.datasets import miniimagenet, omniglot
    from metarun.datasets.images import cache

    parts, module = {
        "omniglot": (["omniglot"], omniglot),
        "miniimagenet": ([f"miniimagenet-{split}" for split in ("train", "val", "test")], miniimagenet),
    }[name]
    if not all(cache.read(part) for part in parts):
        module.import_from([folder / name])


def write_pictures(folder, classes=20, images=6):
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(classes):
        (folder / f"class {number}").mkdir()
        for image in range(images):
            pixels = generator.integers(0, 256, (20, 24), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class {number}" / f"{image}.png")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "miniimagenet" else ())
        for name in DATASETS
        if name not in TRIALS
    ],
)
def test_a_dataset_is_a_pure_function_that_can_be_traced(source_of, name):
    source = source_of(name)
    shape = Shape(1, 5, 5) if source.regression else SHAPE
    for split in ("train", "val", "test"):
        source.check(split, shape)
        one = source.sample(split, 3, 2, shape, seed=7)
        traced = tf.function(lambda index, split=split: source.sample(split, index, 2, shape, 7))(
            tf.constant(3, tf.int64)
        )
        alone = source.sample(split, 4, 1, shape, seed=7)
        for part, same, last in zip(one, traced, alone, strict=True):
            np.testing.assert_array_equal(part, same)
            np.testing.assert_array_equal(part[1:], last)
        assert one.support_x.shape == (2, shape.way * shape.shot, *source.input_shape)
        assert one.query_y.shape == (2, shape.way * shape.query, *source.target_shape)
        others = [source.sample(split, 3, 2, shape, seed=8), source.sample(split, 5, 2, shape, seed=7)]
        assert all((one.drawn.numpy() != other.drawn.numpy()).any() for other in others)
        assert np.isfinite(one.support_x).all()
    if not source.regression:
        names = [set(source.pools[split].names) for split in ("train", "val", "test")]
        assert all(names) and not names[0] & names[1] and not names[0] & names[2] and not names[1] & names[2]
        with pytest.raises(DataError, match="lower way"):
            source.check("test", Shape(999_999, 1, 1))


FEW_SHOT_SPECS = {name: spec for name, spec in SHIPPED.items() if not spec.kind.plays_trials}
QUICK = ("quickstart/maml", "quickstart/reptile", "quickstart/matchingnet", "omniglot/protonet", "finn2017/sinusoid")


@pytest.fixture(scope="module")
def noise():
    """Return a function that makes 60 classes of images of noise in every split, by size and channels."""

    @cache
    def make(size, channels):
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (60 * 30, size, size, channels), np.uint8)
        pool = ClassPool(images, np.full(60, 30), tuple(f"class {number}" for number in range(60)))
        return ImageSource("noise", dict.fromkeys(("train", "val", "test"), pool))

    return make


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("name", FEW_SHOT_SPECS)
def test_shipped_specs_take_a_step(name, noise, monkeypatch):
    """Steps on noise, with a network of few filters, one task and one test step: shapes, options and losses fit."""
    changes, spec = ["train.meta_batch=1"], FEW_SHOT_SPECS[name]
    if spec.algorithm.name in REGRESSORS:
        changes += ["algorithm.test_inner_steps=1"]
    if getattr(spec.algorithm, "tasks_per_chunk", None):
        changes += ["algorithm.tasks_per_chunk=null"]
    if not name.endswith("sinusoid"):
        changes += ["network.filters=2"]
        size = (84, 3) if spec.dataset.name == "miniimagenet" else (28, 1)
        monkeypatch.setattr("metarun.datasets.build", lambda options, dtype: noise(*size))
    spec = load(name, changes).experiment
    model = build_run(spec, 0)
    source, one = model.source, model.learner
    before = [value.numpy() for value in one.parameters.values()]
    metrics = one.train_step(source.sample("train", 0, 1, training_shape(spec), 0))
    assert math.isfinite(metrics["loss"])
    assert any((old != new.numpy()).any() for old, new in zip(before, one.parameters.values(), strict=True))
    values = one.evaluate(source.sample("test", 0, 1, shape_of(spec.test), 0))
    assert all(value.shape[0] == 1 and np.isfinite(value).all() for value in values.values())


def family(spec):
    """Return what specs that differ in numbers alone have in common."""
    text = spec.model_dump_json(exclude={"name", "seeds", "published", "cluster"})
    return json.dumps(json.loads(text, parse_int=lambda _: 0, parse_float=lambda _: 0))


FAMILIES = {family(FEW_SHOT_SPECS[name]): name for name in reversed(FEW_SHOT_SPECS)}  # the first of each


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES.values() if name not in QUICK)]
)
def test_shipped_specs_train_three_steps_in_one_trace(name, cache_folder, tmp_path, request):
    """A spec of each family, on its dataset, with its network and compiled as it is for a user, few images at a time.
    Specs have a process of their own, since programs stay in memory until it ends."""
    spec = FEW_SHOT_SPECS[name]
    changes = {"train.steps": 3, "train.log_every": 1, "train.meta_batch": 2, "test.query": 1, "test.episodes": 4}
    if ALGORITHMS[spec.algorithm.name].trains_on_queries:
        changes["train.query"] = 1
    if spec.algorithm.name in REGRESSORS:
        changes["algorithm.test_inner_steps"] = 1
    if getattr(spec.algorithm, "tasks_per_chunk", None):
        changes["algorithm.tasks_per_chunk"] = 1
    if spec.validation:
        changes |= {"validation.every": 2, "validation.episodes": 2}
    if spec.dataset.name in ("omniglot", "miniimagenet"):
        import_real(spec.dataset.name, request.getfixturevalue("real_data"))
    options = [part for key, value in changes.items() for part in ("-s", f"{key}={value}")]
    done = metarun("train", name, "--seed", 0, "--out", tmp_path, *options, program=counting_traces)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("traced: 1\n"), "Python ran in the training loop"
    run = tmp_path / spec.name / "seed-0"
    row = json.loads((run / "result.json").read_text())
    assert row["train_steps"] == 3 and row["episodes"] == 4 and math.isfinite(row["mean"])
    lines = (run / "metrics.csv").read_text().splitlines()
    validations = sum(",val," in line for line in lines)
    assert validations == (2 if spec.validation else 0) and len(lines) == 1 + 3 + validations
