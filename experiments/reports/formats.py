"""Write cells under their names as text, Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

NUMERIC = frozenset(
    {
        "result",
        "ci95",
        "seed std",
        "published",
        "difference",
        "ece",
        "nll",
        "episodes",
        "seeds",
        "minutes",
        "budget",
        "p",
    }
)


class Bold(str):
    """A cell to stand out: `x*` in text, `**x**` in markdown, `\\textbf{x}` in latex."""


def render_cells(names: Sequence[str], table: Sequence[Sequence[str]], form: str) -> str:
    """Cells under their names as text, markdown or latex (booktabs); columns in NUMERIC stand right."""
    return {"text": _text, "markdown": _markdown, "latex": _latex}[form](names, table)


def number(value: float | None, digits: int) -> str:
    """With so many decimals; nothing for None."""
    return "" if value is None else f"{value:.{digits}f}"


def _text(names: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    starred = [any(isinstance(cell, Bold) for cell in column) for column in zip(*table, strict=True)]

    def marked(cells: Sequence[str]) -> list[str]:
        marks = [
            "*" if isinstance(cell, Bold) else " " if star else "" for cell, star in zip(cells, starred, strict=True)
        ]
        return [cell + mark for cell, mark in zip(cells, marks, strict=True)]

    table = [marked(row) for row in table]
    widths = [max(len(cell) for cell in column) for column in zip(names, *table, strict=True)]

    def aligned(cells: Sequence[str]) -> str:
        both = zip(names, cells, widths, strict=True)
        return "  ".join(
            cell.rjust(width) if name in NUMERIC else cell.ljust(width) for name, cell, width in both
        ).rstrip()

    return "\n".join([aligned(names), "  ".join("-" * width for width in widths), *map(aligned, table)])


def _markdown(names: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        escaped = [cell.replace("|", "\\|") for cell in cells]
        marked = [f"**{text}**" if isinstance(cell, Bold) else text for cell, text in zip(cells, escaped, strict=True)]
        return "| " + " | ".join(marked) + " |"

    rule = ["---:" if name in NUMERIC else "---" for name in names]
    return "\n".join([line(names), line(rule), *map(line, table)])


def _latex(names: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
    }
    special |= {mark: f"\\{mark}" for mark in "&%$#_{}"}

    def escaped(cell: str) -> str:
        text = "".join(special.get(letter, letter) for letter in cell)
        return rf"\textbf{{{text}}}" if isinstance(cell, Bold) else text

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(escaped, cells)) + r" \\"

    columns = "".join("r" if name in NUMERIC else "l" for name in names)
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(names), r"\midrule", *map(line, table), r"\bottomrule",
         r"\end{tabular}"]
    )  # fmt: skip
