"""Tables: rows grouped into lines, columns, pivots and sweeps, in four formats."""

import csv
import io
import json
import math
import re
import struct

import numpy as np
import pandas
import pytest
from command import metarun
from rows import ROW

from metarun.experiments.config.load import load, resolved_yaml
from metarun.experiments.errors import RunError, SpecError
from metarun.experiments.reports.formats import records
from metarun.experiments.reports.pivot import render_pivot
from metarun.experiments.reports.table import GROUPED, lines_of, read_results, render
from metarun.experiments.runs.rows import COLUMNS, DTYPES, Row, as_frame, merge, read_frame, rows_as_csv


def row(**changes):
    return Row(**ROW | changes)


def table_of(rows):
    return lines_of(as_frame(rows))


def test_seeds_are_averaged_and_specs_are_not():
    lines = table_of([row(seed=0, mean=0.5), row(seed=1, mean=0.7), row(seed=0, mean=0.9, spec_digest="f" * 16)])
    assert list(lines["seeds"]) == [2, 1] and list(lines["result"]) == pytest.approx([60, 90])
    first = lines.iloc[0]
    assert first["seed_std"] == pytest.approx(100 * math.sqrt(2 * 0.01))  # n - 1; the population's would be 10
    assert first["ci95"] == pytest.approx(1.0)  # the mean over seeds, not divided by sqrt(seeds)
    assert first["difference"] == pytest.approx(9.0)
    text = render(lines, "text")
    assert "00000000" in text and "ffffffff" in text  # one name, two specs: the digests tell them apart


def test_a_measurement_that_is_there_twice_counts_once():
    """Count once what `evaluate` repeats, or a run that is copied: seeds and their spread stay those of two
    trainings."""
    both = [row(seed=0, mean=0.5), row(seed=1, mean=0.7)]
    repeated = row(seed=0, mean=0.5, published=None)
    lines = table_of([repeated, *both, row(seed=1, mean=0.7)])
    assert records(lines) == records(table_of(both))
    assert list(lines["seeds"]) == [2] and list(lines["published"]) == [51.0]


def test_protocols_and_test_tasks_never_share_a_line():
    rows = [row(), row(protocol="transductive"), row(episodes_digest="2" * 16), row(way=20), row(checkpoint="last")]
    assert len(table_of(rows)) == len(rows)


def test_formats():
    lines = table_of([row(experiment="a_b|c", published_ci95=0.5)])
    told = dict(zip(*csv.reader(io.StringIO(render(lines, "csv"))), strict=True))
    assert float(told["result"]) == 50.0 and float(told["difference"]) == -1.0
    markdown = render(lines, "markdown").splitlines()
    assert r"a_b\|c" in markdown[2] and "51.00 ± 0.50" in markdown[2]
    assert len({line.replace(r"\|", "").count("|") for line in markdown}) == 1
    latex = render(lines, "latex")
    assert r"a\_b|c" in latex and r"accuracy \%" in latex and r"$51.00 \pm 0.50$" in latex and latex.count(r"\\") == 2
    text = render(table_of([row(mean=None, ci95=None)]), "text")
    assert "not finite" in text
    regression = render(table_of([row(metric="mse", mean=0.351, published=0.35)]), "text")
    assert "0.351" in regression and "+0.001" in regression  # no percent


def test_fault_08_intervals_of_few_episodes_are_told(capsys):
    """Reject: 72.00 +- 0.00 of two equal episodes, as rows of older versions have it, and a rough interval unsaid."""
    note = "fewer than 30 test episodes{}: intervals are rough, and missing where all episodes are equal"
    few, many = row(experiment="few", episodes=2, mean=0.72, ci95=0.0), row(experiment="many")
    for form, mark in (("text", ""), ("markdown", ""), ("latex", "% ")):
        told = render(table_of([few, many]), form)
        assert told.splitlines()[-1] == mark + note.format(" (few)") and not re.search(r"(?<!\d)0\.00", told)
        assert render(table_of([few]), form).splitlines()[-1] == mark + note.format("")
    assert "30 test" not in render(table_of([many, row(experiment="zero", episodes=30, ci95=0.0)]), "text")
    assert note.format(" (few)") in render_pivot(table_of([few, many]), "experiment", "shot", "text")


def test_two_measurements_that_disagree_are_told(capsys):
    assert len(table_of([row(mean=0.5), row(mean=0.6)])) == 1
    assert "was measured twice on the same tasks, as 0.5 and 0.6" in capsys.readouterr().err


