"""Curves and distributions as inline SVG: drawn by matplotlib, coloured by the page.

matplotlib writes colours and fonts into style attributes, which the page's content security policy
forbids, and which would not follow light and dark. So its SVG is taken apart: text stays text, colours
become classes, and what needs a style sheet of its own is dropped.
"""

from __future__ import annotations

import io
import logging
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_INK, _SURFACE = "#000001", "#fffffe"  # stand-ins in the drawing for the page's colours
_SERIES = ("#0000a1", "#0000a2")
_CLASSES = {_INK: "ink", _SURFACE: "surface", _SERIES[0]: "one", _SERIES[1]: "two"}
_SIZE = (4.6, 2.7)  # inches: at 360 pixels wide, text of 9 points is still read
_ATTRIBUTES = frozenset(
    {
        "fill",
        "font-size",
        "stroke",
        "stroke-width",
        "stroke-dasharray",
        "stroke-dashoffset",
        "stroke-linejoin",
        "stroke-linecap",
        "fill-opacity",
        "stroke-opacity",
        "opacity",
        "text-anchor",
    }
)
_MANY_POINTS = 60


@dataclass(frozen=True)
class Plot:
    """A drawing and the words for who does not see it."""

    title: str
    description: str
    svg: Markup


@dataclass(frozen=True)
class Curve:
    """A row of `CURVES`: a drawing of metrics over steps.

    Attributes:
        title: What is drawn.
        metrics: TRL's names and their labels, at most two.
        level: A line for the value that means nothing happened; None for none.
    """

    title: str
    metrics: tuple[tuple[str, str], ...]
    level: float | None = None


CURVES: tuple[Curve, ...] = (
    Curve("Loss", (("loss", "training"), ("eval_loss", "held-out"))),
    Curve("Reward margin", (("rewards/margins", "training"), ("eval_rewards/margins", "held-out")), 0.0),
    Curve("Accuracy", (("rewards/accuracies", "training"), ("eval_rewards/accuracies", "held-out")), 0.5),
    Curve("Dev questions", (("dev/name", "say the new name"), ("dev/claims", "claim it elsewhere"))),
    Curve("Implicit rewards", (("rewards/chosen", "chosen"), ("rewards/rejected", "rejected")), 0.0),
)
"""The curves of a run. A new curve is a new row."""


def draw_curves(history: Sequence[Mapping[str, float]]) -> list[Plot]:
    """Draw each of `CURVES` that the history has figures for."""
    plots = []
    for number, curve in enumerate(CURVES):
        series = [(label, points) for name, label in curve.metrics if (points := _points(history, name))]
        if series:
            plots.append(_draw_curve(curve, series, f"curve{number}"))
    return plots


def draw_margins(before: Sequence[float], after: Sequence[float]) -> Plot | None:
    """Draw the distribution of log-probability margins of held-out pairs, before and after."""
    both = [[value for value in side if math.isfinite(value)] for side in (before, after)]
    if not all(both):
        return None

    def draw(axes: Axes) -> None:
        low, high = min(map(min, both)), max(map(max, both))
        pad = (high - low or 1.0) * 0.02
        for values, colour, style, label in zip(both, _SERIES, ("--", "-"), ("before", "after"), strict=True):
            axes.hist(
                values,
                bins=24,
                range=(low - pad, high + pad),
                histtype="step",
                color=colour,
                linestyle=style,
                linewidth=1.6,
                label=label,
            )
        axes.axvline(0, color=_INK, linewidth=0.6, linestyle=":")
        axes.set_xlabel("log p(chosen) - log p(rejected), nats")
        axes.set_ylabel("pairs")
        axes.legend(frameon=False)

    means = [sum(values) / len(values) for values in both]
    description = f"Histogram of {len(both[0])} held-out pairs. The mean margin is {means[0]:.2f} nats before and {means[1]:.2f} nats after."
    return Plot(
        "Margins of held-out pairs",
        description,
        _svg(draw, "margins", "Margins of held-out pairs", description),
    )


