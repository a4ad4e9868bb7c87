"""Paired tests against closed forms and numbers worked out by hand, and what `metarun compare` makes of them."""

import json
import math

import numpy as np
import pytest
from command import metarun
from rows import ROW

from metarun.experiments.config.load import load, resolved_yaml
from metarun.experiments.errors import RunError
from metarun.experiments.reports.compare import (
    best_of,
    difference_of_tasks,
    refuse_other_episodes,
    render,
    with_episodes,
)
from metarun.experiments.runs.rows import Row
from metarun.experiments.stats import compare, t_p, t_quantile, wilcoxon_p

CLOSED = {  # two-sided p of Student's t
    1: lambda t: 1 - 2 / math.pi * math.atan(t),
    2: lambda t: 1 - t / math.sqrt(2 + t * t),
    3: lambda t: 1 - 2 / math.pi * (math.atan(t / 3**0.5) + t / 3**0.5 / (1 + t * t / 3)),
    4: lambda t: 1 - t / math.sqrt(4 + t * t) * (1 + 2 / (4 + t * t)),
}


@pytest.mark.parametrize("freedom", CLOSED)
@pytest.mark.parametrize("t", [0.1, 1.0, 2.5, 12.0])
def test_students_t_against_closed_forms(freedom, t):
    assert t_p(t, freedom) == pytest.approx(CLOSED[freedom](t), rel=1e-9)
    assert t_p(-t, freedom) == t_p(t, freedom)
    normal = math.erfc(t / math.sqrt(2))
    assert t_p(t, freedom) != pytest.approx(normal, rel=0.002)  # the normal distribution: the wrong variant here
    assert t_p(t, 10**6) == pytest.approx(normal, rel=1e-3)


@pytest.mark.parametrize(("freedom", "value"), [(1, 12.7062047), (10, 2.2281389), (100, 1.9839715), (599, 1.9639322)])
def test_quantiles_of_printed_tables(freedom, value):
    assert t_quantile(0.975, freedom) == pytest.approx(value, abs=1e-6)


def test_paired_t_by_hand():
    """Compute by hand: d = 0.5, 1, 0, 2: mean 0.875, s = sqrt(2.1875 / 3), t = 0.875 / (s / 2)."""
    told = compare(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.5, 1.0, 3.0, 2.0]))
    s = math.sqrt(2.1875 / 3)
    assert told.difference == 0.875 and told.episodes == 4
    assert told.p == pytest.approx(CLOSED[3](0.875 / (s / 2)), rel=1e-9)
    assert told.ci95 == pytest.approx(3.18244630528 * s / 2, rel=1e-9)
    assert told.ci95 != pytest.approx(1.96 * s / 2, rel=0.1)  # the normal interval: too narrow
    population = math.sqrt(2.1875 / 4)
    assert told.p != pytest.approx(CLOSED[3](0.875 / (population / 2)), rel=0.01)


def test_the_test_is_paired():
    """Check that episodes differ far more than methods; an unpaired test, the wrong variant, sees nothing."""
    generator = np.random.default_rng(0)
    hardness = generator.normal(70, 15, 300)
    a, b = hardness + generator.normal(0.5, 1, 300), hardness + generator.normal(0, 1, 300)
    unpaired = (a.mean() - b.mean()) / math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 300)
    assert t_p(unpaired, 598) > 0.5
    assert compare(a, b).p < 1e-4
    shuffled = compare(a, generator.permutation(b))
    assert shuffled.p > 0.05 and shuffled.difference == pytest.approx(compare(a, b).difference)


def test_equal_measurements_do_not_differ():
    values = np.array([0.2, 0.4, 0.6])
    for test in ("paired t", "Wilcoxon"):
        told = compare(values, values, test)
        assert (told.difference, told.p, told.episodes) == (0.0, 1.0, 3) and math.isnan(told.ci95)
        assert compare(np.tile(values, 10), np.tile(values, 10), test) == (0.0, 0.0, 1.0, 30)
    with pytest.raises(ValueError, match="not pairs"):
        compare(values, values[:2])


@pytest.mark.parametrize("test", ["paired t", "Wilcoxon"])
def test_fault_08_two_equal_differences_are_not_certain(test):
    # of four equally likely pairs of signs two are as far from none; rejected: p = 0 and an interval of no width
    told = compare(np.array([70.3, 71.3]), np.array([70.1, 71.1]), test)  # equal but for rounding
    assert told.difference == pytest.approx(0.2) and told.p == 0.5 and math.isnan(told.ci95)


