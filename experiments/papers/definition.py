"""A paper's table as data: the model of each cell, its test, and the number in the paper. No TensorFlow.

One model fills several cells: cells that name the same spec, with the same `overrides` if any, share its training, and
`test` has the test of each of them, in the options of `metarun evaluate`. Cells of one `column` are compared with each
other. A table with each method in each column may list methods and columns instead of cells, see `CrossTable`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from ...datasets.errors import counted
from ...datasets.options import Options
from ..config.document import Document, read
from ..config.experiment import Protocol, Published
from ..config.messages import EXPECTED, show
from ..errors import SpecError, suggest


class Changes(Options):
    """Options of a cell's test that differ from its spec."""

    way: int | None = Field(default=None, ge=1, le=1000)
    shot: int | None = Field(default=None, ge=1, le=1000)
    query: int | None = Field(default=None, ge=1, le=1000)
    episodes: int | None = Field(default=None, ge=2)
    episode_seed: int | None = Field(default=None, ge=0, lt=2**31)
    inner_steps: int | None = Field(default=None, ge=0, le=1000)
    protocol: Protocol | None = None
    checkpoint: Literal["best", "last"] | None = None


def _named(overrides: tuple[str, ...]) -> tuple[str, ...]:
    if overrides and not any(one.startswith("name=") for one in overrides):
        raise PydanticCustomError("unnamed", "name=... is missing: such a run needs a name of its own")
    return overrides


Overrides = Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_named)]  # as `metarun train -s` takes them


class Cell(Options):
    """A cell of the table: one number."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    column: str = Field(min_length=1)
    method: str = Field(min_length=1)
    spec: str = Field(min_length=1)
    variant: Overrides = ()  # overrides that make the cell's own recipe of the spec
    overrides: Overrides = ()  # of that recipe: budgets are shares of its training
    test: Changes = Changes()
    published: Published | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """Return the options of `evaluate` for this cell; none if the run's own test fills it."""
        return self.test.model_dump(exclude_none=True)


class PaperTable(Options):
    """A table: its title, and its cells in the paper's order."""

    title: str = Field(min_length=3)
    cells: tuple[Cell, ...] = Field(strict=False, min_length=1)


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
Strings = Annotated[tuple[str, ...], Field(strict=False)]
Numbers = Annotated[tuple[float | None, ...], Field(strict=False)]


class CrossTable(Options):
    """A table with a cell, COLUMN-METHOD, of each method in each column."""

    title: str = Field(min_length=3)
    source: str = Field(min_length=3)  # of the published numbers
    specs: str  # with {method}
    runs: str  # names of the experiments, with {cell}
    columns: dict[Name, str] = Field(min_length=1, max_length=100)  # name -> heading
    methods: dict[Name, str] = Field(min_length=1, max_length=100)  # name -> heading
    overrides: dict[str, Strings] = {}  # pattern of cells' names -> of their specs
    published: dict[str, Numbers] = {}  # method -> one per column

    @property
    def cells(self) -> list[Cell]:
        """Return the cells, column after column."""
        return [
            self._cell(number, column, method) for number, column in enumerate(self.columns) for method in self.methods
        ]

    def _cell(self, number: int, column: str, method: str) -> Cell:
        name = f"{column}-{method}"
        variant = [f"name={self.runs.replace('{cell}', name)}"]
        for pattern, overrides in self.overrides.items():
            variant += overrides if fnmatch.fnmatchcase(name, pattern) else ()
        value = next(iter(self.published.get(method, ())[number : number + 1]), None)
        published = None if value is None else Published(value=value, source=self.source)
        if published:
            variant.append(f"published={published.model_dump_json()}")
        return Cell(
            name=name,
            column=self.columns[column],
            method=self.methods[method],
            spec=self.specs.replace("{method}", method),
            variant=tuple(variant),
            published=published,
        )

    def mistakes(self) -> Iterator[tuple[tuple[str, str], str]]:
        """Yield (key, message) for patterns without a cell, and numbers without a method or a column."""
        names = [cell.name for cell in self.cells]
        for pattern in self.overrides:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
                yield ("overrides", pattern), f"no cell has such a name; the first is {names[0]}"
        for method, numbers in self.published.items():
            if method not in self.methods:
                yield ("published", method), f"is no method of this table: {', '.join(self.methods)}"
            elif len(numbers) != len(self.columns):
                yield (
                    ("published", method),
                    f"has {counted(len(numbers), 'number')} for {counted(len(self.columns), 'column')}",
                )


