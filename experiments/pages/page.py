"""Write the runs below a folder as one self-contained HTML page: tables, figures, specs, and where they were made.

The page needs no network and no script: figures are data URIs, and long parts are <details>. The same runs give the
same bytes, so the page has no time of writing. Whatever comes from specs, names of folders and failures is escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...datasets.errors import KnownError, counted
from ..errors import Interrupted, RunError, warn
from ..figures.curves import MAIN
from ..figures.draw import FROM_FILES
from ..figures.finished import FinishedRun, finished_runs
from ..figures.seeds import SeedGroup, seed_groups
from ..figures.style import own_style
from ..papers.filled import CELLS, SOMETIMES, read_table, verdict
from ..papers.render import cells_of
from ..reports.formats import RIGHT, digits_of, interval, number, records, scale_of
from ..reports.notes import notes_of, notes_to_warn_of, steps_text
from ..reports.sweep import validation
from ..reports.table import frame_of, lines_of, no_row, shown_cells
from ..runs import environments
from ..runs.directory import ROW, RunDirectory
from ..runs.rows import Row, read_rows
from ..runs.run import readable_spec
from ..runs.unfinished import unfinished
from ..stats import FEW
from ..system.failures import in_one_line

if TYPE_CHECKING:
    from pandas import DataFrame

FIRST = ("experiment", "result", "seed std", "published", "difference", "verdict")  # columns of the results
ALIKE = ("dataset", "way", "shot", "trial", "protocol", "steps", "episodes")  # columns only if the lines differ in them
COUNTS = {"way", "shot", "steps", "inner"}  # aligned right, too
LINES = 7  # experiments in one chart: as many as there are colours
CHARTS = 12  # of one kind
DPI = 150
FACTS = {  # keys of environment.json, and words for them
    "device": "Device", "devices": "Devices", "cuda": "CUDA", "processor": "Processor", "cores": "Cores",
    "intra_op_threads": "Threads in an operation", "inter_op_threads": "Threads across operations",
    "workers": "Workers", "python": "Python", "packages": "Packages", "git_commit": "Commit", "code": "Code digest",
    "onednn": "oneDNN", "deterministic": "Deterministic", "tensor_float_32": "TF32", "variables": "Variables",
    "chosen": "Chosen by the GPU's memory", "platform": "Platform", "libc": "C library", "host": "Host",
}  # fmt: skip


class Found(NamedTuple):
    """Hold the runs below a folder."""

    folder: Path
    rows: DataFrame | None  # of `frame_of`; None if no run has a row
    notes: list[str]
    runs: list[FinishedRun]
    without_row: dict[Path, str]  # folders of runs, and why they have no row


class Table(NamedTuple):
    """Hold a table of texts."""

    title: str
    headings: list[str]
    right: Collection[str]  # headings of columns of numbers
    lines: list[list[str]]
    links: Sequence[str] = ()  # for each line, the section that it links to, or ""
    notes: Sequence[str] = ()
    about: str = ""  # what all lines have in common


class Picture(NamedTuple):
    """Hold a figure as a data URI, or the reason why it is not drawn."""

    caption: str
    uri: str = ""
    alt: str = ""
    width: int = 0  # CSS pixels
    height: int = 0
    problem: str = ""


class Section(NamedTuple):
    """Hold the part of an experiment: its seeds, a test task, its spec, and where it was made."""

    anchor: str
    name: str
    about: str
    description: str
    published: str
    seeds: Table
    sheet: Picture | None
    spec: str
    environments: list[tuple[str, list[tuple[str, str]]]]  # which seeds, and facts


def find(folder: Path) -> Found:
    """Return the runs below a folder. Raise RunError if there is none; warn of what its table warns of."""
    without_row, rows = unfinished([folder]), read_rows([folder])
    frame, notes = frame_of(rows, [folder])
    if not (rows or without_row):
        raise no_row([folder], notes)
    own = {path: row for path, row in rows.items() if path.name == ROW}
    return Found(folder, frame if rows else None, notes, finished_runs(own, without_row), without_row)


def render(found: Found, sheets: int, episode: int = 0) -> str:
    """Return the page.

    Args:
        found: the result of `find`.
        sheets: the number of experiments, at most, of which a test task is shown. TensorFlow is imported for them.
        episode: the number of that test task.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    groups = seed_groups(found.runs)
    results, notes = _results(found, groups)
    with own_style():
        charts, left_out = _charts(groups, found.folder)
        sections = list(_sections(groups, sheets, episode))
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    without_row = [(_inside(path, found.folder), _progress(path, why)) for path, why in found.without_row.items()]
    return pages.get_template("page.html").render(
        title=found.folder.resolve().name or str(found.folder),
        counts=_counts(found, groups),
        results=results,
        notes=notes,
        papers=list(_papers(found.folder)),
        charts=charts,
        left_out=left_out,
        sections=sections,
        sheets=min(sheets, len(groups)),
        without_row=without_row,
    )