def test_wilcoxon_by_hand():
    """Count by hand: |d| = 1, 1, 2, 3 have the ranks 1.5, 1.5, 3, 4; W = 8.5, its mirror 1.5: 3 of 16 choices of signs
    each.

    Of each size 15 times: 60 ranks, 15 with minus. W and the variance are summed rank by rank.
    """
    few = np.array([1.0, -1.0, 2.0, 3.0, 0.0])
    assert wilcoxon_p(few) == 6 / 16
    ranks = np.repeat([15.5, 38.0, 53.0], [30, 15, 15])
    z = (ranks.sum() - 15 * 15.5 - ranks.sum() / 2) / math.sqrt((ranks**2).sum() / 4)
    p = wilcoxon_p(np.tile(few, 15))
    assert p == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-9)
    uncorrected = z * math.sqrt((ranks**2).sum() / 4) / math.sqrt(60 * 61 * 121 / 24)
    assert p != pytest.approx(math.erfc(uncorrected / math.sqrt(2)), rel=1e-3)  # ties not corrected for
    fifteenths = np.array([7 / 15 - 6 / 15, 6 / 15 - 5 / 15, -(3 / 15 - 2 / 15)])  # equal but for rounding
    assert wilcoxon_p(fifteenths) == wilcoxon_p(np.array([1.0, 1.0, -1.0]))


@pytest.mark.parametrize(
    "differences",
    [
        [1, 2, 3, 4, -5, 6, -7, 8, 9, 10],  # 0.1309; the normal approximation says 0.1141
        [0, 0, 1, 1, 1, -1, 2, 2, -3, 3, 5],
        [0.5, -0.5],
        [3, 3, 3, 3, 3, 3],
        [-1, 2, 2, 2, -7, 0, 9, 9, 9, 9, 10, 11, -12],
    ],
)
def test_fault_08_wilcoxon_of_few_pairs_is_exact(differences):
    """Compare with every choice of signs, one by one, with ties and zeros. Rejected: the normal approximation."""
    kept = np.array([each for each in differences if each], float)
    sizes = np.abs(kept)
    ranks = np.array([(sizes < size).sum() + ((sizes == size).sum() + 1) / 2 for size in sizes])
    signs = (np.arange(2 ** len(kept))[:, None] >> np.arange(len(kept))) & 1
    distances = np.abs(signs @ ranks - ranks.sum() / 2)
    expected = (distances >= abs(ranks[kept > 0].sum() - ranks.sum() / 2) - 1e-9).mean()
    assert wilcoxon_p(np.array(differences, float)) == pytest.approx(expected, rel=1e-12)
    z = abs(ranks[kept > 0].sum() - ranks.sum() / 2) / math.sqrt((ranks**2).sum() / 4)
    assert z == 0 or expected != pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.02)


def test_wilcoxon_of_millions_of_equal_differences():
    """Reject cubes in 64 bits. The test of equal sizes is the sign test: z = (k - n / 2) / (sqrt(n) / 2)."""
    n, k = 3_000_000, 1_503_000
    p = wilcoxon_p(np.repeat([1.0, -1.0], [k, n - k]))
    assert p == pytest.approx(math.erfc((k - n / 2) / (math.sqrt(n) / 2) / math.sqrt(2)), rel=1e-5)


def finished(folder, values, dataset="{name: omniglot}", **changes):
    """Write a run directory with these episodes."""
    folder.mkdir(parents=True)
    spec = folder / "spec.yaml"
    spec.write_text(
        f"name: e\nalgorithm: {{name: protonet}}\nnetwork: {{name: conv4}}\ndataset: {dataset}\n"
        "protocol: inductive\ntrain: {steps: 10}\n"
    )
    spec.write_text(resolved_yaml(load(spec).experiment))
    row = Row(**ROW | {"mean": float(np.mean(values)), "episodes": len(values)} | changes)
    (folder / "result.json").write_text(json.dumps(row.as_json()))
    lines = [f"episode,{row.metric}", *(f"{number},{value:.9g}" for number, value in enumerate(values))]
    (folder / "episodes.csv").write_text("\n".join(lines) + "\n")
    return folder


A, B = [0.2, 0.4, 0.6, 0.8], [0.1, 0.4, 0.5, 0.6]


def test_compare_tells_difference_interval_and_p(tmp_path):
    runs = [finished(tmp_path / "a", A), finished(tmp_path / "b", B)]
    told = metarun("compare", *runs).stdout
    paired = compare(100 * np.array(B), 100 * np.array(A))
    assert f"{paired.difference:+.3f}" in told and f"{paired.ci95:.3f}" in told and f"{paired.p:.4f}" in told
    assert "-10.000" in told and "4 identical episodes; paired t test" in told
    assert told.splitlines()[-1].startswith(f"accuracy %; difference to {runs[0]} on 4")  # the unit once
    assert "Wilcoxon test" in metarun("compare", *runs, "--test", "wilcoxon").stdout
    assert metarun("compare", *runs, "--format", "latex").stdout.splitlines()[-1].startswith("% accuracy %; ")
    swapped = metarun("compare", *runs[::-1], "--against", "best").stdout
    assert "-10.000" in swapped and f"difference to {runs[0]}" in swapped
    assert "two runs" in metarun("compare", runs[0], code=2).stderr
    assert metarun("compare", tmp_path).stdout == told  # every finished run below the folder, by its path
    first = metarun("compare", runs[1], tmp_path).stdout  # named first, and not twice
    assert [line.split()[0] for line in first.splitlines()[2:4]] == [str(runs[1]), str(runs[0])]
    (tmp_path / "empty").mkdir()
    assert "no result.json" in metarun("compare", runs[0], tmp_path / "empty", code=1).stderr


