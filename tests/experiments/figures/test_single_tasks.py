"""Figures of single test tasks show what the row was measured on: they agree with episodes.csv."""

import csv
import subprocess
import sys

import numpy as np
import pytest

from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.figures import single_tasks
from metarun.experiments.figures.curves import adaptation, reliability
from metarun.experiments.figures.draw import FROM_FILES, FROM_WEIGHTS, draw_all
from metarun.experiments.figures.finished import runs_below
from metarun.experiments.model import build
from metarun.experiments.pages.page import find, render
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run
from metarun.experiments.training.train import train

pytestmark = pytest.mark.slow  # the runs take most of a minute; curves and pages are tested with every change
IMAGES = """
name: {name}
algorithm: {{name: {name}{more}}}
network: {{name: conv4, filters: 4, downsample: stride}}
dataset: {{name: glyphs}}
protocol: {protocol}
train: {{way: 3, shot: 2, query: 4, meta_batch: 2, steps: 4}}
validation: {validation}
test: {{way: 3, shot: 2, query: 4, episodes: 12, checkpoint: last}}
jit: off
"""
SINUSOIDS = """
name: sinusoids
algorithm: {name: maml, inner_lr: 0.01, test_inner_steps: 3}
network: {name: mlp, hidden: [8]}
dataset: {name: sinusoid}
protocol: inductive
train: {way: 1, shot: 5, query: 5, meta_batch: 4, steps: 20}
validation: null
test: {way: 1, shot: 5, query: 5, episodes: 12}
jit: off
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, session_cache):
    folder = tmp_path_factory.mktemp("runs")
    specs = {
        "protonet": IMAGES.format(name="protonet", more="", protocol="inductive", validation="{episodes: 2, every: 2}"),
        "matchingnet": IMAGES.format(
            name="matchingnet", more=", temperature: 0.1", protocol="inductive", validation="null"
        ),
        "maml": IMAGES.format(
            name="maml", more=", inner_lr: 1.0, test_inner_steps: 2", protocol="transductive", validation="null"
        ),
        "sinusoids": SINUSOIDS,
    }
    specs["headed"] = (
        specs["maml"].replace("name: maml\n", "name: headed\n").replace("last}", "last, head: {name: ridge}}")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARUN_CACHE", str(session_cache))
        for name, text in specs.items():
            (folder / f"{name}.yaml").write_text(text)
            train(Run(load(folder / f"{name}.yaml").experiment, 0, RunDirectory(folder / name / "seed-0")))
        yield folder


def only(folder, name):
    (found,) = runs_below([folder / name])
    return found


def episodes(found, column):
    with found.directory.episodes.open(newline="") as file:
        return np.array([float(row[column]) for row in csv.DictReader(file)])


def figure_of(found, kind, number=0):
    from metarun.experiments.figures.single_tasks import figures

    ((_, figure),) = figures(found, [kind], number)
    return figure


def telling(found):
    """Return a test task whose accuracy is not that of the first one, and all accuracies."""
    accuracy = episodes(found, "accuracy")
    return int(np.flatnonzero(accuracy != accuracy[0])[0]), accuracy


def test_adaptation_is_the_mean_over_test_tasks_of_each_step(folder):
    found = only(folder, "maml")
    (line,) = adaptation([found, only(folder, "protonet")]).axes[0].get_lines()  # protonet has no inner steps
    assert list(line.get_xdata()) == [0, 1, 2]
    expected = [100 * episodes(found, f"accuracy_{step}").mean() for step in range(3)]
    np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-6)
    assert line.get_ydata()[2] == pytest.approx(100 * found.row.mean) != line.get_ydata()[0]
    (regression,) = adaptation([only(folder, "sinusoids")]).axes[0].get_lines()
    assert regression.get_ydata()[3] == pytest.approx(only(folder, "sinusoids").row.mean, rel=1e-6)
    assert adaptation([only(folder, "protonet")]) is None


def test_reliability_is_that_of_all_test_predictions(folder):
    found = only(folder, "protonet")
    axes, below = reliability([found, only(folder, "sinusoids")]).axes
    _, line = axes.get_lines()
    assert f"ECE {100 * found.row.expected_calibration_error:.1f}%" in line.get_label()
    (shares,) = below.patches
    heights = shares.get_data().values
    assert heights.sum() == pytest.approx(100) and (heights > 0).sum() == len(line.get_xdata())
    weighted = (heights[heights > 0] * line.get_ydata()).sum() / 100
    assert weighted == pytest.approx(100 * found.row.mean, abs=1e-4)  # accuracy of all is the mean over the bins
    assert not np.allclose(line.get_xdata(), line.get_ydata())


@pytest.mark.parametrize(("name", "numbers"), [("protonet", (0, 3)), ("sinusoids", (3,))])
def test_a_page_shows_the_test_task_that_is_asked_for(folder, name, numbers):
    """Reject task 0 whichever is asked for, a sheet without words for it."""
    for number in numbers:
        text = render(find(folder / name), 1, number)
        assert f"Test task {number}, seed 0" in text and f'alt="{name}: test task {number}: ' in text


@pytest.mark.parametrize("name", ["protonet", "matchingnet", "maml", "headed"])
def test_the_sheet_frames_what_the_test_got_wrong(folder, name):
    found = only(folder, name)
    number, accuracy = telling(found)
    for task in (0, number):
        (axes,) = figure_of(found, "episode", task).axes
        framed = [patch for patch in axes.patches if patch.get_linewidth() > 2]
        assert len(axes.images) == 3 * (2 + 4) and len(framed) == round(12 * (1 - accuracy[task]))
        texts = [text.get_text() for text in axes.texts]
        assert any(text.startswith(f"test task {task}: {round(12 * accuracy[task])} of 12 right") for text in texts)
        assert sum(text[:1] in "ABC" and text[1:3] == " 0" for text in texts) == len(framed)
        ink = np.asarray(axes.images[0].get_array())
        assert ink.min() >= 0 and 0.5 < ink.max() <= 1 and np.median(ink) == 0  # paper is 0, whatever inputs are


def test_a_sheet_shows_a_training_task_as_the_network_sees_it(folder, tmp_path, monkeypatch):
    """Reject images without their changes, and a number beyond the test's tasks that is refused."""
    text = IMAGES.format(name="protonet", more="", protocol="inductive", validation="null")
    (tmp_path / "changed.yaml").write_text(text + "augment: {crop_padding: 4, flip: true}\n")
    run = Run(load(tmp_path / "changed.yaml").experiment, 0, RunDirectory(tmp_path / "changed" / "seed-0"))
    train(run)
    found, stream, images = only(tmp_path, "changed"), build(run.experiment, 0).training_stream(), {}
    for number in (0, 500):
        (axes,) = figure_of(found, "training", number).axes
        assert any(f"training task {number}: its images after random changes" in each.get_text() for each in axes.texts)
        batch = stream.sample(number, 1)
        parts = [np.asarray(x[0]).reshape(3, -1, 28, 28) for x in (batch.support_x, batch.query_x)]
        images[number] = np.array([np.asarray(image.get_array()) for image in axes.images])
        np.testing.assert_allclose(images[number], np.concatenate(parts, axis=1).reshape(-1, 28, 28), atol=1e-6)
    assert np.abs(images[0] - images[500]).max() > 0.5
    monkeypatch.setattr(single_tasks, "MOST_CLASSES", 2)
    (axes,) = figure_of(found, "training").axes
    assert len(axes.images) == 2 * (2 + 4) and any("(2 of 3 classes)" in each.get_text() for each in axes.texts)


