"""Settings for matplotlib, Keras, pandas, NumPy and the terminal decide no result, figure or message."""

import json
import os
import sys
import warnings

import keras
import matplotlib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from command import metarun
from finished import results

from metarun.cli.main import metarun as group
from metarun.experiments.errors import RunError
from metarun.experiments.model import deterministic
from metarun.experiments.system import startup

SPEC = """
name: mine
algorithm: {name: maml, inner_lr: 0.1}
network: {name: mlp, hidden: [8]}
dataset: {name: glyphs}
protocol: inductive
train: {way: 2, shot: 1, query: 2, steps: 2}
validation: {episodes: 4, every: 1}
test: {episodes: 12}
jit: off
"""
PANDAS = {
    "display.precision": 1,
    "display.max_rows": 1,
    "display.max_colwidth": 3,
    "display.float_format": "X".format,
    "styler.format.precision": 1,
    "styler.format.decimal": ",",
    "styler.format.na_rep": "NA",
    "styler.render.max_rows": 1,
}
MATPLOTLIB = "text.usetex: True\nbackend: TkAgg\naxes.facecolor: ff1234\nfont.size: 40\nsvg.fonttype: none\n"


def called(*arguments):
    done = CliRunner().invoke(group, [str(each) for each in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def shown(folder):
    """Return what train, table and compare print, times aside, and the figures, of one run in a folder."""
    printed = [called("train", folder / "mine.yaml", "--out", folder / "runs")]
    for form in ("text", "csv", "markdown", "latex"):
        printed.append(called("table", folder / "runs", "--format", form, "--columns", "experiment,result,ci95,nll"))
    called("plot", folder / "runs", "--out", folder / "figures", "--format", "svg")
    return printed[1:], {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}


@pytest.fixture
def odd(monkeypatch):
    """Set many such settings in this process; afterwards everything is as before."""
    known = keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format()
    options = [each for pair in PANDAS.items() for each in pair]
    with (
        np.printoptions(precision=1, legacy="1.13", threshold=2, floatmode="fixed"),
        np.errstate(all="raise"),
        pd.option_context(*options),
        matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "ff1234", "font.size": 40}),
    ):
        keras.config.set_floatx("float16")
        keras.config.set_dtype_policy("mixed_float16")
        keras.config.set_epsilon(0.1)
        keras.config.set_image_data_format("channels_first")
        monkeypatch.setenv("COLUMNS", "1")
        yield
    keras.config.set_floatx(known[0])
    keras.config.set_dtype_policy("float32")
    keras.config.set_epsilon(known[1])
    keras.config.set_image_data_format(known[2])


def prepared(folder):
    folder.mkdir()
    (folder / "mine.yaml").write_text(SPEC)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory, session_cache):
    """Train and draw with nothing set."""
    folder = prepared(tmp_path_factory.mktemp("plain") / "plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARUN_CACHE", str(session_cache))
        return folder, shown(folder)


def test_fault_14_settings_of_libraries_decide_no_number_no_table_and_no_figure(plain, tmp_path, request, cache_folder):
    """Reject a learner in float16 or with Keras's epsilon; numbers as NumPy or pandas would print them; LaTeX."""
    folder, before = plain
    request.getfixturevalue("odd")
    other = prepared(tmp_path / "odd")
    assert shown(other) == before and before[1].keys() >= {"learning.svg", "adaptation.svg", "reliability.svg"}
    assert results(other / "runs/mine/seed-0") == results(folder / "runs/mine/seed-0")


def test_fault_14_files_and_variables_of_the_user_decide_nothing(plain, tmp_path):
    """Start a process of its own, which reads them. Rejected: an unknown backend that ends the command, warnings that
    are errors."""
    (tmp_path / "matplotlibrc").write_text(MATPLOTLIB)
    told = {"MPLBACKEND": "nothing", "PYTHONWARNINGS": "error", "COLUMNS": "1", "TERM": "dumb", "FORCE_COLOR": "1"}
    told |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PANDAS_FUTURE_INFER_STRING": "1"}
    folder, (_, figures) = plain
    done = metarun("plot", folder / "runs", "--out", "figures", "--format", "svg", cwd=tmp_path, **told)
    assert {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()} == figures
    assert done.stderr == ""


def test_fault_14_keras_is_as_it_ships(odd):
    deterministic(0)
    assert (keras.config.floatx(), keras.config.dtype_policy().name) == ("float32", "float32")
    assert (keras.config.epsilon(), keras.config.image_data_format()) == (1e-7, "channels_last")


def test_fault_14_the_environment_is_changed_before_anything_is_imported(monkeypatch):
    for name in ("KERAS_BACKEND", "MPLBACKEND", "TF_USE_LEGACY_KERAS", "TF2_BEHAVIOR", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        startup.ignore_settings_of_libraries()
        warnings.warn("a library's habit", DeprecationWarning, stacklevel=1)
    assert os.environ["KERAS_BACKEND"] == "tensorflow" and os.environ["MPLBACKEND"] == "agg"
    assert {"TF_USE_LEGACY_KERAS", "TF2_BEHAVIOR", "PYTHONWARNINGS"}.isdisjoint(os.environ) and sys.warnoptions == []


def test_a_keras_json_that_keras_refuses_is_named(monkeypatch, tmp_path):
    """Reject an internal error for a file of the user's."""
    (tmp_path / "keras.py").write_text("raise ValueError('Invalid `floatx` configuration. Received: floatx=half.')")
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RunError, match=r"^Keras cannot be imported: .*floatx=half\. Mend or remove .*keras\.json$"):
        startup._import_keras()


@pytest.mark.parametrize("columns", ["1", "-3", "0", "wide", "5000"])
def test_fault_14_pages_are_legible_on_any_terminal(monkeypatch, columns):
    """Reject one letter on a line, or a traceback."""
    monkeypatch.setenv("COLUMNS", columns)
    for name in ("", "train", "maml"):
        lines = called("describe", name).splitlines()
        assert max(map(len, lines)) >= 40
    assert json.loads(called("schema"))["title"]
