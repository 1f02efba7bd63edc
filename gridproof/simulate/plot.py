"""Pictures of simulations, as SVG text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from .report import Report

WIDTH, HEIGHT = 460, 250  # of a panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 34, 44  # its margins
BLUE, RED, GREY = "#2b6cb0", "#c53030", "#888"
LOCALITIES = 60  # bars at most; of more sites the worst are shown


class Panel:
    """One diagram with linear axes from 0, or a logarithmic x axis.

    ``x_range`` and ``y_range``: ``(lowest, highest)`` in the axes' own units.
    """

    def __init__(
        self,
        title: str,
        x_label: str,
        y_label: str,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        log: bool = False,
    ) -> None:
        self._x_range, self._y_range, self._log = x_range, y_range, log
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        self._parts = [
            _text(LEFT, 20, title, "start", bold=True),
            _text((LEFT + right) / 2, HEIGHT - 8, x_label),
            f'<g transform="rotate(-90)">{_text(-(TOP + bottom) / 2, 14, y_label)}</g>',
        ]
        for tick in _ticks(*y_range):
            y = self._y(tick)
            self._parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#e5e5e5"/>')
            self._parts.append(_text(LEFT - 6, y + 4, _short(tick), "end"))
        for tick in _decades(*x_range) if log else _ticks(*x_range):
            x = self._x(tick)
            self._parts.append(f'<path d="M{x:.1f} {bottom}v4" stroke="{GREY}"/>')
            self._parts.append(_text(x, bottom + 18, _short(tick)))
        self._parts.append(f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="{GREY}"/>')

    def curve(self, points: Sequence[tuple[float, float]], dots: bool = False, colour: str = BLUE) -> None:
        """A line through points."""
        path = "M" + "L".join(f"{self._x(x):.1f} {self._y(y):.1f}" for x, y in points)
        self._parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        if dots:
            self._parts += [
                f'<circle cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="3.5" fill="{BLUE}"/>'
                for x, y in points
            ]

    def bars(self, heights: Sequence[float]) -> None:
        """One bar beside the other, over the whole x axis."""
        width = (WIDTH - LEFT - RIGHT) / max(1, len(heights))
        base = self._y(self._y_range[0])
        for place, height in enumerate(heights):
            x, y = LEFT + place * width, self._y(height)
            self._parts.append(
                f'<rect x="{x + 0.1 * width:.1f}" y="{y:.1f}" width="{0.8 * width:.1f}" '
                f'height="{base - y:.1f}" fill="{BLUE}"/>'
            )

    def level(self, y: float, name: str) -> None:
        """A broken line across, named."""
        self._parts.append(
            f'<path d="M{LEFT} {self._y(y):.1f}H{WIDTH - RIGHT}" stroke="{RED}" stroke-dasharray="5 4"/>'
        )
        self._parts.append(_text(WIDTH - RIGHT - 4, self._y(y) - 5, name, "end", colour=RED))

    def moment(self, x: float, name: str) -> None:
        """A broken line upwards, named."""
        place = self._x(x)
        self._parts.append(
            f'<path d="M{place:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{RED}" stroke-dasharray="5 4"/>'
        )
        self._parts.append(_text(place - 5, HEIGHT - BOTTOM - 8, name, "end", colour=RED))

    def svg(self, x: float, y: float) -> str:
        """Its elements, moved to a place."""
        return f'<g transform="translate({x} {y})">{"".join(self._parts)}</g>'

    def _x(self, x: float) -> float:
        low, high = self._x_range
        if self._log:
            low, high, x = math.log(low), math.log(high), math.log(x)
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - low) / ((high - low) or 1)

    def _y(self, y: float) -> float:
        low, high = self._y_range
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (min(y, high) - low) / ((high - low) or 1)


def picture(reports: Sequence[Report]) -> str:
    """The largest of some simulations over time and by site, and all of them by their numbers of workers."""
    largest = max(reports, key=lambda report: report.workers)
    panels = [_busy(largest), _rate(largest), _locality(largest)]
    if len(reports) > 1:
        panels.append(_growth(reports))
    rows = math.ceil(len(panels) / 2)
    placed = [panel.svg(WIDTH * (n % 2), HEIGHT * (n // 2)) for n, panel in enumerate(panels)]
    size = f'width="{2 * WIDTH}" height="{rows * HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {2 * WIDTH} {rows * HEIGHT}" '
        f'font-family="sans-serif" font-size="12"><rect {size} fill="white"/>\n'
        + "\n".join(placed)
        + "\n</svg>\n"
    )


def _busy(report: Report) -> Panel:
    most = max(report.workers, *report.curves.busy)
    panel = Panel("Workers at work", "s", "workers", (0, report.makespan), (0, 1.08 * most))
    panel.curve(_over_time(report.curves.busy, report.makespan))
    panel.moment(report.makespan - report.tail, f"the first is idle: {report.tail:.1f} s before the end")
    return panel


def _rate(report: Report) -> Panel:
    curves = report.curves
    most = max(*curves.rate, *curves.capacity)
    title = "Rate, and what the workers that are there can do (grey)"
    panel = Panel(title, "s", "entries/s", (0, report.makespan), (0, 1.08 * most))
    panel.curve(_over_time(curves.capacity, report.makespan), colour=GREY)
    panel.curve(_over_time(curves.rate, report.makespan))
    return panel


def _locality(report: Report) -> Panel:
    worst = sorted(report.locality_by_site.values())[:LOCALITIES]
    title = f"Bytes read at the worker's own site ({report.locality:.1%} of all)"
    shown = "sites" if len(worst) == len(report.locality_by_site) else f"the {LOCALITIES} sites with least"
    panel = Panel(title, f"{shown}, in this order", "%", (0, len(worst)), (0, 108))
    panel.bars([100 * share for share in worst])
    return panel


def _growth(reports: Sequence[Report]) -> Panel:
    points = sorted((float(report.workers), report.ratio) for report in reports)
    highest = max(1.1, *(ratio for _, ratio in points))
    panel = Panel(
        "Makespan over lower bound",
        "workers",
        "",
        (points[0][0] / 1.3, points[-1][0] * 1.3),
        (1.0, 1 + 1.1 * (highest - 1)),
        log=True,
    )
    panel.curve(points, dots=True)
    panel.level(1.05, "1.05")
    return panel


def _over_time(values: Sequence[float], seconds: float) -> list[tuple[float, float]]:
    return [((n + 0.5) * seconds / len(values), value) for n, value in enumerate(values)]


def _ticks(low: float, high: float) -> list[float]:
    """Four to nine round numbers."""
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span))
    step = next(power * m for m in (0.2, 0.5, 1, 2) if span / (power * m) <= 8)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in (1, 3) if low <= m * 10.0**p <= high]


def _short(number: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= size:
            return f"{number / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{number:.6g}"


def _text(
    x: float, y: float, text: str, anchor: str = "middle", bold: bool = False, colour: str = "#222"
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{weight}>{escape(text)}</text>'
    )