def test_the_plane_is_that_of_the_largest_variance():
    from metarun.experiments.figures.single_tasks import principal_plane

    points = np.random.default_rng(0).normal(size=(200, 5)) * [0.1, 3, 0.2, 5, 0.1] + 7
    plane, center, share = principal_plane(points)
    values, vectors = np.linalg.eigh(np.cov(points.T))
    np.testing.assert_allclose(np.abs(plane @ vectors[:, [-1, -2]]), np.eye(2), atol=1e-9)
    np.testing.assert_allclose(share, values[[-1, -2]] / values.sum())
    np.testing.assert_allclose(center, points.mean(axis=0))


def test_the_embedding_is_the_one_that_decides(folder):
    from metarun.experiments.figures.single_tasks import figures

    found = only(folder, "protonet")
    number, accuracy = telling(found)
    ((_, figure),) = figures(found, ["embedding"], number)
    (axes,) = figure.axes
    lines = axes.get_lines()
    wrong = round(12 * (1 - accuracy[number]))
    assert len(lines[-1].get_xdata()) == wrong and f"the {wrong} of 12" in axes.get_title()
    queries, discs, _, supports = lines[0], lines[1], lines[2], lines[3]
    assert len(queries.get_xdata()) == 4 and len(supports.get_xdata()) == 2
    np.testing.assert_allclose(discs.get_xydata()[0], supports.get_xydata().mean(axis=0), atol=1e-5)