def test_lines_that_differ_in_what_is_not_shown_show_it():
    """Reject two lines that look the same."""
    rows = [row(query=15), row(query=7, checkpoint="last"), row(query=15, episodes_digest="2" * 16), row(way=20)]
    names, _, *lines = render(table_of(rows), "text").splitlines()
    assert "query" in names and "checkpoint" in names and "tasks" in names
    assert ["22222222" in line for line in lines] == [False, False, True, False]
    assert not {"query", "checkpoint", "tasks"} & set(render(table_of([row(), row(way=20)]), "text").split())


ODD = ["0123", "1e5", "NA", "nan", "true", "None", "a,b", 'a "word"', "ä|_b"]


def test_a_row_that_is_read_back_is_equal_bit_for_bit(tmp_path):
    """Reject fifteen digits, for random floats of 64 bits."""
    words = np.random.default_rng(0).integers(0, 2**64, 300, dtype=np.uint64)
    values = [struct.unpack("d", word.tobytes())[0] for word in words]
    rows = [row(seed=seed, mean=value, seconds=abs(value)) for seed, value in enumerate(values) if math.isfinite(value)]
    (tmp_path / "results.csv").write_text(rows_as_csv(rows))
    read = read_frame(tmp_path / "results.csv", DTYPES)
    pandas.testing.assert_frame_equal(read, as_frame(rows), check_exact=True)
    assert [struct.pack("d", value) for value in read["mean"]] == [struct.pack("d", row.mean) for row in rows]
    assert [float(f"{value:.15g}") for value in read["mean"]] != list(read["mean"])


def test_texts_stay_texts_and_what_is_missing_is_missing(tmp_path):
    rows = [row(experiment=name, trial=name, way=None, published=None, seed=seed) for seed, name in enumerate(ODD)]
    (tmp_path / "results.csv").write_text(rows_as_csv(rows))
    with (tmp_path / "results.csv").open(newline="") as file:
        assert [line["experiment"] for line in csv.DictReader(file)] == ODD
    read = read_results(tmp_path / "results.csv")
    assert list(read["experiment"]) == list(read["trial"]) == ODD
    assert read.dtypes[COLUMNS].astype(str).to_dict() == DTYPES and set(DTYPES.values()) == {
        "string",
        "Int64",
        "Float64",
        "boolean",
    }
    assert read[["way", "published", "git_commit", "validation"]].isna().all(axis=None)
    assert [line.split()[0] for line in render(lines_of(read[:6]), "text").splitlines()[2:]] == sorted(ODD[:6])


def test_a_file_that_is_no_table_is_told(tmp_path):
    for text in ("", "experiment,seed\nname,many\n"):
        (tmp_path / "results.csv").write_text(text)
        with pytest.raises(RunError, match=r"results\.csv cannot be read as a table"):
            read_results(tmp_path / "results.csv")
    with pytest.raises(RunError, match="no finished run below"):
        read_results(tmp_path)


def leave(folder, *overrides, seed=0, validations=((500, 0.5), (1000, 0.7), (1500, 0.6)), **changes):
    """Write a finished run of omniglot/maml with overrides."""
    experiment = load("omniglot/maml", overrides).experiment
    run = folder / experiment.name / f"seed-{seed}"
    run.mkdir(parents=True)
    (run / "spec.yaml").write_text(resolved_yaml(experiment.model_copy(update={"seeds": (seed,)})))
    told = {"experiment": experiment.name, "seed": seed, "spec_digest": experiment.digest, "published": None}
    (run / "result.json").write_text(json.dumps(row(**told | changes).as_json()))
    lines = [f"{step},val,,{value},0.01" for step, value in validations]
    (run / "metrics.csv").write_text("\n".join(["step,split,loss,accuracy,ci95", "100,train,1,0.9,", *lines, ""]))
    return run


@pytest.fixture
def sweep(tmp_path):
    """Write runs of two inner rates, two numbers of inner steps and two seeds, and a run that belongs to no sweep."""
    for rate in ("0.1", "1"):
        for steps in ("1", "5"):
            changes = [f"algorithm.inner_lr={rate}", f"algorithm.inner_steps={steps}", f"name=s-{rate}-{steps}"]
            for seed in range(2):
                leave(tmp_path, *changes, seed=seed, mean=0.5 + float(rate) / 10 + int(steps) / 100 + seed / 1000)
    leave(tmp_path, "name=other", "algorithm.inner_lr=3", "train.meta_batch=2", "train.steps=7")
    return tmp_path


