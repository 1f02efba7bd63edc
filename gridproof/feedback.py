"""Histograms of a query that still runs, drawn where its user looks."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

Show = Callable[[Mapping[str, Any]], None]


class Canvas:
    """A ``TCanvas`` with one pad for each histogram or profile of one or two dimensions.

    Pads into which the canvas is divided already are taken as they are, with their scales and grids.
    """

    def __init__(self, root: Any, canvas: Any) -> None:
        self._root = root
        self._canvas = canvas
        self._drawn: dict[str, Any] = {}  # they belong to their pads
        self._pads: dict[str, Any] = {}
        self._picture: Any = None

    @classmethod
    def current(cls, root: Any) -> Canvas | None:
        """The canvas of ``gPad``, in batch mode as well; None where there is none."""
        if not root.gROOT.GetListOfCanvases().GetSize() or not root.gPad:
            return None
        return cls(root, root.gPad.GetCanvas())

    def show(self, outputs: Mapping[str, Any]) -> None:
        """Draw the histograms among the outputs; what is drawn already is updated in its place."""
        histograms = {name: o for name, o in outputs.items() if _is_drawn(o)}
        if not histograms or not self._root.gROOT.GetListOfCanvases().FindObject(self._canvas):
            return  # the user has closed it
        with self._undisturbed():
            if set(histograms) != set(self._drawn) or not all(self._drawn.values()):
                self._lay_out(histograms)
            else:
                for name, histogram in histograms.items():
                    self._update(self._drawn[name], histogram)
                    self._pads[name].Modified()
            self._canvas.Modified()
            self._canvas.Update()
            self._root.gSystem.ProcessEvents()
            self._show_in_notebook()

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """The user's current pad and directory are the same afterwards; ROOT says nothing of pictures."""
        root = self._root
        pad, level = root.gPad, root.gErrorIgnoreLevel
        root.gErrorIgnoreLevel = root.kWarning
        here = root.TDirectory.TContext(root.nullptr)
        try:
            yield
        finally:
            del here
            root.gErrorIgnoreLevel = level
            if pad:
                pad.cd()

    def _lay_out(self, histograms: Mapping[str, Any]) -> None:
        canvas = self._canvas
        pads = [p for p in canvas.GetListOfPrimitives() if p.InheritsFrom("TPad")]
        if not pads and len(histograms) == 1:
            pads = [canvas]
        elif len(pads) < len(histograms):
            columns = math.ceil(math.sqrt(len(histograms)))
            canvas.Clear()
            canvas.Divide(columns, math.ceil(len(histograms) / columns))
            pads = list(canvas.GetListOfPrimitives())
        self._drawn, self._pads = {}, {}
        for pad, (name, histogram) in zip(pads, histograms.items(), strict=False):
            pad.cd()
            pad.Clear()
            self._drawn[name] = histogram.DrawCopy("colz" if histogram.GetDimension() == 2 else "", "")
            self._pads[name] = pad

    def _update(self, drawn: Any, histogram: Any) -> None:
        root = self._root
        histogram.Copy(drawn)
        drawn.SetDirectory(root.nullptr)
        drawn.SetBit(root.kCanDelete | root.kMustCleanup)  # Copy takes the other one's

    def _show_in_notebook(self) -> None:
        if not _in_notebook():
            return
        from IPython.display import Image, display

        with TemporaryDirectory(prefix="gridproof-") as directory:
            path = Path(directory) / "canvas.png"
            self._canvas.Print(str(path))
            picture = Image(data=path.read_bytes())
        if self._picture is None:
            self._picture = display(picture, display_id=True)
        else:
            self._picture.update(picture)


def _is_drawn(item: Any) -> bool:
    return bool(item.InheritsFrom("TH1")) and item.GetDimension() <= 2


def _in_notebook() -> bool:
    """Whether this process is an IPython kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")
