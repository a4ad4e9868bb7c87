"""The temperature with the least negative log-likelihood."""

import json

import numpy as np
import pytest
from rows import ROW

from metarun.experiments.errors import RunError
from metarun.experiments.evaluation.judges import best_temperature, calibration_warning, stored
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.rows import Row


def likelihood(logits, labels, temperature):
    """Return the mean negative log-likelihood, written plainly."""
    powers = np.exp(logits / temperature)
    return -np.log(powers[np.arange(len(labels)), labels] / powers.sum(axis=1)).mean()


def answers(seed, number=500, way=5):
    """Return logits that are right more often than not, and labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, way, number)
    return generator.normal(size=(number, way)) + 1.5 * np.eye(way)[labels], labels


@pytest.mark.parametrize("seed", range(5))
def test_no_other_temperature_has_a_lower_likelihood(seed):
    """Reject logits that are multiplied by the temperature: the best is then its inverse."""
    logits, labels = answers(seed)
    logits *= 3
    found = best_temperature(logits, labels)
    grid = np.exp(np.linspace(-3, 4, 701))
    best = grid[np.argmin([likelihood(logits, labels, each) for each in grid])]
    assert abs(np.log(found / best)) < 0.01 and found > 1.5
    least = likelihood(logits, labels, found)
    for other in (found * 1.001, found / 1.001, 1 / found):
        assert likelihood(logits, labels, other) > least


def test_the_temperature_has_the_scale_of_the_logits():
    """Reject a search in steps that are coarse: values agree to twelve digits. An equal shift changes nothing."""
    logits, labels = answers(0)
    found = best_temperature(logits, labels)
    assert best_temperature(40 * logits, labels) == pytest.approx(40 * found, rel=1e-12)
    assert best_temperature(logits / 40 + 1000, labels) == pytest.approx(found / 40, rel=1e-9)
    assert best_temperature(1e-300 + logits, labels) == pytest.approx(found, rel=1e-12)


def test_answers_that_tell_no_temperature_are_refused():
    """Reject the end of the interval as a temperature: perfect answers would be sure for ever."""
    labels = np.arange(5)
    with pytest.raises(RunError, match="all 5 validation queries are answered right"):
        best_temperature(np.eye(5), labels)
    with pytest.raises(RunError, match="all 5 validation queries are answered right"):
        best_temperature(1e5 * np.eye(5), labels)
    with pytest.raises(RunError, match="no better than chance"):
        best_temperature(-np.eye(5), labels)
    with pytest.raises(RunError, match="no better than chance|answered right"):
        best_temperature(np.zeros((5, 5)), labels)


@pytest.mark.parametrize(("before", "after", "told"), [(0.0073, 0.0373, True), (0.02, 0.02, False), (0.02, 0.01, False),
                         (None, 0.01, False), (0.02, None, False)])  # fmt: skip
def test_a_temperature_that_makes_it_worse_is_told(before, after, told):
    """Reject the columns exchanged, and a comparison with what is not known."""
    errors = {"expected_calibration_error": after, "expected_calibration_error_uncalibrated": before}
    warnings = list(calibration_warning(Row.model_validate(ROW | errors)))
    assert len(warnings) == told
    assert not told or "from 0.73 % to 3.73 %" in warnings[0]


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", '[{"temperature": 1}]', "[NaN]", "\udcff"],
)
def test_a_damaged_file_is_told(tmp_path, text):
    """Reject a traceback, and a file that is taken for an empty one."""
    directory = RunDirectory(tmp_path)
    assert stored(directory) == []
    directory.temperature.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RunError, match=r"temperature.json cannot be read \(it is damaged.*remove it, and it is fitted"):
        stored(directory)


@pytest.mark.parametrize("value", [0, -1, 1e9, float("inf"), float("nan"), None, "warm"])
def test_a_temperature_that_none_is_is_told(tmp_path, value):
    """Reject a division by zero, or by what a stranger wrote."""
    directory = RunDirectory(tmp_path)
    whole = {"temperature": 1.5, "checkpoint": "best", "weights_digest": "0", "protocol": "inductive"}
    whole |= {"inner_steps": None, "way": 5, "shot": 1, "query": 3, "episodes": 9, "episode_seed": 0}
    directory.temperature.write_text(json.dumps([whole]))
    assert stored(directory)[0].temperature == 1.5
    directory.temperature.write_text(json.dumps([whole | {"temperature": value}]))
    with pytest.raises(RunError, match="damaged"):
        stored(directory)