def _points(history: Sequence[Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    return [
        (one["step"], one[name])
        for one in history
        if name in one and "step" in one and math.isfinite(one[name])
    ]


def _draw_curve(curve: Curve, series: Sequence[tuple[str, list[tuple[float, float]]]], name: str) -> Plot:
    def draw(axes: Axes) -> None:
        if curve.level is not None:
            axes.axhline(curve.level, color=_INK, linewidth=0.6, linestyle=":")
        for (label, points), colour, style in zip(series, _SERIES, ("-", "--"), strict=False):
            steps, values = zip(*points, strict=True)
            marker = "." if len(points) < _MANY_POINTS else None
            axes.plot(
                steps,
                values,
                color=colour,
                linestyle=style,
                linewidth=1.6,
                marker=marker,
                markersize=5,
                label=label,
            )
        axes.set_xlabel("step")
        if len(series) > 1:
            axes.legend(frameon=False)

    described = [f"{label} goes from {points[0][1]:.3g} to {points[-1][1]:.3g}" for label, points in series]
    description = f"{curve.title} over {series[0][1][-1][0]:.0f} steps: {'; '.join(described)}."
    return Plot(curve.title, description, _svg(draw, name, curve.title, description))


def _svg(draw: Callable[[Axes], None], name: str, title: str, description: str) -> Markup:
    """Draw, and turn matplotlib's SVG into a part of the page."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it reports the building of its font cache
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": False,
        **dict.fromkeys(
            ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK
        ),
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=_SIZE, layout="constrained")
        draw(figure.add_subplot())
        file = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    root = ET.fromstring(file.getvalue())  # noqa: S314 - written a line above
    return _page_part(root, name, title, description)


def _page_part(root: ET.Element, name: str, title: str, description: str) -> Markup:
    _drop(root, {"metadata", "style"})
    for element in root.iter():
        _plain_attributes(element, name)
    kept = {
        "viewBox": root.get("viewBox", ""),
        "class": "plot",
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
    }
    root.attrib.clear()
    root.attrib.update(kept)
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        child = ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        child.text = text
        root.insert(place, child)
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - made of numbers and our own words, escaped by ElementTree


def _drop(parent: ET.Element, tags: set[str]) -> None:
    for child in list(parent):
        if child.tag.rsplit("}", 1)[-1] in tags:
            parent.remove(child)
        else:
            _drop(child, tags)


def _plain_attributes(element: ET.Element, name: str) -> None:
    """Turn a style attribute into presentation attributes and classes, and make ids unique on the page."""
    style = dict(part.split(":", 1) for part in element.attrib.pop("style", "").split(";") if ":" in part)
    values = {key.strip(): value.strip() for key, value in style.items()}
    values |= {key: element.attrib.pop(key) for key in ("fill", "stroke") if key in element.attrib}
    classes = [found for key, value in values.items() if (found := _set(element, key, value))]
    if element.tag == f"{{{_SVG}}}text" and not classes:
        classes.append("fill-ink")
    if classes:
        element.set("class", " ".join(classes))
    if "id" in element.attrib:
        element.set("id", f"{name}-{element.get('id')}")
    for key in (f"{{{_XLINK}}}href", "clip-path"):
        if key in element.attrib:
            element.set(key, element.get(key, "").replace("#", f"#{name}-"))


def _set(element: ET.Element, key: str, value: str) -> str | None:
    """Set what one style declaration says as an attribute; the class to use instead where it is a colour of ours."""
    if key in ("fill", "stroke") and value.lower() in _CLASSES:
        return f"{key}-{_CLASSES[value.lower()]}"
    if key == "font":
        size = re.search(r"[\d.]+(?=px)", value)
        element.set("font-size", size.group() if size else "9")
    elif key in _ATTRIBUTES:
        # White is matplotlib's background; the page has its own.
        element.set(key, "none" if value.lower() == "#ffffff" else value)
    return None