def _visible(value: Any) -> Any:
    """Return a text with escapes for what cannot be printed, such as control characters, line ends aside."""
    if not isinstance(value, str) or hasattr(value, "__html__") or value.isprintable():
        return value
    return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in value)


def _inside(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) and path != folder else path.name


def _without(folder: Path, text: str) -> str:
    """Return a text that may begin with a path in the folder, without the path of the folder."""
    return text.removeprefix(f"{folder}/")


def _progress(path: Path, why: str) -> str:
    step = RunDirectory(path).step
    return f"{why} (its newest checkpoint is of step {step})" if step else why


def _counts(found: Found, groups: Sequence[SeedGroup]) -> str:
    """Return how many runs there are: `9 finished runs of 3 experiments, 1 run failed, 2 runs not finished`."""
    failed = sum(why.startswith("failed") for why in found.without_row.values())
    parts = [f"{counted(len(found.runs), 'finished run')} of {counted(len(groups), 'experiment')}"]
    parts += [f"{counted(failed, 'run')} failed"] if failed else []
    others = len(found.without_row) - failed
    return ", ".join([*parts, f"{counted(others, 'run')} not finished"] if others else parts)


def _results(found: Found, groups: Sequence[SeedGroup]) -> tuple[list[Table], list[str]]:
    """Return the table of `metarun table` in parts, one for each metric, with verdicts; and the notes below it."""
    if found.rows is None:
        return [], [_without(found.folder, note) for note in found.notes]
    lines = lines_of(found.rows)
    for note in [*notes_to_warn_of(lines), *found.notes]:
        warn(note)
    digests = dict(zip(found.rows["run"], found.rows["spec_digest"], strict=True))
    anchors: dict[tuple[str, str], str] = {}
    for place, group in enumerate(groups, 1):
        for run in group.runs:
            anchors.setdefault((run.row.experiment, digests[str(run.directory.path)]), f"experiment-{place}")
    tables = [_results_by(metric, part, anchors) for metric, part in lines.groupby("metric", sort=False)]
    return tables, [_without(found.folder, note) for note in [*notes_of(lines), *found.notes]]


def _results_by(metric: Any, lines: DataFrame, anchors: Mapping[tuple[str, str], str]) -> Table:
    """Return the lines of one metric as a table; `anchors` has the section of each experiment and digest."""
    lines = lines.reset_index(drop=True)
    told = records(lines)
    cells, right = shown_cells(lines, "markdown")
    if "published" in cells:
        cells["verdict"] = [verdict(line) for line in told]
    alike = [name for name in ALIKE if name in cells and len(set(cells[name])) == 1]
    about = ", ".join(f"{name} {cells[name].iloc[0]}" for name in alike)
    cells = cells.drop(columns=["metric", *alike])
    cells = cells.loc[:, [*(name for name in FIRST if name in cells), *(name for name in cells if name not in FIRST)]]
    links = [anchors.get((line["experiment"], line["spec_digest"]), "") for line in told]
    return Table(MAIN[metric].capitalize(), list(cells), right | COUNTS, cells.to_numpy().tolist(), links, about=about)


