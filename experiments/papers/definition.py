"""A paper's table as data: the model of each cell, its test, and the number in the paper. No TensorFlow.

One model fills several cells: cells that name the same spec, with the same `overrides` if any, share its training, and
`test` has the test of each of them, in the options of `metarun evaluate`. Cells of one `column` are compared with each
other. A table with each method in each column may list methods and columns instead of cells, see `CrossTable`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, Field, PrivateAttr, ValidationError
from pydantic_core import PydanticCustomError

from ...algorithms.heads import HEADS
from ...algorithms.heads.options import HeadOptions
from ...datasets import DATASETS
from ...datasets.errors import counted
from ...datasets.options import Options
from ..config.document import Document, Key, read
from ..config.experiment import Protocol
from ..config.kinds import USE, refuse_other, shipped_specs, shipped_tables
from ..config.messages import nearest, plain_message, show
from ..config.sections import OtherDataset, Published
from ..errors import SpecError, suggest

CHOSEN = DATASETS | {name: head.options for name, head in HEADS.items()}  # sections that their `name` chooses


class Changes(Options):
    """Hold the options of a cell's test that differ from its spec."""

    split: str | None = Field(default=None, min_length=1)
    way: int | None = Field(default=None, ge=1, le=1000)
    shot: int | None = Field(default=None, ge=1, le=1000)
    query: int | None = Field(default=None, ge=1, le=1000)
    episodes: int | None = Field(default=None, ge=2)
    episode_seed: int | None = Field(default=None, ge=0, lt=2**31)
    inner_steps: int | None = Field(default=None, ge=0, le=1000)
    protocol: Protocol | None = None
    checkpoint: Literal["best", "last"] | None = None
    dataset: OtherDataset = None
    convert: Literal["as-is", "invert"] | None = None
    head: HeadOptions | None = None


def _named(overrides: tuple[str, ...]) -> tuple[str, ...]:
    if overrides and not any(one.startswith("name=") for one in overrides):
        raise PydanticCustomError("unnamed", "name=... is missing: such a run needs a name of its own")
    return overrides


Overrides = Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_named)]  # as `metarun train -s` takes them


class Cell(Options):
    """Define a cell of the table: one number."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    column: str = Field(min_length=1)
    method: str = Field(min_length=1)
    spec: str = Field(min_length=1)
    variant: Overrides = ()  # overrides that make the cell's own recipe of the spec
    overrides: Overrides = ()  # of that recipe: budgets are shares of its training
    test: Changes = Changes()
    published: Published | None = None

    @property
    def split(self) -> Any:
        """Return the split that is tested."""
        return self.test.split or "test"

    @property
    def changes(self) -> dict[str, Any]:
        """Return the options of `evaluate` for this cell; none if the run's own test fills it."""
        return self.test.model_dump(mode="json", exclude_none=True)


class Other(Options):
    """Hold a number that stands beside a column, of a method that no spec trains, such as people."""

    column: str = Field(min_length=1)
    method: str = Field(min_length=1)
    value: float
    source: str = Field(min_length=3)


class PaperTable(Options):
    """Define a table: its title, its cells in the paper's order, and what is told below it."""

    title: str = Field(min_length=3)
    text: str = ""
    cells: tuple[Cell, ...] = Field(strict=False, min_length=1)
    others: tuple[Other, ...] = Field(default=(), strict=False)
    _places: dict[str, str] = PrivateAttr(default={})

    @property
    def places(self) -> Mapping[str, str]:
        """Return the place, FILE:LINE, of each cell by its name, for messages."""
        return self._places

    @property
    def notes(self) -> list[str]:
        """Return the lines below the table: its text, and the numbers of others by column and source."""
        told: dict[tuple[str, str], list[str]] = {}
        for other in self.others:
            told.setdefault((other.column, other.source), []).append(f"{other.method} {other.value:g}")
        beside = [f"{column}: {', '.join(numbers)} ({source})" for (column, source), numbers in told.items()]
        return [*([self.text] if self.text else []), *beside]


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
Strings = Annotated[tuple[str, ...], Field(strict=False)]
Numbers = Annotated[tuple[float | None, ...], Field(strict=False)]


