"""The modified Hausdorff distance, beside a plain reading of its definition."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from specs import mistakes

from metarun.algorithms.hausdorff import ModifiedHausdorff, distance
from metarun.algorithms.options import HausdorffOptions
from metarun.datasets.images.source import ClassPool, ImageSource
from metarun.datasets.tasks import Shape
from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.evaluation.retest import evaluate
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run
from metarun.experiments.training.train import train

SPEC = """\
name: near
algorithm: {name: hausdorff}
dataset: {name: glyphs}
test: {way: 3, shot: 1, query: 2, episodes: 5}
"""


def directed(one, other, mean=lambda values: sum(values) / len(values)):
    return mean([min(math.dist(a, b) for b in other) for a in one])


def test_the_distance_is_the_larger_of_two_means():
    """Reject: the sum or the smaller of both, and the classical distance, which is the largest of the smallest."""
    generator = np.random.default_rng(0)
    for _ in range(5):
        one, other = generator.normal(size=(7, 2)), generator.normal(size=(4, 2))
        both = directed(one, other), directed(other, one)
        assert distance(one, other) == distance(other, one) == pytest.approx(max(both), rel=1e-12)
        classical = max(directed(one, other, max), directed(other, one, max))
        assert len({round(each, 9) for each in (distance(one, other), sum(both), min(both), classical)}) == 4
    assert distance(np.zeros((0, 2)), one) == distance(np.zeros((0, 2)), np.zeros((0, 2))) == math.inf


def learner(images, ink=1, **options):
    """Return a learner and the source of drawings `[classes, 2, H, W]`."""
    pixels = (255 * np.asarray(images, np.uint8)).reshape(-1, *np.shape(images)[2:], 1)
    scale = {"mean": (0.0,), "std": (1.0,)} if ink else {"mean": (1.0,), "std": (-1.0,)}
    pool = ClassPool(pixels, np.full(len(images), 2), tuple(f"{n}" for n in range(len(images))))
    source = ImageSource("drawings", {"test": pool}, **scale)
    return ModifiedHausdorff(HausdorffOptions(), source), source


def drawings():
    """Return four shapes of 9x9, each twice, the second time moved."""
    strokes = np.zeros((4, 2, 9, 9))
    for number, (rows, columns) in enumerate([(1, 5), (5, 1), (3, 3), (2, 4)]):
        for copy, at in enumerate((0, 3)):
            strokes[number, copy, at : at + rows, at : at + columns] = 1
    return strokes


@pytest.mark.parametrize("ink", [1, 0])
def test_a_moved_drawing_is_the_same_whichever_value_ink_has(ink):
    """Reject points without their mean subtracted, and paper taken for ink."""
    model, source = learner(drawings(), ink)
    batch = source.sample("test", 0, 6, Shape(4, 1, 1), 0)
    assert model.evaluate(batch)["accuracy"].numpy().tolist() == [1] * 6
    scores = model.predict(batch).numpy()
    assert scores.shape == (1, 6, 4, 4) and (np.diagonal(scores[0], axis1=1, axis2=2) == 0).all()
    assert len(np.unique(scores.round(9))) > 4


def test_the_first_of_equals_wins_and_blank_drawings_are_far():
    blank, dot = np.zeros((1, 2, 9, 9)), np.zeros((2, 2, 9, 9))
    dot[:, :, 4, 4] = 1
    model, source = learner(np.concatenate([blank, dot]))
    batch = source.sample("test", 0, 20, Shape(3, 1, 1), 0)
    np.testing.assert_allclose(model.evaluate(batch)["accuracy"], 1 / 3)  # of two dots the first; no blank one is right


def test_of_several_supports_the_nearest_one_counts():
    """Reject the mean distance to the supports of a class."""
    shapes = drawings()
    model, source = learner(shapes)
    batch = source.sample("test", 0, 1, Shape(2, 1, 1), 0)
    supports = tf.stack([batch.support_x[0, 0], batch.query_x[0, 1], batch.support_x[0, 1], batch.support_x[0, 1]])
    two = batch._replace(support_x=supports[None], query_x=batch.query_x[:, 1:], query_y=tf.constant([[0]]))
    assert model.evaluate(two)["accuracy"].numpy().tolist() == [1]  # class 0 has an equal drawing, and comes first


@pytest.fixture(scope="module")
def run(tmp_path_factory, session_cache):
    folder = tmp_path_factory.mktemp("near")
    (folder / "near.yaml").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARUN_CACHE", str(session_cache))
        directory = RunDirectory(folder / "seed-0")
        return directory, train(Run(load(folder / "near.yaml").experiment, 0, directory))


def test_it_runs_without_training_and_is_tested_in_another_way(run, cache_folder):
    directory, row = run
    assert (row.train_steps, row.parameters, row.protocol, row.checkpoint) == (0, 0, None, "last")
    assert 1 / 3 < row.mean <= 1 and row.expected_calibration_error is None
    other, path, known = evaluate(directory.path, "val", {"way": 4})
    assert (other.split, other.way, other.checkpoint, known) == ("val", 4, "last", False)
    assert "None" not in path.name and evaluate(directory.path, "val", {"way": 4}).known
    with pytest.raises(RunError, match="hausdorff is not trained: run `metarun train`"):
        (directory.path / "result.json").rename(directory.path / "away.json")
        try:
            evaluate(directory.path, "val", {})
        finally:
            (directory.path / "away.json").rename(directory.path / "result.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("glyphs", "miniimagenet"), "hausdorff compares the ink of drawings: use omniglot or glyphs"),
        (("glyphs", "bandits"), "bandits are trials: hausdorff is a few-shot learner"),
        (("test:", "protocol: inductive\ntest:"), "protocol: has no effect: hausdorff has no batch norm"),
        (("test:", "network: {name: conv4}\ntest:"), "network: has no effect: hausdorff is not trained"),
        (("test:", "train: {steps: 3}\ntest:"), "train: has no effect: hausdorff is not trained"),
        (("test:", "seeds: [0, 1]\ntest:"), "seeds: has no effect: the random choices of hausdorff depend on"),
        (("way: 3", "way: 1"), "test.way: is 1: there is nothing to choose from"),
    ],
)
def test_what_has_no_effect_is_refused(tmp_path, change, message):
    (tmp_path / "near.yaml").write_text(SPEC.replace(*change))
    assert any(message in problem for problem in mistakes(tmp_path / "near.yaml"))


def test_few_shot_settings_of_training_do_not_bound_it(tmp_path, cache_folder):
    """Reject: the default of train.query, 15, or too few validation classes, refuse a test."""
    (tmp_path / "near.yaml").write_text(SPEC.replace("query: 2", "query: 19"))
    assert load(tmp_path / "near.yaml", with_data=True).experiment.test.query == 19
    for way, query in itertools.product((2, 3), (1, 2)):
        spec = load(tmp_path / "near.yaml", [f"test.way={way}", f"test.query={query}"]).experiment
        assert spec.taken == () and (spec.test.way, spec.test.shot, spec.test.query) == (way, 1, query)
