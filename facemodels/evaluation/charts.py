"""Charts of the report as SVG text, drawn by matplotlib: points, matrices, lines."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure as Canvas

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "facemodels",
    "svg.fonttype": "path",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
}
_COLOURS = ("#3b6fb6", "#d1603d", "#4c9a5b", "#8a5fb0", "#c9a227", "#3fa7b5", "#b5446e", "#7a7a7a")
_DPI = 110


def scatters(
    panels: Mapping[str, Float[np.ndarray, "n 2"]], labels: Sequence[str], *, columns: int = 3, size: float = 3.2
) -> str:
    """Points in the plane, one panel each for several maps of the same faces, coloured by label.

    Args:
        panels: Points by the panel's title.
        labels: Of the points.
        columns: Panels in a row.
        size: Side of a panel in inches.
    """
    names = sorted(dict.fromkeys(labels), key=_natural)
    which = np.array([names.index(label) for label in labels])
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(figsize=(size * columns, size * rows + 0.5), layout="constrained")
        axes = list(canvas.subplots(rows, columns, squeeze=False).flat)
        for axis in axes:
            axis.axis("off")
        for axis, (title, points) in zip(axes, panels.items(), strict=False):
            axis.set_title(title)
            for number, name in enumerate(names):
                chosen = which == number
                axis.scatter(
                    *points[chosen].T, s=7, color=_colour(number, len(names)), label=name, linewidths=0, rasterized=True
                )
        handles, texts = canvas.axes[0].get_legend_handles_labels()
        canvas.legend(handles, texts, loc="outside lower center", ncols=min(len(names), 8), markerscale=2.5)
        return _svg(canvas)


def matrix(
    values: Float[np.ndarray, "rows columns"],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    across: str = "",
    down: str = "",
    most: float = 1.0,
) -> str:
    """A matrix of numbers as shades, each number written into its field; NaN is left empty.

    Args:
        values: The numbers, 0 white and `most` dark.
        rows: Names of the rows.
        columns: Names of the columns.
        across: What the columns are.
        down: What the rows are.
        most: Number of the darkest shade.
    """
    with matplotlib.rc_context({**_STYLE, "axes.spines.left": False, "axes.spines.bottom": False}):
        canvas = Canvas(figsize=(1.6 + 1.0 * len(columns), 0.9 + 0.42 * len(rows)), layout="constrained")
        axis = canvas.subplots()
        axis.imshow(values, cmap="Blues", vmin=0, vmax=most, aspect="auto")
        axis.set_xticks(range(len(columns)), columns)
        axis.set_yticks(range(len(rows)), rows)
        axis.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        axis.xaxis.set_label_position("top")
        axis.set_xlabel(across)
        axis.set_ylabel(down)
        for place, value in np.ndenumerate(values):
            if np.isfinite(value):
                axis.text(
                    place[1],
                    place[0],
                    f"{value:.2f}",
                    ha="center",
                    va="center",
                    color="white" if value > 0.6 * most else "#222",
                )
        return _svg(canvas)


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    across: str,
    up: str,
    width: float = 5.5,
    height: float = 3.2,
) -> str:
    """Lines through points.

    Args:
        series: For each line its name, and the points' positions across and up.
        across: What the horizontal axis is.
        up: What the vertical axis is.
        width: In inches.
        height: In inches.
    """
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(figsize=(width, height), layout="constrained")
        axis = canvas.subplots()
        for number, (name, (x, y)) in enumerate(series.items()):
            axis.plot(x, y, color=_COLOURS[number % len(_COLOURS)], marker="o", markersize=3, label=name)
        axis.set_xlabel(across)
        axis.set_ylabel(up)
        axis.grid(color="#e8e8ec", linewidth=0.7)
        if len(series) > 1:
            axis.legend()
        return _svg(canvas)


def _colour(number: int, count: int) -> Any:
    return _COLOURS[number] if count <= len(_COLOURS) else matplotlib.colormaps["turbo"](number / max(count - 1, 1))


def _natural(label: str) -> tuple[float, str]:
    """Numbers in their order, other labels by the alphabet."""
    try:
        return float(label.rstrip("°")), label
    except ValueError:
        return 0.0, label


def _svg(canvas: Canvas) -> str:
    file = io.StringIO()
    canvas.savefig(file, format="svg", dpi=_DPI, metadata={"Date": None, "Creator": None})
    return file.getvalue()
