"""Rows, intervals and calibration against numbers worked out by hand."""

import json
import math

import numpy as np
import pytest
from rows import ROW

from metarun.experiments.errors import RunError
from metarun.experiments.reports.table import lines_of, render
from metarun.experiments.runs.rows import Row, as_frame, find_rows, merge, read_row, rows_as_csv
from metarun.experiments.stats import FEW, ci95_of_columns, expected_calibration_error, mean_and_ci95


def row(**changes):
    return Row(**ROW | changes)


def test_interval_uses_the_sample_deviation():
    values = [0.2, 0.4, 0.4, 0.6]
    mean, ci95 = mean_and_ci95(values)
    assert mean == pytest.approx(0.4, abs=1e-15)
    assert ci95 == pytest.approx(3.182446305284263 * math.sqrt(0.08 / 3 / 4), rel=1e-9)
    assert ci95 != pytest.approx(3.182446305284263 * math.sqrt(0.08 / 4 / 4), rel=1e-3)  # the population's


T = {2: 12.706204736, 5: 2.776445105, 600: 1.9639322}  # printed tables: t_{0.975, n - 1} by the number n of values


@pytest.mark.parametrize("count", T)
def test_fault_08_intervals_are_by_students_t(count):
    """Check means and curves. Rejected: 1.96 s / sqrt(n), too narrow by 0.2 % at 600 values and by 6.5 times at 2."""
    values = np.random.default_rng(0).normal(size=(count, 3))
    standard = values.std(axis=0, ddof=1) / math.sqrt(count)
    assert mean_and_ci95(values[:, 0].tolist())[1] == pytest.approx(T[count] * standard[0], rel=1e-6)
    np.testing.assert_allclose(ci95_of_columns(values), T[count] * standard, rtol=1e-6)
    assert mean_and_ci95(values[:, 0].tolist())[1] != pytest.approx(1.96 * standard[0], rel=1e-3)


def test_fault_08_a_few_equal_values_have_no_interval():
    """Reject: 72.00 +- 0.00 of two episodes."""
    few, many = [0.1] * (FEW - 1), [0.1] * FEW  # whose mean is not 0.1 by rounding, in numpy
    assert mean_and_ci95(few)[0] == pytest.approx(0.1) and math.isnan(mean_and_ci95(few)[1])
    assert math.isnan(ci95_of_columns(np.array([few]).T)[0])
    assert mean_and_ci95(many)[1] == ci95_of_columns(np.array([many]).T)[0] == 0


def test_interval_is_exact_where_naive_sums_are_not():
    values = [1e8 + 0.25, 1e8 + 0.75] * 1000
    mean, ci95 = mean_and_ci95(values)
    assert mean == 1e8 + 0.5
    assert ci95 == pytest.approx(1.9611520 * math.sqrt(0.0625 * 2000 / 1999 / 2000), rel=1e-6)
    naive = np.float32(values).var(ddof=1)  # loses everything
    assert naive != pytest.approx(0.0625, rel=0.1)


def test_a_measurement_that_is_not_finite_is_a_row_and_a_line():
    for values in ([0.5, math.nan], [math.inf, 1.0], [1e308, 1e308], [1e200, 0.0]):
        mean, ci95 = mean_and_ci95(values)
        told = row(mean=mean, ci95=ci95, negative_log_likelihood=math.nan)
        assert json.loads(json.dumps(told.as_json(), allow_nan=False))["ci95"] is None
        assert told.mean is None or told.mean == 5e199
        assert len(render(lines_of(as_frame([told])), "text").splitlines()) == 3
    assert math.isnan(expected_calibration_error([0.0] * 15, [math.nan] * 15, [0.0] * 15))  # no logit was a number


def test_calibration_weights_bins_by_their_queries():
    counts, confidences, right = [90, 10], [45.0, 9.0], [54.0, 4.0]
    value = expected_calibration_error(counts, confidences, right)
    assert value == pytest.approx(0.9 * 0.1 + 0.1 * 0.5)
    unweighted = (0.1 + 0.5) / 2
    assert value != pytest.approx(unweighted)


