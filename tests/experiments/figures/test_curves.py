"""Figures are drawn from the files of runs."""

import csv
import json
import shutil

import matplotlib
import numpy as np
import pytest
from command import metarun

from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.figures import curves
from metarun.experiments.figures.draw import draw_all
from metarun.experiments.figures.finished import runs_below
from metarun.experiments.figures.seeds import Curve, over_seeds, seed_groups
from metarun.experiments.figures.style import plain
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.rows import METRICS
from metarun.experiments.runs.run import Run
from metarun.experiments.training.train import train

RL2 = """
name: learner
algorithm: {name: rl2, minibatch: 16}
network: {name: gru, units: 8}
dataset: {name: bandits, arms: 3, pulls: 6}
train: {meta_batch: 16, steps: 2}
validation: {episodes: 10, every: 1}
test: {episodes: 20}
jit: off
"""
RANDOM = """
name: chance
algorithm: {name: random}
dataset: {name: bandits, arms: 3, pulls: 6}
test: {episodes: 20}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, text in (("learner", RL2), ("chance", RANDOM)):
        (folder / f"{name}.yaml").write_text(text)
        train(Run(load(folder / f"{name}.yaml").experiment, 0, RunDirectory(folder / name / "seed-0")))
    return folder


def another_seed(run, seed, **changes):
    """Copy a run into the folder beside it as another seed whose values are one larger; return its folder."""
    copy = run.parent / f"seed-{seed}"
    shutil.copytree(run, copy)
    row = json.loads((copy / "result.json").read_text()) | {"seed": seed} | changes
    (copy / "result.json").write_text(json.dumps(row))
    for name in ("metrics.csv", "curves.csv"):
        with open(copy / name, newline="") as file:
            lines = list(csv.DictReader(file))
        for line in lines:
            for column in ("total_reward", "regret_by_step"):
                if line.get(column):
                    line[column] = str(float(line[column]) + 1)
        with open(copy / name, "w", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
    return copy


def labels(found):
    return [group.label for group in seed_groups(found)]


def lines_of(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def test_the_figures_hold_the_numbers_of_the_runs(runs):
    found = runs_below([runs])
    assert labels(found) == ["random", "rl2"]
    learning, regret = lines_of(curves.learning(found)), lines_of(curves.regret(found))
    assert list(learning["rl2"].get_xdata()) == [1, 2] and set(learning) == {"rl2", "random (test)"}
    assert learning["random (test)"].get_ydata()[0] == pytest.approx(found[0].row.mean)
    assert regret["rl2"].get_ydata()[-1] == pytest.approx(found[1].row.regret, rel=1e-5)
    assert regret["rl2"].get_color() != regret["random"].get_color()
    assert regret["rl2"].get_linestyle() != regret["random"].get_linestyle()  # told apart in grey


def test_the_command_writes_what_there_is_to_draw(runs, tmp_path):
    """Reject LaTeX, which would fail or take seconds; another colour. Whatever the user's matplotlibrc says."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\naxes.facecolor: ff1234\nfigure.dpi: 7\n")
    out = tmp_path / "figures"
    done = metarun("plot", runs, "--out", out, "--format", "svg", MATPLOTLIBRC=str(tmp_path / "matplotlibrc"))
    assert sorted(path.name for path in out.iterdir()) == ["learning.svg", "optimal.svg", "regret.svg"]
    assert all(str(out / name) in done.stdout for name in ("learning.svg", "regret.svg"))
    assert "ff1234" not in (out / "regret.svg").read_text()
    with matplotlib.rc_context({"figure.dpi": 7}):
        assert list(draw_all(runs_below([runs]), tmp_path / "again", "svg"))
        assert matplotlib.rcParams["figure.dpi"] == 7
    for name in ("learning.svg", "regret.svg"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()
    again = list(draw_all(runs_below([runs / "chance"]), tmp_path / "chance", "png"))
    assert [path.name for path in again] == ["regret.png", "optimal.png"]  # it has nothing to learn


def test_runs_of_several_folders_are_told_apart(runs, tmp_path):
    shutil.copytree(runs / "learner", tmp_path / "copy" / "learner")
    found = runs_below([runs / "learner", tmp_path / "copy"])
    assert len(set(labels(found))) == len({one.name for one in found}) == 2
    for text in ("", "step,optimal_by_step\n1,0.5\n"):
        (tmp_path / "copy" / "learner" / "seed-0" / "curves.csv").write_text(text)
        with pytest.raises(RunError, match=r"curves\.csv is damaged"):
            list(draw_all(runs_below([tmp_path / "copy"]), tmp_path / "figures", "png", ["regret"]))


def test_names_in_paths_collide_with_nothing(runs, tmp_path):
    for place in ("a-b", "a/b", "_$5_$6"):
        shutil.copytree(runs / "learner", tmp_path / place)
    found = runs_below([tmp_path / "a-b", tmp_path / "a/b", tmp_path / "_$5_$6"])
    assert len({one.name for one in found}) == 3
    figure = curves.learning(found)
    figure.savefig(tmp_path / "learning.svg")  # two dollars would be a formula that does not parse
    assert len(figure.legends[0].get_texts()) == 3
    shown = [plain(text) for text in ("_old/seed-0", "cost_$5_$6", "plain")]
    assert shown == [" _old/seed-0", r"cost_\$5_\$6", "plain"]


def test_every_metric_has_its_heading():
    """Reject a page that ends in an error since it has a row of `evaluate --unknown`."""
    assert list(curves.MAIN) == list(METRICS)


def test_many_runs_are_told_apart_and_one_point_is_seen(runs, tmp_path):
    (learner,) = runs_below([runs / "learner"])
    rows = [learner.row.model_copy(update={"experiment": f"run {number}"}) for number in range(20)]
    figure = curves.learning([learner._replace(row=row) for row in rows])
    looks = {(line.get_color(), line._dash_pattern[0], line.get_marker()) for line in figure.axes[0].get_lines()}
    assert len(looks) == 20  # seven of each, taken together, are 7 looks
    figure.savefig(tmp_path / "many.png")
    assert figure.axes[0].get_window_extent().height > 100  # the legend leaves them room

    shutil.copytree(runs / "learner", tmp_path / "one")
    metrics = tmp_path / "one/seed-0/metrics.csv"
    lines = metrics.read_text().splitlines(True)
    last = [line for line in lines if ",val," in line][-1]
    metrics.write_text("".join(line for line in lines if ",val," not in line) + last)
    (line, *interval) = curves.learning(runs_below([tmp_path / "one"])).axes[0].get_lines()
    assert line.get_marker() not in ("", "None") and interval  # a line of one point is nothing


def test_seeds_are_one_line_with_a_band(runs, tmp_path):
    """Reject a line for each seed; the interval of one seed as the band; a mean over all steps of any seed."""
    shutil.copytree(runs, tmp_path / "runs")
    first = tmp_path / "runs" / "learner" / "seed-0"
    second = another_seed(first, 1)
    found = runs_below([tmp_path / "runs"])
    assert labels(found) == ["random", "rl2 (2 seeds)"]
    for draw in (curves.learning, curves.regret):
        alone = lines_of(draw(runs_below([first])))["rl2"].get_xydata()
        figure = draw(found)
        line = lines_of(figure)["rl2 (2 seeds)"].get_xydata()
        np.testing.assert_allclose(line, alone + [0, 0.5])
        band = figure.axes[0].collections[-1].get_paths()[0].vertices
        at_the_end = band[band[:, 0] == line[-1, 0], 1]
        np.testing.assert_allclose([at_the_end.min(), at_the_end.max()], [alone[-1, 1], alone[-1, 1] + 1])
    assert figure.legends[0].get_title().get_text().endswith("highest seed, or of one seed the 95% interval over tasks")

    lines = (second / "metrics.csv").read_text().splitlines(True)
    (second / "metrics.csv").write_text("".join(line for line in lines if not line.startswith("1,val")))
    shared = lines_of(curves.learning(found))["rl2 (2 seeds)"].get_xydata()
    assert shared[:, 0].tolist() == [2]
    (second / "metrics.csv").write_text("".join(line for line in lines if not line.startswith("2,val")))
    (first / "metrics.csv").write_text("".join(line for line in lines if not line.startswith("1,val")))
    with pytest.raises(RunError, match=r"rl2 \(2 seeds\): its seeds were measured at no common step"):
        curves.learning(found)


def test_runs_of_different_specs_are_not_averaged(runs, tmp_path):
    shutil.copytree(runs / "learner", tmp_path / "learner")
    another_seed(tmp_path / "learner" / "seed-0", 1, spec_digest="0123456789abcdef")
    another_seed(tmp_path / "learner" / "seed-0", 2)
    found = runs_below([tmp_path])
    one, other = labels(found)
    assert one.startswith("learner, spec ") and one.endswith("(2 seeds)") and other == "learner, spec 012345, seed 1"
    assert set(lines_of(curves.regret(found))) == {one, other}


def test_reliability_is_over_the_queries_of_all_seeds(runs, tmp_path):
    """Reject the mean of the seeds' accuracies, 60, where one seed has three times the queries of the other."""
    shutil.copytree(runs / "learner", tmp_path / "learner")
    first = tmp_path / "learner" / "seed-0"
    second = another_seed(first, 1)
    (first / "calibration.csv").write_text("queries,confidence,right\n10,5,4\n0,0,0\n")
    (second / "calibration.csv").write_text("queries,confidence,right\n30,15,24\n10,9,9\n")
    axes, below = curves.reliability(runs_below([tmp_path])).axes
    line = axes.get_lines()[-1]
    np.testing.assert_allclose(line.get_xydata(), [[50, 70], [90, 90]])
    (band,) = axes.collections
    edges = band.get_paths()[0].vertices
    assert {y for x, y in edges if x == 50} >= {40, 80} and {y for x, y in edges if x == 90} == {90}
    assert line.get_label() == "rl2 (2 seeds): ECE 16.2%"  # the mean of 10 and 22.5
    np.testing.assert_allclose(below.patches[0].get_data().values, [80, 20])


def test_each_metric_has_axes_of_its_own(runs, tmp_path):
    shutil.copytree(runs / "learner", tmp_path / "errors")
    for name in ("metrics.csv", "result.json"):
        file = tmp_path / "errors" / "seed-0" / name
        file.write_text(file.read_text().replace("total_reward", "mse"))
    rewards, errors = curves.learning(runs_below([runs, tmp_path])).axes
    assert [axes.get_ylabel() for axes in (rewards, errors)] == [
        "validation total reward of a trial",
        "validation mean squared error",
    ]
    assert len(rewards.get_lines()) == 2 and len(errors.get_lines()) == 1


def test_the_mean_of_curves():
    x = np.arange(3.0)
    low, high = (Curve(x, x + shift, x + shift - 9, x + shift + 9) for shift in (0, 4))
    mean = over_seeds([low, high], "")
    assert [each.tolist() for each in mean] == [[0, 1, 2], [2, 3, 4], [0, 1, 2], [4, 5, 6]]
    assert over_seeds([high], "") is high
    late = over_seeds([low, Curve(*(each[1:] for each in high))], "")
    assert late.x.tolist() == [1, 2] and late.y.tolist() == [3, 4]  # rejected: by place, 2.5 and 3.5


def test_a_legend_covers_no_curve_and_ticks_are_round(runs, tmp_path):
    (learner,) = runs_below([runs / "learner"])
    for count in (1, 3, 12):
        rows = [learner.row.model_copy(update={"experiment": f"experiment number {n}"}) for n in range(count)]
        figure = curves.regret([learner._replace(row=row) for row in rows])
        figure.savefig(tmp_path / "regret.png")
        axes, legend = figure.axes[0].get_window_extent(), figure.legends[0].get_window_extent()
        assert legend.y1 < axes.y0 and legend.y0 >= 0 and legend.x0 >= 0 and legend.x1 <= figure.bbox.x1
    figure = curves.learning([learner])
    figure.axes[0].set_xlim(0, 370)  # rejected: ticks at 0, 60, 120, ...
    assert figure.axes[0].get_xticks()[:3].tolist() == [0, 50, 100]


def test_no_run_is_a_mistake(tmp_path):
    with pytest.raises(RunError, match="no finished run in"):
        runs_below([tmp_path])
