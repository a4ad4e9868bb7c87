"""Requirements of every algorithm, every dataset and every spec that ships."""

import json
import math
from functools import cache

import copies
import numpy as np
import pytest
import tensorflow as tf
from processes import counting_traces, metarun
from shipped import SHIPPED

from metarun.algorithms import ALGORITHMS, KINDS
from metarun.algorithms.classical import bandits, mdps
from metarun.datasets import DATASETS
from metarun.datasets import build as build_source
from metarun.datasets.errors import DataError
from metarun.datasets.images import cache as images
from metarun.datasets.images import published
from metarun.datasets.images.source import ClassPool, ImageSource
from metarun.datasets.options import ImageFolderOptions
from metarun.datasets.tasks import Shape
from metarun.experiments.config.load import load
from metarun.experiments.model import build as build_run
from metarun.experiments.model import shape_of, training_shape
from metarun.experiments.training.conformance import dtypes, example, values_of_tasks

SHAPE = Shape(way=3, shot=2, query=2)
FEW_SHOT = {name: entry for name, entry in ALGORITHMS.items() if entry.kind == "few-shot"}
TRIALS = {"bandits", "mdps"}  # in test_bandits.py and test_mdps.py
SMALL = {"tieredimagenet", "cifar-fs", "fc100", "cub", "emnist"}  # datasets that are read from small copies


@pytest.mark.parametrize(
    "name", [name for name, entry in ALGORITHMS.items() if entry.kind == "few-shot" and entry.has_head]
)
def test_regression(name):
    experiment = example("sinusoid", ["train.shot=10"]).model_copy(update={"algorithm": example(name).algorithm})
    assert dtypes(experiment) is None and values_of_tasks(experiment) is None


def test_classical_methods_are_tested_by_their_rules():
    """Compare with the rules; test_requirements.py finds those that are trained."""
    classical = {name for name, entry in ALGORITHMS.items() if entry.kind == "classical"}
    assert classical == {*bandits.RULES, *mdps.PLANS, "random"}


@pytest.fixture
def source_of(request, cache_folder, tmp_path, monkeypatch):
    """Return a function that builds the registered dataset of a name, from real data or a small copy."""

    def make(name):
        if name in SMALL:
            monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
            copies.shrink(monkeypatch, images=SHAPE.shot + SHAPE.query)
            published.import_from(published.layout_of(name), [copies.small(name, tmp_path)])
        if name in ("omniglot", "miniimagenet"):
            import_real(name, request.getfixturevalue("real_data"))
        if name == "imagefolder":
            write_pictures(tmp_path)
            return build_source(ImageFolderOptions(path=tmp_path, image_size=16, channels=1))
        return build_source(DATASETS[name]())

    return make


def import_real(name, folder):
    """Fill the session's cache once, by a process that takes its memory with it."""
    if not all(images.read(part) for part in images.PARTS[name]):
        done = metarun("data", "import", name, folder / name)
        assert done.returncode == 0, done.stderr


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
        pytest.param(name, marks=pytest.mark.slow if name in ("miniimagenet", "omniglot", "glyphs") else ())
        for name in DATASETS
        if name not in TRIALS
    ],
)
def test_a_dataset_is_a_pure_function_that_can_be_traced(source_of, name):
    source = source_of(name)
    shape = Shape(1, 5, 5) if source.regression else SHAPE
    splits = ("val", "test") if name == "emnist" else ("train", "val", "test")
    for split in splits:
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
        names = [set(source.pools[split].names) for split in splits]
        assert all(names) and len(set.union(*names)) == sum(map(len, names))
        with pytest.raises(DataError, match="lower way"):
            source.check("test", Shape(999_999, 1, 1))


TRAINED_ON_EPISODES = KINDS["few-shot"]
FEW_SHOT_SPECS = {name: spec for name, spec in SHIPPED.items() if spec.kind == TRAINED_ON_EPISODES}
QUICK = ("quickstart/matchingnet", "finn2017/sinusoid")


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
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name.startswith("quickstart") else pytest.mark.slow) for name in FEW_SHOT_SPECS],
)
def test_shipped_specs_take_a_step(name, noise, monkeypatch):
    """Take steps on noise, with a network of few filters, one task and one test step: shapes, options and losses
    fit."""
    changes, spec = ["train.meta_batch=1"], FEW_SHOT_SPECS[name]
    if hasattr(spec.algorithm, "test_inner_steps"):
        changes += ["algorithm.test_inner_steps=1"]
    if getattr(spec.algorithm, "tasks_per_chunk", None):
        changes += ["algorithm.tasks_per_chunk=null"]
    if not name.endswith("sinusoid"):
        changes += ["network.filters=2"]
        size = {"miniimagenet": (84, 3), "cifar-fs": (32, 3)}.get(spec.dataset.name, (28, 1))
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
    """Train a spec of each family, on its dataset, with its network and compiled as it is for a user, few images at a
    time. Specs have a process of their own, since programs stay in memory until it ends."""
    spec = FEW_SHOT_SPECS[name]
    changes = {"train.steps": 3, "train.log_every": 1, "train.meta_batch": 2, "test.query": 1, "test.episodes": 4}
    if ALGORITHMS[spec.algorithm.name].trains_on_queries:
        changes["train.query"] = 1
    if hasattr(spec.algorithm, "test_inner_steps"):
        changes["algorithm.test_inner_steps"] = 1
    if getattr(spec.algorithm, "tasks_per_chunk", None):
        changes["algorithm.tasks_per_chunk"] = 1
    if getattr(spec.algorithm, "full_context_embeddings", False) and spec.dataset.name == "miniimagenet":
        changes["network.filters"] = 8  # or the three LSTMs have 71 million weights
    if spec.validation:
        changes |= {"validation.every": 2, "validation.episodes": 2}
    if spec.dataset.name in ("omniglot", "miniimagenet"):
        import_real(spec.dataset.name, request.getfixturevalue("real_data"))
    if spec.dataset.name in SMALL:
        pytest.skip(f"there is no real {spec.dataset.name}")
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