def _papers(folder: Path) -> Iterator[Table]:
    """Yield the papers' tables that `metarun reproduce` wrote into the folder."""
    for path in sorted(folder.glob("*.csv")):
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                if not CELLS.keys() - set(SOMETIMES) <= set(file.readline().strip().split(",")):
                    continue
            filled = read_table(path)
            cells = cells_of(filled, "markdown")
        except (OSError, RunError, KeyError, TypeError, ValueError) as error:
            warn(f"{path} is left out of the page: {error}")
            continue
        best = [bool(line["best"]) for line in records(filled)]
        cells["result"] += [" *" if mark else "" for mark in best]
        cells = cells.loc[:, (cells != "").any()]
        star = ["* the best of its column, and those that a paired test does not separate from it"] if any(best) else []
        yield Table(path.stem, list(cells), RIGHT, cells.to_numpy().tolist(), notes=star + notes_of(filled, "cell"))


def _charts(groups: Sequence[SeedGroup], folder: Path) -> tuple[dict[str, list[Picture]], int]:
    """Return the charts of each kind that there are numbers for, and how many experiments are in none.

    A chart has `LINES` experiments; those of one name stay together, so that their labels tell them apart.
    """
    names: dict[str, list[str]] = {}  # of the experiments, by metric
    for row in (group.runs[0].row for group in groups):
        if row.experiment not in sum(names.values(), []):
            names.setdefault(row.metric, []).append(row.experiment)
    parts = [each[first : first + LINES] for each in names.values() for first in range(0, len(each), LINES)]
    drawn: dict[str, list[Picture]] = {}
    for part in parts[:CHARTS]:
        runs = [run for group in groups for run in group.runs if run.row.experiment in part]
        caption = _named(runs, part)
        for kind, draw in FROM_FILES.items():
            try:
                figure = draw(runs)
            except KnownError as error:
                warn(f"the page lacks a figure: {error}")
                drawn.setdefault(kind, []).append(Picture(caption, problem=_without(folder, str(error))))
                continue
            if figure is not None:
                drawn.setdefault(kind, []).append(_picture(figure, caption))
    return {kind: drawn[kind] for kind in FROM_FILES if kind in drawn}, len(sum(parts[CHARTS:], []))


def _named(runs: Sequence[FinishedRun], experiments: Sequence[str]) -> str:
    """Return which experiments are meant where the labels of a chart are names of algorithms, see `seed_groups`."""
    names = {run.row.algorithm: run.row.experiment for run in runs}
    return ", ".join(f"{name}: {each}" for name, each in names.items()) if len(names) == len(experiments) else ""


def _picture(figure: Any, caption: str, alt: str = "") -> Picture:
    """Return a figure as SVG or PNG, whichever is smaller."""
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    uris = []
    for form, kind, options in (("svg", "svg+xml", {"metadata": {"Date": None}}), ("png", "png", {"dpi": DPI})):
        file = io.BytesIO()
        figure.savefig(file, format=form, **options)
        uris.append(f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}")
    return Picture(caption, min(uris, key=len), alt or _in_words(figure), width, height)


def _in_words(figure: Any) -> str:
    """Return a text that stands for a chart: what its axes are, and where each line begins and ends."""
    told = []
    for axes in figure.axes:
        ends = [words for line in axes.get_lines() if (words := _ends(line))]
        if ends:
            told.append(f"{axes.get_ylabel()} by {figure.axes[-1].get_xlabel()}. {'; '.join(ends)}.")
    return " ".join(told)


def _ends(line: Any) -> str:
    """Return the label of a line with its first and last value; "" for one without a label or a value."""
    label, points = str(line.get_label()), [(x, y) for x, y in line.get_xydata() if x == x and y == y]
    if label.startswith("_") or not points:
        return ""
    (x, y), (end, last) = points[0], points[-1]
    values = f"{y:.4g}" if (x, y) == (end, last) else f"{y:.4g} at {x:.4g}, {last:.4g} at {end:.4g}"
    return f"{label.replace(chr(92) + '$', '$').strip()}: {values}"