def test_the_keys_of_a_sweep_are_columns(sweep):
    """Reject keys in which any two runs differ, such as those of `other`."""
    read = read_results(sweep)
    assert [name for name in read if "." in name] == ["algorithm.inner_lr", "algorithm.inner_steps"]
    assert read["algorithm.inner_lr"].dtype == "Float64" and read["algorithm.inner_steps"].dtype == "Int64"
    first = read[(read["experiment"] == "s-0.1-5") & (read["seed"] == 1)].iloc[0]
    assert (first["algorithm.inner_lr"], first["algorithm.inner_steps"], first["run"]) == (
        0.1,
        5,
        str(sweep / "s-0.1-5/seed-1"),
    )
    names, _, line, *_ = render(lines_of(read), "text").splitlines()
    assert names.split().index("validation") < names.split().index("result")
    assert "inner_lr" in names and "algorithm.inner_steps" in names and "meta_batch" not in names
    assert line.split()[:2] == ["other", "maml"] and "3" in line.split()
    told = list(csv.DictReader(io.StringIO(render(lines_of(read), "csv"))))
    assert [line["algorithm.inner_lr"] for line in told] == ["3.0", "0.1", "0.1", "1.0", "1.0"]
    merge(sweep)
    assert (sweep / "results.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


def test_runs_that_are_no_sweep_have_no_further_columns(tmp_path):
    leave(tmp_path, "name=one")
    leave(tmp_path, "name=two", "algorithm.inner_lr=3", "train.meta_batch=2")
    (tmp_path / "two/seed-0/metrics.csv").unlink()
    read = read_results(tmp_path)
    assert not [name for name in read if "." in name]
    assert "validation" not in render(lines_of(read), "text")
    assert records(read[["validation", "validation_step"]])[1] == {"validation": None, "validation_step": None}
    (tmp_path / "one/seed-0/spec.yaml").write_text("[")
    assert len(read_results(tmp_path)) == 2


@pytest.mark.parametrize(
    ("changes", "value", "step"),
    [
        ({}, 0.7, 1000),
        ({"checkpoint": "last"}, 0.6, 1500),
        ({"metric": "mse"}, None, None),  # that is not in metrics.csv
        ({"validations": [(1, "nan"), (2, 0.4), (3, 0.4)]}, 0.4, 2),
        ({"validations": [(1, 0.4), (2, "nan")], "checkpoint": "last"}, None, None),
        ({"validations": []}, None, None),
    ],
)
def test_the_validation_is_that_of_the_tested_checkpoint(tmp_path, changes, value, step):
    leave(tmp_path, **changes)
    assert records(read_results(tmp_path)[["validation", "validation_step"]]) == [
        {"validation": value, "validation_step": step}
    ]


def test_what_differs_between_seeds_is_not_said_of_their_mean():
    """Reject the seed, device or folder of the first row beside the mean of all, and a column for one seed."""
    rows = [row(seed=seed, mean=mean, device=device) for seed, mean, device in ((0, 0.5, "CPU"), (1, 0.7, "GPU"))]
    lines = table_of([*rows, row(experiment="single", seed=4)])
    (several, single) = records(lines)
    assert (several["seed"], several["device"], several["parameters"]) == (None, None, 5)
    assert (single["seed"], single["device"]) == (4, "CPU")
    with pytest.raises(SpecError, match="seeds are averaged"):
        render_pivot(lines, "experiment", "seed", "text")


def test_columns_are_chosen_by_heading_or_by_name(sweep):
    lines = lines_of(read_results(sweep))
    text = render(lines, "text", ["inner_lr", "train_steps", "steps", "parameters", "validation", "result", "seed std"])
    names, _, other, *_ = text.splitlines()
    assert names.split() == ["inner_lr", "train_steps", "steps", "parameters", "validation", "result", "seed", "std"]
    assert other.split() == ["3", "10", "10", "5", "70.00", "50.00"]
    latex = render(lines, "latex", ["experiment", "result"]).splitlines()
    assert latex[0] == r"\begin{tabular}{lr}" and latex[4] == r"other & $50.00 \pm 1.00$ \\"
    apart = render(lines, "latex", ["result", "ci95"]).splitlines()
    assert apart[4] == r"50.00 & 1.00 \\"
    exact = render(lines[:1].assign(result=100 / 3), "csv", ["inner_lr", "result"])
    assert exact == f"inner_lr,result\n3.0,{100 / 3!r}"
    with pytest.raises(SpecError, match="no column 'inner_rl'; did you mean inner_lr"):
        render(lines, "text", ["inner_rl"])


def test_a_pivot_in_four_formats(sweep):
    lines = lines_of(read_results(sweep))
    lines = lines[lines["experiment"] != "other"]
    text = render_pivot(lines, "inner_lr", "algorithm.inner_steps", "text").splitlines()
    assert text[0].split("  ") == ["inner_lr", "algorithm.inner_steps 1", "algorithm.inner_steps 5"]
    assert text[2].split() == ["0.1", "52.05", "±", "1.00", "56.05", "±", "1.00"]
    assert text[-1] == "accuracy %, with its 95% interval over the test episodes"
    latex = render_pivot(lines, "inner_lr", "algorithm.inner_steps", "latex")
    assert r"\toprule" in latex and r"inner\_lr & algorithm.inner\_steps 1 &" in latex
    assert r"0.1 & $52.05 \pm 1.00$ & $56.05 \pm 1.00$ \\" in latex
    assert "  52.05 ± 1.00 |" in render_pivot(lines, "inner_lr", "algorithm.inner_steps", "markdown")
    told = list(csv.reader(io.StringIO(render_pivot(lines[:-1], "inner_lr", "algorithm.inner_steps", "csv"))))
    assert told[1:] == [["0.1", "52.05 ± 1.00", "56.05 ± 1.00"], ["1", "61.05 ± 1.00", ""]]


def test_a_pivot_is_sorted_by_numbers_and_refuses_what_it_cannot_show():
    """Reject: "10" before "5"."""
    lines = table_of([row(way=way, algorithm=name) for way in (5, 10) for name in ("maml", "reptile")])
    text = render_pivot(lines, "algorithm", "way", "text")
    assert re.split("  +", text.splitlines()[0]) == ["algorithm", "way 5", "way 10"]
    assert [line.split()[0] for line in render_pivot(lines, "way", "algorithm", "csv").splitlines()[1:]] == [
        "5,50.00",
        "10,50.00",
    ]
    with pytest.raises(SpecError, match=r"2 measurements of algorithm maml, shot 1; they differ in way$"):
        render_pivot(lines, "algorithm", "shot", "text")
    with pytest.raises(SpecError, match="two different columns"):
        render_pivot(lines, "way", "way", "text")
    with pytest.raises(SpecError, match="accuracy and mse"):
        render_pivot(table_of([row(), row(metric="mse")]), "metric", "way", "text")


def test_the_best_is_marked_in_each_format():
    from metarun.experiments.reports.formats import render_cells

    cells = pandas.DataFrame({"method": ["a_b", "c"], "result": ["98.58 ± 0.16", "9.00"]})
    bold = pandas.Series([True, False])
    assert "**98.58 ± 0.16**" in render_cells(cells, "markdown", bold=bold)
    assert r"a\_b & {\boldmath \textbf{$98.58 \pm 0.16$}} \\" in render_cells(cells, "latex", bold=bold)
    assert render_cells(cells, "text", bold=bold).splitlines()[2:] == ["a_b     98.58 ± 0.16*", "c               9.00"]


def test_the_command(sweep):
    done = metarun("table", sweep, "--columns", "experiment, result", "--format", "csv")
    assert done.stdout.splitlines()[:2] == ["experiment,result", "other,50.0"]
    assert "did you mean algorithm?" in metarun("table", sweep, "--columns", "algoritm", code=2).stderr
    assert "expected ROWS,COLUMNS" in metarun("table", sweep, "--pivot", "way", code=2).stderr
    assert "exclude each other" in metarun("table", sweep, "--pivot", "way,shot", "--columns", "way", code=2).stderr
    pivot = metarun("table", sweep / "s-0.1-1", sweep / "s-1-1", "--pivot", "algorithm,inner_lr").stdout
    assert re.split("  +", pivot.splitlines()[0]) == ["algorithm", "inner_lr 0.1", "inner_lr 1"]


def test_the_last_job_of_a_sweep_writes_its_table(sweep):
    from metarun.experiments.jobs.job import write_table

    write_table(str(sweep), None)
    with (sweep / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    names = list(lines[0])
    assert names[-4:] == ["validation", "validation_step", "algorithm.inner_lr", "algorithm.inner_steps"]
    assert names[: len(GROUPED)] == list(GROUPED) and lines[1]["validation"] == "70.0"
    assert "± 1.00" in (sweep / "table.md").read_text() and "inner_lr" in (sweep / "table.txt").read_text()
    assert r"\bottomrule" in (sweep / "table.tex").read_text()
