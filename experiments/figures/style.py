"""Colours, line styles, axes and legends that all figures share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

# Okabe and Ito 2008; the line styles tell apart what is printed in grey
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)))
MARKERS = "os^Dv<>"  # as many as colours and styles: the eighth curve has the first colour with the second of these
FEW = 40  # points of a curve that are marked, so that one alone is seen
ROUND = (1, 2, 5, 10)  # ticks are these times a power of ten apart
ROW = 0.22  # inches that a row of the legend needs


class Curve(NamedTuple):
    """Hold a line with a band: `[N]` each."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray


@contextmanager
def own_style() -> Iterator[None]:
    """Draw with matplotlib's defaults inside the block, whatever the user has set, and without a screen."""
    import matplotlib
    from matplotlib import style

    matplotlib.use("Agg")
    # NumPy's print options decide names inside an SVG
    with style.context(["default", {"svg.hashsalt": "metarun"}]), np.printoptions(legacy=False):
        yield


def plain(label: str) -> str:
    """Return a text that matplotlib shows as it is: dollars are no formulas, a first _ does not hide a line."""
    return f"{' ' * label.startswith('_')}{label}".replace("$", r"\$")


def new_axes(x: str, ys: Sequence[str]) -> tuple[Any, list[Any]]:
    """Return a figure and its axes side by side, one for each label of `ys`; x counts steps."""
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(ys), figsize=(6 * len(ys), 4), squeeze=False, layout="constrained")
    for axes, y in zip(panels[0], ys, strict=True):
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        round_ticks(axes.xaxis, integer=True)
        round_ticks(axes.yaxis)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(alpha=0.3)
    return figure, list(panels[0])


def round_ticks(axis: Any, integer: bool = False) -> None:
    """Set ticks at multiples of 1, 2 or 5 times a power of ten."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=8, steps=ROUND, integer=integer))


def look(place: int, label: str = "") -> dict[str, Any]:
    """Return the look of line number `place`; no two of the first 49 have the same."""
    turn = (place + place // len(COLORS)) % len(STYLES)
    return {
        "color": COLORS[place % len(COLORS)],
        "linestyle": STYLES[turn],
        "marker": MARKERS[turn],
        "markersize": 3,
        "label": label,
    }


def draw(axes: Any, curve: Curve, place: int, label: str) -> None:
    """Draw a line with its band; of a single point, the band is a bar."""
    shown = look(place, label)
    axes.plot(curve.x, curve.y, **shown | ({} if len(curve.x) <= FEW else {"marker": ""}))
    if len(curve.x) == 1:
        axes.errorbar(curve.x, curve.y, [curve.y - curve.low, curve.high - curve.y], color=shown["color"], capsize=3)
    else:
        axes.fill_between(curve.x, curve.low, curve.high, color=shown["color"], alpha=0.15, linewidth=0)


def with_legend(figure: Any, title: str) -> Any:
    """Return the figure, finished: with the lines' labels below the axes, under a title that says what a band shows."""
    from matplotlib import pyplot

    each = [axes.get_legend_handles_labels() for axes in figure.axes]
    handles, labels = ([part for both in each for part in both[place]] for place in (0, 1))
    longest = max(map(len, labels), default=0)
    columns = max(1, min(len(labels), int(figure.get_figwidth() / (0.6 + 0.075 * longest))))
    rows = -(-len(labels) // columns) + bool(title)
    figure.set_figheight(figure.get_figheight() + ROW * rows)
    look_of_text = {"fontsize": "small", "title_fontsize": "small"}
    figure.legend(
        handles, labels, title=title, loc="outside lower center", ncols=columns, frameon=False, **look_of_text
    )
    pyplot.close(figure)
    return figure