def test_calibration_of_predictions_binned_by_the_learner():
    """Compare the learner's counts of 15 bins with a plain loop over the same queries."""
    import tensorflow as tf

    from metarun.algorithms.learner import Problem

    generator = np.random.default_rng(0)
    steps = 3 * generator.standard_normal((2, 4, 50, 5))  # [R, T, Q, way]; rejected: those before the last step
    logits, labels = steps[1:], generator.integers(0, 5, (4, 50)).astype(np.int32)
    metrics = Problem(False, "inductive").metrics(tf.constant(steps), tf.constant(labels), (0, 1))
    told = expected_calibration_error(*metrics["calibration"].numpy().sum(axis=0).tolist())
    exponents = np.exp(logits[0] - logits[0].max(-1, keepdims=True))
    probabilities = (exponents / exponents.sum(-1, keepdims=True)).reshape(-1, 5)
    sure, good = probabilities.max(-1), probabilities.argmax(-1) == labels.ravel()
    expected = 0.0
    for lower in np.arange(15) / 15:
        inside = (sure > lower) & (sure <= lower + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(good[inside].mean() - sure[inside].mean())
    assert told == pytest.approx(expected, abs=1e-9)
    nll = -np.log(probabilities[np.arange(200), labels.ravel()]).reshape(4, 50).mean(-1)
    np.testing.assert_allclose(metrics["negative_log_likelihood"].numpy(), nll, rtol=1e-9)


def test_errors_of_regression():
    """Reject half of the square, its root, a sum. A loop over the points, after each of two numbers of steps."""
    import tensorflow as tf

    from metarun.algorithms.learner import Problem

    generator = np.random.default_rng(0)
    predictions, targets = generator.normal(size=(2, 3, 4, 1)), generator.normal(size=(3, 4, 1))
    problem = Problem(True, "inductive")
    told = problem.metrics(tf.constant(predictions), tf.constant(targets), (0, 5))
    right = [[np.mean([(p - t) ** 2 for p, t in zip(*task, strict=True)]) for task in zip(step, targets, strict=True)]
             for step in predictions]  # fmt: skip
    np.testing.assert_allclose([told["mse_0"], told["mse_5"]], right, rtol=1e-12)
    np.testing.assert_array_equal(told["mse"], told["mse_5"])
    np.testing.assert_allclose(problem.loss(tf.constant(predictions[1]), tf.constant(targets)), right[1], rtol=1e-12)


def test_results_csv_is_rebuilt_from_the_runs(tmp_path):
    root = tmp_path / "set~1" / "seed-0~1"  # what `--fresh` names so is below the folder
    for seed, folder in enumerate(["a/seed-0", "a/seed-1", "a/seed-1~1", "a/seed-1~1/evaluations"]):
        (root / folder).mkdir(parents=True)
        (root / folder / "result.json").write_text(json.dumps(row(seed=seed).as_json()))
    merge(root)
    text = (root / "results.csv").read_text()
    assert text == rows_as_csv([row(seed=0), row(seed=1)])
    (root / "results.csv").write_text("nonsense")
    merge(root)
    assert (root / "results.csv").read_text() == text
    assert len(find_rows([root, root / "a"])) == 2  # each once


def test_links_to_runs_are_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "result.json").write_text(json.dumps(row().as_json()))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a").symlink_to("../elsewhere")
    (tmp_path / "runs" / "loop").symlink_to(".")
    assert find_rows([tmp_path / "runs"]) == [tmp_path / "runs" / "a" / "result.json"]


def test_a_foreign_or_damaged_row_is_named_and_left_out(tmp_path, capsys):
    for folder, text in {"good": row().model_dump_json(), "cut": row().model_dump_json()[:-20], "other": "[]"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "result.json").write_text(text)
    merge(tmp_path)
    assert (tmp_path / "results.csv").read_text() == rows_as_csv([row()])
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2 and "cut/result.json is not a row" in warnings[0] and "other" in warnings[1]


def test_a_row_from_before_a_column_was_added(tmp_path):
    path = tmp_path / "result.json"
    old = row(published=None, published_source=None).as_json()
    for column in ("published", "published_ci95", "published_source", "expected_calibration_error", "git_commit"):
        del old[column]
    path.write_text(json.dumps(old))
    assert read_row(path) == row(published=None, published_source=None, expected_calibration_error=None, git_commit="")


def test_a_damaged_row_is_named(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(row().model_dump_json()[:-20])
    with pytest.raises(RunError, match=r"result\.json is not a row that this version wrote"):
        read_row(path)
