"""Rows, intervals, calibration and tables against numbers worked out by hand."""

import csv
import io
import math

import numpy as np
import pytest
from test_cli import ROW

from metarun.experiments.errors import RunError
from metarun.experiments.results import (
    Row,
    expected_calibration_error,
    find_rows,
    mean_and_ci95,
    merge,
    read_row,
    rows_as_csv,
)
from metarun.experiments.table import render, tabulate


def row(**changes):
    return Row(**ROW | changes)


def test_interval_uses_the_sample_deviation():
    values = [0.2, 0.4, 0.4, 0.6]
    mean, ci95 = mean_and_ci95(values)
    assert mean == pytest.approx(0.4, abs=1e-15)
    assert ci95 == pytest.approx(1.96 * math.sqrt(0.08 / 3 / 4), rel=1e-12)
    assert ci95 != pytest.approx(1.96 * math.sqrt(0.08 / 4 / 4), rel=1e-3)  # the population's: the wrong variant


def test_interval_is_exact_where_naive_sums_are_not():
    values = [1e8 + 0.25, 1e8 + 0.75] * 1000
    mean, ci95 = mean_and_ci95(values)
    assert mean == 1e8 + 0.5
    assert ci95 == pytest.approx(1.96 * math.sqrt(0.0625 * 2000 / 1999 / 2000), rel=1e-9)
    naive = np.float32(values).var(ddof=1)  # loses everything
    assert naive != pytest.approx(0.0625, rel=0.1)


def test_calibration_weights_bins_by_their_queries():
    counts, confidences, right = [90, 10], [45.0, 9.0], [54.0, 4.0]
    value = expected_calibration_error(counts, confidences, right)
    assert value == pytest.approx(0.9 * 0.1 + 0.1 * 0.5)
    unweighted = (0.1 + 0.5) / 2
    assert value != pytest.approx(unweighted)


def test_calibration_of_predictions_binned_by_the_learner():
    """The learner's counts of 15 bins against a plain loop over the same queries."""
    import tensorflow as tf

    from metarun.algorithms.learner import Problem

    generator = np.random.default_rng(0)
    logits = 3 * generator.standard_normal((1, 4, 50, 5))  # [K + 1, T, Q, way]
    labels = generator.integers(0, 5, (4, 50)).astype(np.int32)
    metrics = Problem(False, "inductive").metrics(tf.constant(logits), tf.constant(labels))
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


def test_seeds_are_averaged_and_specs_are_not():
    lines = tabulate([row(seed=0, mean=0.5), row(seed=1, mean=0.7), row(seed=0, mean=0.9, spec_digest="f" * 16)])
    assert [(line.seeds, line.result) for line in lines] == [(2, pytest.approx(60)), (1, pytest.approx(90))]
    assert lines[0].seed_std == pytest.approx(100 * math.sqrt(2 * 0.01))  # n - 1; the population's would be 10
    assert lines[0].ci95 == pytest.approx(1.0)  # the mean over seeds, not divided by sqrt(seeds)
    assert lines[0].difference == pytest.approx(9.0)
    text = render(lines, "text")
    assert "00000000" in text and "ffffffff" in text  # one name, two specs: the digests tell them apart


def test_protocols_and_test_tasks_never_share_a_line():
    rows = [row(), row(protocol="transductive"), row(episodes_digest="2" * 16), row(way=20), row(checkpoint="last")]
    assert len(tabulate(rows)) == len(rows)


def test_formats():
    lines = tabulate([row(experiment="a_b|c", published_ci95=0.5)])
    told = dict(zip(*csv.reader(io.StringIO(render(lines, "csv"))), strict=True))
    assert float(told["result"]) == 50.0 and float(told["difference"]) == -1.0
    markdown = render(lines, "markdown").splitlines()
    assert r"a_b\|c" in markdown[2] and "51.00 ± 0.50" in markdown[2]
    assert len({line.replace(r"\|", "").count("|") for line in markdown}) == 1
    latex = render(lines, "latex")
    assert r"a\_b|c" in latex and r"accuracy \%" in latex and r"51.00 $\pm$ 0.50" in latex and latex.count(r"\\") == 2
    text = render(tabulate([row(mean=None, ci95=None)]), "text")
    assert "not finite" in text
    regression = render(tabulate([row(metric="mse", mean=0.351, published=0.35)]), "text")
    assert "0.351" in regression and "+0.001" in regression  # no percent


def test_results_csv_is_rebuilt_from_the_runs(tmp_path):
    import json

    for seed, folder in enumerate(["a/seed-0", "a/seed-1", "a/seed-1~1"]):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "result.json").write_text(json.dumps(row(seed=seed).as_json()))
    merge(tmp_path)
    text = (tmp_path / "results.csv").read_text()
    assert text == rows_as_csv([row(seed=0), row(seed=1)])
    (tmp_path / "results.csv").write_text("nonsense")
    merge(tmp_path)
    assert (tmp_path / "results.csv").read_text() == text
    assert len(list(find_rows([tmp_path, tmp_path / "a"]))) == 2  # each once


def test_a_damaged_row_is_named(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(row().model_dump_json()[:-20])
    with pytest.raises(RunError, match=r"result\.json is not a row that this version wrote"):
        read_row(path)
