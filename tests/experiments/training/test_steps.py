"""Tests of the training steps: how many are made in one call changes nothing, compiled as one program or not."""

import numpy as np
import pytest

from metarun.experiments.config.load import load
from metarun.experiments.model import build
from metarun.experiments.training import steps as module
from metarun.experiments.training.steps import TrainingSteps

WAVES = ("network.hidden=[4]", "train.meta_batch=2", "precision=float64")
SPECS = {
    "waves": ("finn2017/sinusoid", *WAVES),
    "images": ("quickstart/protonet", "network={name: mlp, hidden: [4]}", "precision=float64", "train.way=3"),
}


def steps_of(kind: str, *overrides: str) -> TrainingSteps:
    """Return the first steps of a small spec."""
    spec, *own = SPECS[kind]
    return TrainingSteps(build(load(spec, [*own, *overrides]).experiment, seed=0))


def state(steps: TrainingSteps) -> list[np.ndarray]:
    """Return all that the steps have changed."""
    return [variable.numpy() for variable in steps.learner.variables]


@pytest.mark.parametrize("kind", ["waves", pytest.param("images", marks=pytest.mark.slow)])
def test_one_program_of_many_updates_gives_the_same_numbers_in_any_grouping(kind, monkeypatch):
    """Reject a task twice or left out where a call ends, and rows of the calls in another order."""
    monkeypatch.setattr(module, "MOST_STEPS", 3)
    together, apart, plain = (steps_of(kind, f"jit={jit}") for jit in ("on", "on", "off"))
    assert together.in_one_program and not plain.in_one_program
    metrics = together.take(5)
    parts = [apart.take(count) for count in (1, 2, 2)]
    for name, values in metrics.items():
        np.testing.assert_array_equal(values, np.concatenate([part[name] for part in parts]))
    for one, other in zip(state(together), state(apart), strict=True):
        np.testing.assert_array_equal(one, other)
    expected = plain.take(5)
    assert len(set(expected["loss"])) == 5
    for name, values in metrics.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-9)
    for one, other in zip(state(together), state(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("spec", "overrides", "expected"),
    [
        ("finn2017/sinusoid", ["train.steps=1000"], True),
        ("finn2017/sinusoid", ["train.steps=999"], False),
        ("finn2017/sinusoid", ["train.steps=1000", "jit=off"], False),
        ("quickstart/protonet", ["train.steps=1000"], False),
    ],
)
def test_short_updates_are_one_program_if_there_are_many(spec, overrides, expected):
    """Compile the loop only where that is repaid; convolutions are faster in the library's own kernels."""
    assert TrainingSteps(build(load(spec, overrides).experiment, seed=0)).in_one_program == expected