class CrossTable(Options):
    """Define a table with a cell, COLUMN-METHOD, of each method in each column."""

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
                hint = suggest(pattern, names, f"the first is {names[0]}")
                yield ("overrides", pattern), f"no cell has such a name; {hint}"
        for method, numbers in self.published.items():
            if method not in self.methods:
                yield ("published", method), f"is no method of this table; {nearest(method, self.methods)}"
            elif len(numbers) != len(self.columns):
                yield (
                    ("published", method),
                    f"has {counted(len(numbers), 'number')} for {counted(len(self.columns), 'column')}",
                )


class PartOfTable(Options):
    """Define some columns of another table, with overrides of the specs of some of their cells, by name."""

    title: str = Field(min_length=3)
    part_of: str
    columns: tuple[str, ...] = Field(strict=False, min_length=1)
    overrides: dict[str, Overrides] = {}


class TableError(SpecError):
    """Report a table with mistakes, and the part of it that has none."""

    def __init__(self, problems: Sequence[str], part: PaperTable | None = None):
        super().__init__(problems)
        self.part = part


def load_table(name: str) -> PaperTable:
    """Load a table, or a part of one: the name of a table that ships, or a file.

    Files that it names are looked for in its folder first.

    Raises:
        SpecError: lists all mistakes. It is a TableError if some cells have none.
    """
    path = _find(name)
    document = read(path)
    refuse_other(document.values, "table", name)
    if "part_of" not in document.values:
        return _whole(document, path.parent)
    part = _validated(document, PartOfTable)
    try:
        path = _find(_beside(part.part_of, path.parent))
        other = read(path)
        refuse_other(other.values, "table", part.part_of)
    except SpecError as error:
        for problem in error.problems:
            document.complain(("part_of",), problem)
        raise SpecError(document.in_order) from None
    if "part_of" in other.values:
        document.complain(("part_of",), f"{part.part_of} is itself a part of another table: name that one")
        raise SpecError(document.in_order)
    whole = _whole(other, path.parent)
    cells = {cell.name: cell for cell in whole.cells if cell.column in part.columns}
    columns = dict.fromkeys(cell.column for cell in whole.cells)
    for number, column in enumerate(part.columns):
        if column not in columns:
            hint = suggest(column, columns, f"its columns are {', '.join(columns)}")
            place = document.place(("columns", number))
            document.complain(("columns",), f"{part.part_of} has no column {show(column)}; {hint}", place)
    for cell in part.overrides:
        if cell not in cells:
            hint = suggest(cell, cells, f"they have {', '.join(cells)}")
            document.complain(("overrides", cell), f"these columns of {part.part_of} have no such cell; {hint}")
    if document.problems:
        raise SpecError(document.in_order)
    for name, overrides in part.overrides.items():
        cells[name] = cells[name].model_copy(update={"overrides": overrides})
    places = {name: document.place(("overrides", name)) for name in part.overrides}
    others = tuple(other for other in whole.others if other.column in part.columns)
    table = whole.model_copy(update={"title": part.title, "cells": tuple(cells.values()), "others": others})
    return _placed(table, {**whole.places, **places})


def _find(name: str) -> Path:
    shipped = shipped_tables()
    path = shipped.get(name, Path(name))
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise SpecError([f"{name}: {error.strerror}"]) from None
    if name in shipped_specs():
        raise SpecError([f"{name} is {USE['spec'].format(name)}"])
    hint = suggest(name, shipped, f"the tables are {', '.join(shipped)}")
    raise SpecError([f"no table {name}; {hint}"])


def _beside(name: str, folder: Path) -> str:
    """Return the file of this name in the folder; the name itself if there is none."""
    path = folder / name
    try:
        return str(path) if path.is_file() else name
    except OSError:  # a name that is too long for a file
        return name