def test_fault_08_a_comparison_on_few_episodes_says_so(tmp_path):
    note = "fewer than 30 test episodes: intervals are rough, and missing where all episodes are equal"
    for few, count in ((True, 1), (False, 10)):
        runs = [finished(tmp_path / f"{name}{count}", count * values) for name, values in (("a", A), ("b", B))]
        measured = [with_episodes(run) for run in runs]
        assert (note in render(measured, 0, "paired t", "text")) == few
    same = [with_episodes(finished(tmp_path / name, [0.2, 0.4])) for name in "cd"]
    assert render(same, 0, "paired t", "text").splitlines()[3].split()[-2:] == ["+0.000", "1.0000"]  # no interval


def test_the_best_of_a_regression_is_the_lowest(tmp_path):
    runs = [with_episodes(finished(tmp_path / name, values, metric="mse")) for name, values in (("a", A), ("b", B))]
    assert best_of(runs) == 1
    accuracies = [with_episodes(finished(tmp_path / name, values)) for name, values in (("c", A), ("d", B))]
    assert best_of(accuracies) == 0
    assert accuracies[0].values.tolist() == pytest.approx([20, 40, 60, 80])  # percent
    assert "mse; difference" in render(runs, 1, "paired t", "text")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"episodes_digest": "2" * 16}, "the episodes differ"),
        ({"metric": "total_reward"}, "measured by accuracy, the other by total_reward"),
        ({"shot": 5, "query": 11}, "shot is 1 and 5"),  # as many images a class: the digests agree
        ({"split": "val"}, "split is test and val"),
        ({"dataset": "{name: omniglot, split: random-1100-100-423}"}, "dataset.split is vinyals and random-1100"),
        ({"dataset": "{name: glyphs}"}, "dataset.name is omniglot and glyphs"),
        ({"content_digest": "b"}, "the images differ (digests a and b)"),
    ],
)
def test_other_episodes_are_refused(tmp_path, other, reason):
    one = with_episodes(finished(tmp_path / "a", A, content_digest="a"))
    two = with_episodes(finished(tmp_path / "b", B, **other))
    assert reason in (difference_of_tasks(one, two) or "")
    with pytest.raises(RunError, match="cannot be compared"):
        refuse_other_episodes([one, one, two])
    unknown = with_episodes(finished(tmp_path / "d", A))  # of a version that did not note the images
    if "content_digest" in other:
        with pytest.raises(RunError, match="the images differ"):
            refuse_other_episodes([unknown, one, two])
    refuse_other_episodes([one, with_episodes(finished(tmp_path / "c", B, dataset="{name: omniglot, ink: 0}"))])
    assert reason in metarun("compare", tmp_path / "a", tmp_path / "b", code=1).stderr


def test_wilcoxon_sees_ties_of_accuracies_that_were_rounded(tmp_path):
    """Reject the ranks of the file's own numbers. Right answers of 75, in single precision with nine digits."""
    generator = np.random.default_rng(1)
    right = generator.integers(40, 70, (2, 60))
    one, two = (
        with_episodes(finished(tmp_path / name, np.float32(counts) / np.float32(75)))
        for name, counts in zip("ab", right, strict=True)
    )
    exact = wilcoxon_p((right[0] - right[1]).astype(float))
    assert wilcoxon_p(one.values - two.values) == pytest.approx(exact, rel=1e-12)
    rounded = [[float(f"{value:.9g}") for value in np.float32(counts) / np.float32(75)] for counts in right]
    assert wilcoxon_p(np.array(rounded[0]) - np.array(rounded[1])) != pytest.approx(exact, rel=1e-3)


def test_episodes_that_are_damaged_are_named(tmp_path):
    folder = finished(tmp_path / "a", A)
    (folder / "episodes.csv").write_text("episode,accuracy\n0,0.2\n1,nan\n")
    with pytest.raises(RunError, match=r"episodes\.csv has not 4 finite values"):
        with_episodes(folder)
    (folder / "episodes.csv").write_text("episode,accuracy\n3,0.8\n2,0.6\n1,0.4\n0,0.2\n")
    with pytest.raises(RunError, match="its lines are not in the order of the episodes"):
        with_episodes(folder)
    (folder / "episodes.csv").write_text("episode,accuracy\n0,0.2\n1,0.4\n2,0.6\n3,0.7\n")
    with pytest.raises(RunError, match=r"was changed: its mean is 0\.475, that of its row 0\.5"):
        with_episodes(folder)
    (folder / "episodes.csv").write_text('episode,accuracy\n0,"0.2\n' + "1,0.4\n" * 30_000)  # a quote is not closed
    with pytest.raises(RunError, match="no whole column of accuracy"):
        with_episodes(folder)
    (folder / "episodes.csv").unlink()
    with pytest.raises(RunError, match="no whole column of accuracy"):
        with_episodes(folder)
    whole = finished(tmp_path / "b", A)
    (whole / "spec.yaml").unlink()
    with pytest.raises(RunError, match=r"b cannot be read: .*spec\.yaml"):
        with_episodes(whole)
