"""Models that specs build: sources of other packages are checked for what they lack, streams draw what sources draw."""

import numpy as np
import pytest

from metarun import datasets
from metarun.datasets.errors import DataError
from metarun.datasets.options import BanditsOptions, GlyphsOptions, SinusoidOptions
from metarun.datasets.tasks import EpisodeStream, Shape, TaskSource
from metarun.datasets.trials import TrialStream
from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.model import build

SINES = ("network.hidden=[8]", "train.steps=4")


class Lacking:
    """Lack two members of a source of tasks, without a base class."""

    name, regression, in_memory, content_digest = "lacking", True, True, ""
    input_shape = target_shape = (1,)

    def sample(self, *arguments):
        raise AssertionError("it is refused before it is asked for tasks")


class Played(Lacking):
    trial = "one environment"


@pytest.mark.parametrize(
    ("spec", "source", "message"),
    [
        ("finn2017/sinusoid", Lacking(), r"lacks check, stream: derive it from metarun\.datasets\.tasks\.TaskSource"),
        ("finn2017/sinusoid", Played(), "maml cannot learn from lacking, which has only trials"),
        ("duan2016/bandits-rl2", Lacking(), "rl2 cannot learn from lacking, which has no trials"),
        (
            "duan2016/bandits-rl2",
            Played(),
            r"lacks .*compiles.*: derive .* metarun\.datasets\.trials\.TrialSource",
        ),
    ],
)
def test_what_a_source_lacks_is_named(monkeypatch, spec, source, message):
    """Reject a source of trials without one attribute that is taken for a source of episodes."""
    monkeypatch.setattr(datasets, "build", lambda options, dtype: source)
    overrides = SINES if spec.startswith("finn") else ()
    with pytest.raises(RunError, match=message):
        build(load(spec, overrides).experiment, 0)


def test_a_source_that_derives_says_at_once_what_it_lacks():
    class Half(TaskSource):
        def check(self, split, shape): ...

    with pytest.raises(TypeError, match="sample"):
        Half()


@pytest.mark.parametrize(("split", "seed", "same"), [("val", 3, True), ("val", 4, False), ("test", 3, False)])
def test_a_stream_draws_the_tasks_of_its_split_shape_and_seed(split, seed, same):
    source, shape = datasets.build(SinusoidOptions()), Shape(1, 4, 5)
    stream = source.stream("val", shape, 3)
    assert isinstance(stream, EpisodeStream) and stream.examples == 9 and stream.columns == shape._asdict()
    drawn, expected = stream.sample(7, 2), source.sample(split, 7, 2, shape, seed)
    assert np.array_equal(drawn.drawn, expected.drawn) is same


def test_trials_are_a_stream_too():
    source = datasets.build(BanditsOptions(arms=3, pulls=6))
    stream = source.stream("test", Shape(5, 1, 1), 2)
    assert isinstance(stream, TrialStream) and not stream.drawn_in_parts
    assert stream.examples == 6 and stream.columns == {"trial": "3 arms, 6 pulls"} and stream.at_once(5000) == 1000
    assert np.array_equal(stream.sample(0, 4).drawn, source.sample("test", 0, 4, 2).drawn)


def test_a_model_has_three_streams(cache_folder):
    """Reject training tasks of the seed of the tests, or tests of the seed of the run."""
    experiment = load("quickstart/protonet", ["test.episode_seed=5", "train.way=6", "train.steps=1"]).experiment
    model = build(experiment, 7)
    streams = model.training_stream(), model.validation_stream(), model.test_stream("train")
    assert [(stream.split, stream.seed) for stream in streams] == [("train", 7), ("val", 5), ("train", 5)]
    assert streams[0].shape.way == 6 and streams[2].shape.way == 5
    assert isinstance(experiment.dataset, GlyphsOptions)


def test_fault_24_splits_with_too_few_images_are_told_at_once(cache_folder):
    """Reject the second is told once the first is mended."""
    experiment = load("quickstart/protonet", ["train.query=200", "test.query=100"]).experiment
    with pytest.raises(DataError) as caught:
        build(experiment, 0)
    assert all(f"the classes of {split} have" in str(caught.value) for split in ("train", "val", "test"))
