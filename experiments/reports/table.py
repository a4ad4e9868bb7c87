"""Make a table of rows: one line per measurement, the published number beside the reproduced one.

`ci95` covers the test episodes of a run, `seed std` the differences between seeds; neither includes the other. Rows
are averaged over seeds only when everything else agrees, the spec's digest included. All seeds see the same test
tasks, so `ci95` is the mean of their intervals over those tasks; `seed std` is the sample standard deviation of their
means.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError, SpecError, suggest, warn
from ..runs.directory import RunDirectory, closed_below
from ..runs.rows import DTYPES, Row, as_column, as_frame, left_out_of, read_frame, read_rows
from ..runs.run import digest_of
from ..runs.unfinished import as_text, reasons_in, run_of
from ..stats import FEW, exact_sum
from .formats import RIGHT, digits_of, number, records, render_cells, results, scale_of, unit_of, with_notes
from .mixed import origins_of
from .notes import notes_of, notes_on_experiments, seeds_text, steps_text
from .sweep import swept, validation

if TYPE_CHECKING:
    from pandas import DataFrame
    from pandas.api.extensions import ExtensionArray

GROUPED = (  # in what the rows of a line agree; in train_steps unless trainings ended early
    "experiment", "algorithm", "dataset", "split", "way", "shot", "query", "trial", "protocol", "metric", "judged",
    "checkpoint", "train_steps", "inner_steps", "head", "tuned", "episodes", "episodes_digest", "spec_digest",
    "content_digest", "test_options", "test_content_digest",
)  # fmt: skip
OF_RUNS = {"run": "string", "validation": "Float64", "validation_step": "Int64"}  # columns that results.csv lacks
# all that was measured
AVERAGED = ("seeds", "result", "ci95", "seed_std", "difference", "expected_calibration_error",
            "expected_calibration_error_uncalibrated", "temperature", "negative_log_likelihood", "minutes",
            "published", "published_ci95", "published_source", "left_out", "diverged", "stopped_early", "selected_of",
            "validation", "validation_step")  # fmt: skip
SCALED = ("mean", "ci95", "expected_calibration_error", "expected_calibration_error_uncalibrated",
          "validation")  # measured in the unit of `scale_of`  # fmt: skip
NOT_SCALED = ("temperature", "negative_log_likelihood", "regret", "optimal_actions", "seconds")
HIDDEN = {  # unless lines would look alike without
    "spec": "spec_digest",
    "query": "query",
    "checkpoint": "checkpoint",
    "tasks": "episodes_digest",
    "images": "content_digest",
    "tested images": "test_content_digest",
    "test options": "test_options",
}
DETAILS = {"steps": "train_steps", "inner": "inner_steps", "tuned": "tuned", "episodes": "episodes"}  # hidden in latex
HEADINGS = HIDDEN | DETAILS | {
    "seed std": "seed_std", "selected of": "selected_of", "mean": "result", "ece": "expected_calibration_error",
    "ece before": "expected_calibration_error_uncalibrated", "nll": "negative_log_likelihood",
}  # fmt: skip
IN_ROWS = {"train.steps", "algorithm.test_inner_steps"}  # keys of a spec that are columns of every table


def read_results(*folders: str | Path) -> DataFrame:
    """Return every row below the folders, or those of a results.csv, one line per row, for notebooks.

    Columns and their dtypes:
        experiment ... published_source   the columns of results.csv: `string` for texts, `Int64` for counts, `boolean`
            for stopped_early, `Float64` for measured numbers at full precision. Accuracies are fractions, `published`
            is in percent. What is not there is missing (`pandas.NA`), and so is a measurement that is not finite.
        left_out (string)   the other seeds of the experiment that have no row of this test, and why
        run (string)   folder of the run
        validation (Float64), validation_step (Int64)   validation value of the checkpoint that was tested, in the unit
            of `mean`, and the step at which it was measured: choose runs by it, not by the test
        algorithm.inner_lr, ...   for each key of the specs in which the runs of a sweep differ, its value in the run

    A results.csv knows only those up to `left_out`. Raises RunError if there is no row. Named on standard error are
    runs that have no row, a damaged or foreign result.json, and folders that cannot be read.
    """
    rows, notes = results_and_notes(*folders)
    told = rows.loc[rows["left_out"].notna(), ["experiment", "left_out"]].drop_duplicates()
    for note in [*(f"{line['experiment']}: without {line['left_out']}" for line in records(told)), *notes]:
        warn(note)
    return rows


def results_and_notes(*folders: str | Path) -> tuple[DataFrame, list[str]]:
    """Return the rows of `read_results`, and a note for each experiment that has none, and each unreadable folder."""
    from pandas import concat

    paths = [Path(folder) for folder in folders]
    frames = [read_frame(path, DTYPES | OF_RUNS) for path in paths if not path.is_dir()]
    within = [path for path in paths if path.is_dir()]
    below, notes = frame_of(read_rows(within), within)
    frames = [rows for rows in [*frames, below] if len(rows)]
    if not frames:
        raise no_row(folders, notes)
    return concat(frames, ignore_index=True), notes


def no_row(folders: Sequence[str | Path], notes: Sequence[str]) -> RunError:
    """Return the error for folders without a row; `notes` are those of `results_and_notes`."""
    where, way_out = ", ".join(map(str, folders)), f"run `metarun train SPEC --out {folders[0]}`"
    return RunError("\n".join([f"no finished run below {where}: {way_out}", *notes]))


def frame_of(rows: Mapping[Path, Row], folders: Sequence[Path]) -> tuple[DataFrame, list[str]]:
    """Return rows as `results_and_notes` does.

    Args:
        rows: all rows below the folders that can be read, by their files.
        folders: where they are.
    """
    runs, left_out = [run_of(path) for path in rows], left_out_of(rows, folders)
    frame = as_frame(rows.values(), [left_out.beside[path] for path in rows])
    frame["spec_digest"] = _digests(frame, runs, list(rows.values()))
    validations = [validation(run, row) for run, row in zip(runs, rows.values(), strict=True)]
    frame["run"] = as_column([run.path for run in runs], OF_RUNS["run"])
    frame["validation"] = as_column([value for value, _ in validations], OF_RUNS["validation"])
    frame["validation_step"] = as_column([step for _, step in validations], OF_RUNS["validation_step"])
    one_spec = ["experiment", "spec_digest", "content_digest"]
    specs = frame.drop_duplicates(one_spec)
    contents = list(specs["content_digest"].fillna(""))
    keys = swept([runs[number].spec for number in specs.index], contents).set_index(specs.index)
    frame = frame.merge(specs.loc[:, one_spec].join(keys), how="left", on=one_spec)
    closed = [f"{path} cannot be read ({why}): its runs are left out" for path, why in closed_below(folders).items()]
    return frame, notes_on_experiments(left_out.alone) + closed


def _digests(frame: DataFrame, runs: Sequence[RunDirectory], rows: Sequence[Row]) -> ExtensionArray:
    """Return the digest of each row's spec as this version computes it, where rows of older versions may be among them.

    Only rows of one experiment and the same data that have several digests are looked at: it takes reading the specs.
    """
    several = frame.groupby(["experiment", "content_digest"])["spec_digest"].transform("nunique").gt(1)
    digests = [
        digest_of(run, row) if more else row.spec_digest for run, row, more in zip(runs, rows, several, strict=True)
    ]
    return as_column(digests, DTYPES["spec_digest"])


def lines_of(rows: DataFrame) -> DataFrame:
    """Return one line per measurement, the mean over its seeds, in the order of the experiments' names.

    Columns are those of `averaged`. A measurement that is there twice counts once; a warning names both if they differ.
    """
    order = ["experiment", "split", "way", "shot", "protocol", "seed", "unpublished"]
    rows = rows.assign(unpublished=rows["published"].isna()).sort_values(order, na_position="first", kind="stable")
    rows = rows.drop(columns="unpublished")
    by = [name for name in GROUPED if name != "train_steps"]
    measurement = rows.groupby([*by, "seed"], sort=False, dropna=False).ngroup()
    again = measurement.duplicated()
    counted = records(rows.loc[~again, ["mean"]])
    for number_of, row in zip(measurement[again], records(rows.loc[again]), strict=True):
        if (mean := counted[number_of]["mean"]) != row["mean"]:
            which = f"{row['experiment']} seed {row['seed']}"
            warn(f"{which} was measured twice on the same tasks, as {mean} and {row['mean']}: the table has the first")
    return averaged(rows.loc[~again], by)


def averaged(rows: DataFrame, by: Sequence[str]) -> DataFrame:
    """Return one line per group of rows that differ in nothing but the seed, in the order of their first rows.

    A line has the columns of its rows, and: `seeds` (how many), `result`, `ci95`, `seed_std`, `difference`
    (reproduced minus published), `minutes` (of training, per seed), `mixed` (origins in which the seeds differ).
    `diverged` is the sum over the seeds, `stopped_early` the number of seeds whose training ended early, `steps` the
    range of their steps as a text. All else that is measured is the mean over the seeds, and missing where it is
    missing for one of them. What else differs between the seeds, such as `seed`, is missing; the published number is
    that of the first row. Accuracies and calibration errors are in percent. `left_out` has the seeds that no row is of.
    An interval of zero from fewer than `FEW` episodes, as old rows have it, is none.
    """
    rows = rows.assign(ci95=rows["ci95"].mask(rows["ci95"].eq(0) & rows["episodes"].lt(FEW)))
    group = rows.groupby(list(by), sort=False, dropna=False).ngroup().to_numpy()
    places = rows.reset_index(drop=True).groupby(group).indices
    lines = rows.iloc[[seeds[0] for seeds in places.values()]].reset_index(drop=True)
    scales = [scale_of(metric) for metric in lines["metric"]]

    def seeds_of(name: str) -> list[list[Any]]:
        values = rows[name].astype(object).where(rows[name].notna(), None).to_numpy()
        return [list(values[seeds]) for seeds in places.values()]

    factors = dict.fromkeys(SCALED, scales) | dict.fromkeys(NOT_SCALED, [1.0] * len(lines))
    factors = {name: each for name, each in factors.items() if name in rows}
    means = {name: [*map(_mean, seeds_of(name), each)] for name, each in factors.items()}
    result = means.pop("mean")
    spread = [*map(_deviation, seeds_of("mean"), result, scales)]
    measured = means | {"result": result, "seed_std": spread}
    alike = rows.groupby(group).nunique(dropna=False).eq(1)
    added = (*by, *measured, "left_out", "diverged", "stopped_early")
    others = [name for name in alike if name not in added and name[:9] != "published"]
    lines = lines.assign(
        **{name: lines[name].where(alike[name]) for name in others},
        **{name: as_column(values, "Float64") for name, values in measured.items()},
        seeds=as_column(map(len, places.values()), "Int64"),
        left_out=as_column(map(_others, seeds_of("left_out"), seeds_of("seed")), "string"),
        diverged=as_column(map(_total, seeds_of("diverged")), "Int64"),
        stopped_early=as_column(map(_total, seeds_of("stopped_early")), "Int64"),
        steps=as_column(map(steps_text, seeds_of("train_steps")), "string"),
        mixed=as_column([origins_of(rows.iloc[seeds]) for seeds in places.values()], "string"),
    )
    return lines.assign(difference=lines["result"] - lines["published"], minutes=lines["seconds"] / 60)


def _others(texts: Sequence[str | None], seeds: Sequence[int]) -> str:
    """Return the text of the seeds in `texts`, each as `unfinished.as_text` writes it, that are not in `seeds`."""
    reasons = {seed: reason for text in texts for seed, reason in reasons_in(text or "").items()}
    return as_text({seed: reason for seed, reason in reasons.items() if seed not in seeds})


def _mean(values: Sequence[float | None], scale: float) -> float | None:
    known = [value for value in values if value is not None]
    return scale * exact_sum(known) / len(known) if len(known) == len(values) else None


def _total(values: Sequence[float | None]) -> int | None:
    known = [int(value) for value in values if value is not None]
    return sum(known) if known else None


def _deviation(values: Sequence[float | None], mean: float | None, scale: float) -> float | None:
    """Return the sample standard deviation; None for one value, or where one is missing."""
    if mean is None or len(values) < 2:
        return None
    squares = ((value * scale - mean) * (value * scale - mean) for value in values if value is not None)
    return math.sqrt(exact_sum(squares) / (len(values) - 1))


def render(lines: DataFrame, form: str, columns: Sequence[str] = (), notes: Sequence[str] = ()) -> str:
    """Return the table as text, csv, markdown or latex (booktabs) and its notes, without a final newline.

    Accuracies are in percent; csv has full precision. markdown and latex have `result ± ci95` in one cell, unless
    `columns` has ci95. latex leaves out seeds, ece, temperature, nll and minutes.

    Args:
        lines: the lines of `lines_of`.
        form: text, csv, markdown or latex.
        columns: headings of the table, or columns of `lines`; without them, those that are not empty or needless.
        notes: further notes below the table. csv has none: its column `left_out` says which seeds a mean does not have.

    Raises:
        SpecError: there is no such column.
    """
    names = {heading: column_of(lines, heading) for heading in columns}
    if form == "csv":
        names = names or {name: name for name in [*GROUPED, *AVERAGED, *keys_of(lines).values()] if name in lines}
        return render_cells(lines.loc[:, list(names.values())].set_axis(list(names), axis="columns"), "csv")
    cells, right = shown_cells(lines, form, names)
    return with_notes(render_cells(cells, form, right), [*notes_of(lines), *notes], form)


def shown_cells(
    lines: DataFrame, form: str, names: Mapping[str, str] | None = None
) -> tuple[DataFrame, frozenset[str]]:
    """Return the cells of a table as texts under their headings, and the headings of columns that are aligned right.

    Args:
        lines: the lines of `lines_of`.
        form: text, markdown or latex, see `render`.
        names: headings and their columns in `lines`; without them, those that are not empty or needless.
    """
    from pandas.api.types import is_numeric_dtype

    names = names or {}
    cells = _cells(lines, "text" if "ci95" in names else form)
    others = {heading: column for heading, column in names.items() if heading not in cells}
    cells = cells.assign(**{heading: [text_of(value) for value in lines[column]] for heading, column in others.items()})
    cells = cells.loc[:, list(names)] if names else _without_needless(cells, lines, form)
    numeric = {heading for heading, name in (keys_of(lines) | others).items() if is_numeric_dtype(lines[name])}
    return cells, RIGHT | numeric


def _cells(lines: DataFrame, form: str) -> DataFrame:
    """Return all columns that a table may have, as texts under their headings."""
    from pandas import DataFrame

    keys = {heading: key for heading, key in keys_of(lines).items() if key not in IN_ROWS}
    return DataFrame(
        [
            {
                "experiment": line["experiment"],
                **{heading: _short(column, str(line[column] or "")) for heading, column in HIDDEN.items()},
                "algorithm": line["algorithm"],
                "dataset": line["dataset"] + _beside(line),
                "way": str(line["way"] or ""),
                "shot": str(line["shot"] or ""),
                "trial": line["trial"] or "",
                "protocol": line["protocol"] or "",
                "steps": line["steps"] or "",
                "inner": str(line["inner_steps"] or ""),
                "tuned": line["tuned"] or "",
                **{heading: text_of(line[key]) for heading, key in keys.items()},
                "episodes": str(line["episodes"]),
                "seeds": seeds_text(line["seeds"], line["left_out"]),
                "metric": unit_of(line["metric"]),
                "selected of": str(line.get("selected_of") or ""),
                "validation": number(line.get("validation"), digits_of(line["metric"])),
                **results(line, form),
                "ece": number(line["expected_calibration_error"], 2),
                "ece before": number(line.get("expected_calibration_error_uncalibrated"), 2),
                "temperature": number(line.get("temperature"), 3),
                "nll": number(line["negative_log_likelihood"], 3),
                "minutes": f"{line['minutes']:.1f}",
            }
            for line in records(lines)
        ],
        dtype=object,
    )


def _beside(line: dict[str, Any]) -> str:
    """Return what is unusual in a test: another split, light and dark as the user said, a head, what is judged
    besides.
    """
    convert = json.loads(line["test_options"] or "{}").get("convert")
    head = json.loads(line.get("head") or "{}")
    words = " ".join(["head", head.pop("name"), *(f"{key}={value}" for key, value in head.items())]) if head else None
    unusual = [each for each in (line["split"], convert, words, line.get("judged")) if each not in ("test", None)]
    return f" ({', '.join(unusual)})" if unusual else ""


def _short(column: str, text: str) -> str:
    """Return the beginning of a digest; options of a dataset as a whole, without its name."""
    if column != "test_options" or not text:
        return text[:8]
    options = {key: value for key, value in json.loads(text).items() if key != "name"}
    return " ".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in options.items())


def _without_needless(cells: DataFrame, lines: DataFrame, form: str) -> DataFrame:
    """Return the cells without empty columns, columns that distinguish no lines, and validation outside a sweep."""
    hidden = HIDDEN | DETAILS if form == "latex" else HIDDEN
    telling = [name for name in cells if name not in hidden and HEADINGS.get(name, name) not in AVERAGED]
    alike = cells.groupby(telling, sort=False).ngroup()
    for heading, column in hidden.items():
        known = lines.groupby(alike)[column].transform("nunique", dropna=False)
        cells[heading] = cells[heading].where(known.gt(1), "")
    if form == "latex":
        cells = cells.drop(columns=["seeds", "ece", "ece before", "temperature", "nll", "minutes"])
    if not keys_of(lines):
        cells = cells.drop(columns="validation")
    return cells.loc[:, (cells != "").any()]


def keys_of(lines: DataFrame) -> dict[str, str]:
    """Return the keys in which the runs of a sweep differ by their headings: the last word, if nothing else has it."""
    keys = [name for name in lines if "." in name]
    last = Counter(key.rpartition(".")[2] for key in keys)
    last.update([*lines, *HEADINGS])
    return {word if last[word := key.rpartition(".")[2]] == 1 else key: key for key in keys}


def column_of(lines: DataFrame, heading: str) -> str:
    """Return the column of `lines` with this heading or name; SpecError suggests the nearest if there is none."""
    known = dict(zip(lines, lines, strict=True)) | HEADINGS | keys_of(lines)
    if heading in known:
        return known[heading]
    hint = suggest(heading, known, f"the columns are {', '.join(known)}")
    raise SpecError([f"the table has no column {heading!r}; {hint}"])


def text_of(value: Any) -> str:
    """Return the text of a value in a column without a format of its own."""
    from pandas import isna

    if isna(value):
        return ""
    return (
        str(value).lower() if isinstance(value, bool) else f"{value:.10g}" if isinstance(value, float) else str(value)
    )
