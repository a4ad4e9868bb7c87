"""Colours, line styles and axes that all figures share."""

from __future__ import annotations

from typing import Any

import numpy as np

# Okabe and Ito 2008; the line styles tell apart what is printed in grey
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)))
MARKERS = "os^Dv<>"  # as many as colours and styles: the eighth curve has the first colour with the second of these
FEW = 40  # points of a curve that are marked, so that one alone is seen
MOST_INSIDE = 10  # lines of a legend inside the axes


def plain(label: str) -> str:
    """A text that matplotlib shows as it is: dollars are no formulas, a first _ does not hide it from the legend."""
    return f"{' ' * label.startswith('_')}{label}".replace("$", r"\$")


def axes_of(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    return figure, axes


def look_of(place: int, label: str) -> dict[str, Any]:
    """No two of the first 49 places have the same."""
    turn = (place + place // len(COLORS)) % len(STYLES)
    return {
        "color": COLORS[place % len(COLORS)],
        "linestyle": STYLES[turn],
        "marker": MARKERS[turn],
        "markersize": 3,
        "label": label,
    }


def band(axes: Any, x: np.ndarray, y: np.ndarray, ci95: np.ndarray, place: int, label: str) -> None:
    look = look_of(place, label)
    axes.plot(x, y, **look | ({} if len(x) <= FEW else {"marker": ""}))
    if len(x) == 1:
        axes.errorbar(x, y, ci95, color=look["color"], capsize=3)
    else:
        axes.fill_between(x, y - ci95, y + ci95, color=look["color"], alpha=0.15, linewidth=0)


def finished(figure: Any, axes: Any) -> Any:
    from matplotlib import pyplot

    handles, labels = axes.get_legend_handles_labels()
    if len(labels) <= MOST_INSIDE:
        axes.legend(fontsize="small")
    else:
        figure.set_figheight(figure.get_figheight() + 0.2 * len(labels))
        figure.legend(handles, labels, fontsize="small", loc="outside lower center")
    pyplot.close(figure)
    return figure