def _whole(document: Document, folder: Path) -> PaperTable:
    if "methods" in document.values:
        crossed = _validated(document, CrossTable)
        for key, message in crossed.mistakes():
            document.complain(key, message)
        table = PaperTable(title=crossed.title, cells=tuple(crossed.cells))
        places = {cell.name: document.place(("specs",)) for cell in table.cells}
    else:
        table = _validated(document, PaperTable)
        places = {cell.name: document.place(("cells", number)) for number, cell in enumerate(table.cells)}
        columns = dict.fromkeys(cell.column for cell in table.cells)
        for number, other in enumerate(table.others):
            if other.column not in columns:
                hint = nearest(other.column, columns)
                document.complain(("others", number, "column"), f"no cell has the column {show(other.column)}; {hint}")
    _report_duplicates(document, table, places)
    if document.problems:
        raise SpecError(document.in_order)
    return _beside_the_file(_placed(table, places), folder)


def _beside_the_file(table: PaperTable, folder: Path) -> PaperTable:
    """Return the table with the paths of the specs, and of the datasets of tests, in its folder."""
    cells = []
    for cell in table.cells:
        test = cell.test
        if test.dataset is not None:
            test = test.model_copy(update={"dataset": test.dataset.resolved(folder)})
        cells.append(cell.model_copy(update={"spec": _beside(cell.spec, folder), "test": test}))
    return table.model_copy(update={"cells": tuple(cells)})


def _placed(table: PaperTable, places: Mapping[str, str]) -> PaperTable:
    """Return the table, which now knows the place of each cell."""
    table._places = dict(places)
    return table


Kind = TypeVar("Kind", bound=Options)


def _validated(document: Document, kind: type[Kind]) -> Kind:
    values = document.values
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False)
    for detail in details:
        key = tuple(part for part in detail["loc"] if part != "[key]")
        if detail["type"] == "too_short" and any(len(other["loc"]) > len(key) for other in details):
            continue  # its members have mistakes, and do not count
        if key not in document.unreadable:
            document.complain(_with_names(key, values), _message(detail, kind), document.place(key))
    raise TableError(document.in_order, _good_cells(document) if kind is PaperTable else None)


def _good_cells(document: Document) -> PaperTable | None:
    """Return a table of the cells without mistakes; None if there is none."""
    good, places = [], {}
    listed = document.values.get("cells")
    for number, cell in enumerate(listed if isinstance(listed, list) else ()):
        with suppress(ValidationError):
            good.append(Cell.model_validate(cell))
            places[good[-1].name] = document.place(("cells", number))
    if not good:
        return None
    return _beside_the_file(_placed(PaperTable(title="its good part", cells=tuple(good)), places), document.folder)


def _with_names(key: Key, values: Mapping[str, Any]) -> Key:
    """Return a key with a cell's name in place of its number; `#3` for the third cell if it has no name."""
    if key[:1] != ("cells",) or len(key) < 2 or not isinstance(values["cells"], list):
        return key
    cell, number = values["cells"][int(key[1])], int(key[1])
    name = cell.get("name") if isinstance(cell, dict) else None
    return ("cells", name if isinstance(name, str) and name else f"#{number + 1}", *key[2:])


def _report_duplicates(document: Document, table: PaperTable, places: Mapping[str, str]) -> None:
    """Add a mistake for each two cells that share a name, or a test of one model."""
    names: dict[Any, str] = {}
    for number, cell in enumerate(table.cells):
        for key in (cell.name, (cell.spec, cell.variant, cell.overrides, cell.test)):
            if key in names:
                place = document.place(("cells", number)) if "cells" in document.values else places[cell.name]
                document.complain(("cells", cell.name), f"is the same cell as {names[key]}", place)
            names.setdefault(key, cell.name)


def _message(detail: Any, kind: type[Options]) -> str:
    if detail["type"] == "extra_forbidden":
        *parents, name = detail["loc"]
        return f"unknown key; {nearest(name, _model_at(kind, parents).model_fields)}"
    if detail["type"] == "missing":
        return "is missing"
    return plain_message(detail)


def _model_at(model: type[BaseModel], key: Sequence[str | int]) -> type[BaseModel]:
    """Return the model of the section at `key`, which may lead through lists."""
    for part in key:
        if part in CHOSEN and part not in model.model_fields:  # the one of `dataset` or `head` that was chosen
            model = CHOSEN[str(part)]
        elif isinstance(part, str):
            model = next(_models_in(model.model_fields[part].annotation))
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models_in(each)