def _sections(groups: Sequence[SeedGroup], sheets: int, episode: int) -> Iterator[Section]:
    for place, group in enumerate(groups):
        first, row = group.runs[0], group.runs[0].row
        spec = readable_spec(first.directory)
        shape = row.trial or f"{row.way}-way {row.shot}-shot" * (row.metric == "accuracy") or f"{row.shot}-shot"
        steps = steps_text(run.row.train_steps for run in group.runs)
        steps += " step" + "s" * (steps != "1") if steps else ""
        about = [f"{row.algorithm} on {row.dataset}", shape, row.protocol or "", steps]
        yield Section(
            anchor=f"experiment-{place + 1}",
            name=row.experiment,
            about=", ".join(filter(None, about)),
            description=spec.description if spec else "",
            published=_published(row),
            seeds=_seeds(group),
            sheet=_sheet(first, episode) if place < sheets else None,
            spec=_text(first.directory.spec),
            environments=_environments(group.runs),
        )


def _published(row: Row) -> str:
    """Return the number of the paper that the spec names, and where it is; "" without one."""
    digits = digits_of(row.metric)
    value = interval(number(row.published, digits), number(row.published_ci95, digits))
    return f"{value} ({row.published_source})" if value and row.published_source else value


def _seeds(group: SeedGroup) -> Table:
    """Return the table of the seeds of an experiment, each with its own test."""
    lines = []
    for run in group.runs:
        row, digits, scale = run.row, digits_of(run.row.metric), scale_of(run.row.metric)
        value, step = validation(run.directory, row)
        ci95 = row.ci95 if row.ci95 or row.episodes >= FEW else None  # old rows of few equal episodes have 0
        mean, ci95, value = (number(each if each is None else scale * each, digits) for each in (row.mean, ci95, value))
        at = f" at step {step}" if value else ""
        result, minutes = interval(mean or "not finite", ci95), f"{row.seconds / 60:.1f}"
        lines.append([str(row.seed), result, value + at, minutes, row.device, _folder(run.directory.path)])
    headings = ["seed", "result", "validation", "minutes", "device", "folder"]
    kept = [place for place in range(len(headings)) if any(line[place] for line in lines)]
    cells = [[line[place] for place in kept] for line in lines]
    return Table("Seeds", [headings[place] for place in kept], RIGHT, cells)


def _folder(path: Path) -> str:
    return "/".join(path.parts[-2:])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").rstrip()
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"


def _environments(runs: Sequence[FinishedRun]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return which seeds were made in which environment; those with equal facts are together."""
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run in runs:
        for each in environments.read(run.directory.environment):
            since = f" from step {each['step']}" if each["step"] else ""
            facts = tuple((name, words) for key, name in FACTS.items() if (words := _words(each.get(key))))
            found.setdefault(facts, []).append(f"{run.row.seed}{since}")
    return [(f"Seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}", list(facts)) for facts, seeds in found.items()]


def _words(value: Any) -> str:
    """Return a value of environment.json in words, "" for none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _sheet(run: FinishedRun, episode: int) -> Picture | None:
    """Return a test task as the trained model sees it, or why it cannot be shown; None if there is no such figure."""
    from ..system.startup import import_tensorflow

    if run.row.trial:
        return None
    caption = f"Test task {episode}, seed {run.row.seed}"
    import_tensorflow(needs_gpu=None)
    from ..figures.single_tasks import figures

    try:
        for _, figure in figures(run, ["episode", "fits"], episode):
            alt = [axes.get_title() or axes.texts[-1].get_text() for axes in figure.axes]
            return _picture(figure, caption, f"{run.row.experiment}: {'; '.join(alt)}")
    except Interrupted:
        raise
    except Exception as error:  # data that are missing, a damaged checkpoint, code of another package
        problem = in_one_line(error)
        warn(f"the page lacks the test task of {run.directory.path}: {problem}")
        return Picture(caption, problem=problem)
    return None