def test_attention_decides_as_the_test_did(folder):
    found = only(folder, "matchingnet")
    number, accuracy = telling(found)
    weights = np.asarray(figure_of(found, "attention", number).axes[0].images[0].get_array())
    assert weights.shape == (12, 6)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    chosen = weights.reshape(12, 3, 2).sum(axis=2).argmax(axis=1)
    assert (chosen == np.repeat(range(3), 4)).mean() == pytest.approx(accuracy[number])


def test_fits_go_through_the_test_tasks(folder):
    found = only(folder, "sinusoids")
    panels = figure_of(found, "fits", 4).axes
    errors = episodes(found, "mse")
    curves = []
    for task, axes in enumerate(panels, start=4):
        assert axes.get_title() == f"test task {task}: MSE {errors[task]:.3g}"
        lines = {line.get_label(): line.get_xydata() for line in axes.get_lines()}
        assert set(lines) == {"truth", "before adaptation", "after 1 step", "after 3 steps", "support"}
        truth = np.interp(lines["support"][:, 0], *lines["truth"].T)
        np.testing.assert_allclose(truth, lines["support"][:, 1], atol=0.02)
        curves.append((lines["before adaptation"][:, 1], lines["after 3 steps"][:, 1]))
    np.testing.assert_allclose(curves[0][0], curves[1][0], rtol=1e-5)  # one start for all tasks
    assert np.abs(curves[0][1] - curves[1][1]).max() > 1e-3
    assert len(figure_of(found, "fits", len(errors) - 1).axes) == 1  # no task that the test has not


def test_a_kind_that_no_run_has_is_one_line(folder, tmp_path):
    for name, kind, words in (
        ("protonet", "attention", "it is for matchingnet"),
        ("maml", "fits", "it is for regression on sinusoids"),
        ("sinusoids", "reliability", "no run here has a calibration.csv"),
        ("protonet", "adaptation", "no run here has inner steps"),
    ):
        with pytest.raises(RunError, match=words):
            list(draw_all([only(folder, name)], tmp_path, "png", [kind]))
    with pytest.raises(RunError, match="has tasks 0 to 11"):
        list(draw_all([only(folder, "maml")], tmp_path, "png", ["episode"], 12))


def test_models_that_cannot_have_a_figure_are_not_built(folder, tmp_path, monkeypatch):
    """Reject data that are not here, or too few test tasks, of a run that the kind is not for."""
    real, built = single_tasks.restored, []

    def restored(directory, *told):
        built.append(directory.path.parent.name)
        return real(directory, *told)

    monkeypatch.setattr(single_tasks, "restored", restored)
    names = [path.name for path in draw_all(runs_below([folder]), tmp_path, "png", ["fits", "embedding"])]
    assert built == ["protonet", "sinusoids"] and len(names) == 2


def test_each_run_has_its_own_sheet(folder, tmp_path):
    written = draw_all(runs_below([folder]), tmp_path, "svg", ["episode", "learning"])
    assert [path.name for path in written] == [
        "learning.svg",
        *(f"{name}-seed-0-episode.svg" for name in ("maml", "matchingnet", "protonet")),
    ]


def test_figures_of_files_need_no_tensorflow(folder, tmp_path):
    program = """
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = None
from metarun.cli.main import metarun
metarun.main(sys.argv[1:], standalone_mode=False)
"""
    arguments = ["plot", str(folder), "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in tmp_path.iterdir()} == {"learning", "adaptation", "reliability"}
    assert not {*FROM_FILES} & {*FROM_WEIGHTS}
    wrong = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--kind", "episode"], capture_output=True, text=True
    )
    assert wrong.returncode != 0 and "tensorflow" in wrong.stderr  # the test can fail
