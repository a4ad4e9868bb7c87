"""Sources of other packages whose tasks are not the same whenever they are drawn or played are refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from metarun.datasets.errors import DataError
from metarun.datasets.options import SinusoidOptions
from metarun.datasets.sinusoid import SinusoidSource
from metarun.datasets.tasks import Shape
from metarun.experiments.config.load import load
from metarun.experiments.evaluation import repeatable
from metarun.experiments.evaluation.repeatable import refuse_unrepeatable
from metarun.experiments.evaluation.retest import evaluate
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run
from metarun.experiments.training.train import train


def model_of(source, plays):
    """Return what `refuse_unrepeatable` asks of a model, for a source of another package."""
    dataset = object()
    experiment = SimpleNamespace(dataset=dataset, tested=dataset, kind=SimpleNamespace(plays_trials=plays))
    return SimpleNamespace(
        experiment=experiment,
        source=source,
        tested=None,
        test_stream=lambda split: source.stream(split, Shape(1, 3, 4), 0),
    )


def corridors(luck, box=False, horizon=6):
    """Return a source of environments whose first observation and rewards are `luck(environment, whether first)`."""
    gymnasium = pytest.importorskip("gymnasium", reason="the extra `gymnasium` is not installed")
    from metarun.datasets.gymnasium import GymnasiumSource

    class Corridor(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-9, 9, (1,))
        action_space = gymnasium.spaces.Box(-1, 1, (1,)) if box else gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.place = luck(self, True)
            return np.array([self.place], np.float32), {}

        def step(self, action):
            self.place += 0.1 * float(np.ravel(action)[0])
            return np.array([self.place], np.float32), luck(self, False), False, False, {}

    return GymnasiumSource("corridors", lambda generator: Corridor(), episodes=2, horizon=horizon)


class Restless:
    """Draw an environment's luck that goes on from one playing to the next."""

    number = 0

    def __call__(self, environment, first):
        self.number += 1
        return 0.1 * self.number


@pytest.mark.parametrize("box", [False, True])
def test_fault_13_environments_that_obey_their_seed_are_taken(box):
    drawn = []

    def luck(environment, first):
        drawn.append(environment.np_random.random())
        return drawn[-1]

    refuse_unrepeatable(model_of(corridors(luck, box), True))
    half = len(drawn) // 2  # it was played, and each number was drawn at least twice
    assert half > 10 and all(drawn.count(each) > 1 for each in drawn)


@pytest.mark.parametrize(
    ("luck", "told"),
    [
        (lambda one, first: np.random.random(), "observation of step 0"),
        (Restless(), "observation of step 0: 0.1 and "),
        (lambda one, first: 0.0 if first else np.random.random(), "reward of step 0"),
    ],
)
def test_fault_13_environments_that_do_not_obey_their_seed_are_refused(luck, told):
    """Reject a check of the first observations alone; two tests of one run with equal digests and other rewards."""
    with pytest.raises(DataError, match="corridors: a test trial was another one when it was drawn again") as caught:
        refuse_unrepeatable(model_of(corridors(luck), True))
    assert told in str(caught.value) and "self.np_random" in str(caught.value)


def test_fault_13_a_vector_of_environments_that_share_one_generator_is_refused():
    """Play trials that are the same again, and others without their neighbour. Rejected: two playings alone."""
    gymnasium = pytest.importorskip("gymnasium", reason="the extra `gymnasium` is not installed")
    from metarun.datasets.gymnasium import GymnasiumSource

    class Shared(gymnasium.vector.VectorEnv):
        metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
        single_observation_space = gymnasium.spaces.Discrete(3)
        single_action_space = gymnasium.spaces.Discrete(2)

        def __init__(self, generators):
            self.count = len(generators)

        def reset(self, *, seed=None, options=None):
            self.generator = np.random.default_rng(seed[0])
            return np.zeros(self.count, np.int64), {}

        def step(self, actions):
            ends = np.zeros(self.count, bool)
            return np.zeros(self.count, np.int64), self.generator.random(self.count), ends, ends, {}

    source = GymnasiumSource("shared", make_vector=Shared, episodes=1, horizon=4)
    with pytest.raises(DataError, match="another one when it was drawn without the other .reward of step 0"):
        refuse_unrepeatable(model_of(source, True))


class Drawn(SinusoidSource):
    """Sample sinusoids whose targets are moved by `noise(index, tasks)`, `[T, 1, 1]`."""

    def __init__(self, noise):
        super().__init__(SinusoidOptions())
        self.noise = noise

    def sample(self, split, index, tasks, shape, seed):
        """Sample tasks, see `TaskSource`."""
        drawn = super().sample(split, index, tasks, shape, seed)
        return drawn._replace(query_y=drawn.query_y + tf.cast(self.noise(index, tasks), drawn.query_y.dtype))


@pytest.mark.parametrize(
    ("noise", "told"),
    [
        (lambda index, tasks: tf.random.uniform((tasks, 1, 1)), "drawn again"),
        (lambda index, tasks: np.random.random((tasks, 1, 1)), "without the other"),
        (lambda index, tasks: tf.random.stateless_uniform((tasks, 1, 1), (0, index)), "without the other"),
    ],
)
def test_fault_13_tasks_that_are_no_function_of_their_number_are_refused(noise, told):
    with pytest.raises(DataError, match=f"{told} .query_y: .*sample. must be a pure function"):
        refuse_unrepeatable(model_of(Drawn(noise), False))
    refuse_unrepeatable(model_of(Drawn(lambda index, tasks: tf.zeros(())), False))


def test_fault_13_it_is_refused_before_training_and_before_another_test(tmp_path, monkeypatch):
    """Reject a row of tasks that nobody can draw again."""
    told = [
        "train.steps=1",
        "train.meta_batch=2",
        "validation=null",
        "test.episodes=4",
        "jit=off",
        "network.hidden=[8]",
    ]
    experiment = load("finn2017/sinusoid", told).experiment
    directory, other = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "other")
    train(Run(experiment, 0, directory))  # while they are drawn as they should be
    sample = SinusoidSource.sample

    def unlike(source, split, index, tasks, shape, seed):
        drawn = sample(source, split, index, tasks, shape, seed)
        return drawn._replace(query_y=drawn.query_y + tf.random.uniform(drawn.query_y.shape))

    monkeypatch.setattr(SinusoidSource, "sample", unlike)
    monkeypatch.setattr(repeatable, "BUILT_IN", {})
    with pytest.raises(DataError, match="a val task was another one when it was drawn again .query_y"):
        evaluate(directory.path, "val", {})
    with pytest.raises(DataError, match="a test task was another one when it was drawn again .query_y"):
        train(Run(experiment, 0, other))
    assert not other.finished and not other.newest_checkpoints()