class PartOfTable(Options):
    """Some columns of another table, with overrides of the specs of some of their cells, by name."""

    title: str = Field(min_length=3)
    part_of: str
    columns: tuple[str, ...] = Field(strict=False, min_length=1)
    overrides: dict[str, Overrides] = {}


def shipped_tables() -> dict[str, Path]:
    """Return the files of the tables in the package by their names."""
    root = Path(str(files("metarun.experiments") / "tables"))
    return {path.stem: path for path in sorted(root.glob("*.yaml"))}


def load_table(name: str) -> PaperTable:
    """Load a table, or a part of one: the name of a table that ships, or a file.

    Files that it names are looked for in its folder first.

    Raises:
        SpecError: lists all mistakes.
    """
    path = _find(name)
    document = read(path)
    if "part_of" not in document.values:
        return _whole(document, path.parent)
    part = _validated(document, PartOfTable)
    path = _find(_beside(part.part_of, path.parent))
    other = read(path)
    if "part_of" in other.values:
        document.complain(("part_of",), f"{part.part_of} is itself a part of another table: name that one")
        raise SpecError(document.problems)
    whole = _whole(other, path.parent)
    cells = {cell.name: cell for cell in whole.cells if cell.column in part.columns}
    for number, column in enumerate(part.columns):
        if column not in {cell.column for cell in whole.cells}:
            document.complain(("columns", number), f"{part.part_of} has no such column")
    for cell in part.overrides:
        if cell not in cells:
            document.complain(("overrides", cell), f"these columns of {part.part_of} have no such cell")
    if document.problems:
        raise SpecError(document.problems)
    for name, overrides in part.overrides.items():
        cells[name] = cells[name].model_copy(update={"overrides": overrides})
    return PaperTable(title=part.title, cells=tuple(cells.values()))


def _find(name: str) -> Path:
    shipped = shipped_tables()
    path = shipped.get(name, Path(name))
    if not path.is_file():
        hint = suggest(name, shipped, f"the tables are {', '.join(shipped)}")
        raise SpecError([f"no table {name}; {hint}"])
    return path


def _beside(name: str, folder: Path) -> str:
    """Return the file of this name in the folder; the name itself if there is none."""
    path = folder / name
    return str(path) if path.is_file() else name


def _whole(document: Document, folder: Path) -> PaperTable:
    if "methods" in document.values:
        crossed = _validated(document, CrossTable)
        for key, message in crossed.mistakes():
            document.complain(key, message)
        table = PaperTable(title=crossed.title, cells=tuple(crossed.cells))
    else:
        table = _validated(document, PaperTable)
    _report_duplicates(document, table)
    if document.problems:
        raise SpecError(document.problems)
    cells = (cell.model_copy(update={"spec": _beside(cell.spec, folder)}) for cell in table.cells)
    return table.model_copy(update={"cells": tuple(cells)})


Kind = TypeVar("Kind", bound=Options)


def _validated(document: Document, kind: type[Kind]) -> Kind:
    try:
        return kind.model_validate(document.values)
    except ValidationError as error:
        details = error.errors(include_url=False)
        for detail in details:
            if detail["type"] == "too_short" and any(len(other["loc"]) > len(detail["loc"]) for other in details):
                continue  # its members have mistakes, and do not count
            document.complain(detail["loc"], _message(detail))
        raise SpecError(document.problems) from None


def _report_duplicates(document: Document, table: PaperTable) -> None:
    """Add a mistake for each two cells that share a name, or a test of one model."""
    names: dict[Any, str] = {}
    for number, cell in enumerate(table.cells):
        for key in (cell.name, (cell.spec, cell.variant, cell.overrides, cell.test)):
            if key in names:
                document.complain(("cells", number), f"{cell.name} is the same cell as {names[key]}")
            names.setdefault(key, cell.name)


def _message(detail: Any) -> str:
    if detail["type"] == "extra_forbidden":
        return "unknown key"
    if detail["type"] == "missing":
        return "is missing"
    if detail["type"] in EXPECTED:
        return f"expected {EXPECTED[detail['type']]}, got {show(detail['input'])}"
    return f"{detail['msg'][0].lower()}{detail['msg'][1:]}, got {show(detail['input'])}"
