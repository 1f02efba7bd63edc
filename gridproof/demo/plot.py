"""Pictures of results, drawn by ROOT without a display."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gridproof import _root

_TEXT = 43  # Helvetica, sizes in pixels


def spectrum(measured: Any, path: Path, *, reference: Any = None, caption: tuple[str, ...] = ()) -> None:
    """Draw a steeply falling ``TH1`` as points on logarithmic axes and write it to ``path``.

    The picture's format follows the suffix (``.png``, ``.pdf``). ``reference``, a ``TH1`` of the same
    binning, is drawn as a line below the points; ``caption`` lines are set into the lower left.

    Raises:
        OSError: ROOT could not write the file.
    """
    root = _root.load()
    with _batch(root):
        canvas = root.TCanvas("gridproof_spectrum", "", 1000, 750)
        canvas.SetLogx()
        canvas.SetLogy()
        canvas.SetTicks(1, 1)
        canvas.SetMargin(0.15, 0.03, 0.13, 0.04)
        points = _points(root, measured)
        points.Draw("AP")
        points.GetXaxis().SetLimits(*_edges_used(measured))
        points.SetMaximum(20 * measured.GetMaximum())  # room for the legend
        _axes(points, measured)

        legend = root.TLegend(0.55, 0.82, 0.95, 0.94)
        legend.SetBorderSize(0)
        legend.SetFillStyle(0)
        legend.SetTextFont(_TEXT)
        legend.SetTextSize(24)
        legend.AddEntry(points, "gridproof, all workers", "pe")
        line = None
        if reference is not None:
            line = reference.Clone("gridproof_reference")
            line.SetDirectory(root.nullptr)
            line.SetLineColor(root.kOrange + 7)
            line.SetLineWidth(2)
            line.SetStats(False)
            line.Draw("HIST SAME")
            points.Draw("P SAME")
            legend.AddEntry(line, "TChain::Process, one process", "l")
        legend.Draw()

        text = root.TLatex()
        text.SetNDC()
        text.SetTextFont(_TEXT)
        text.SetTextSize(24)
        for number, words in enumerate(reversed(caption)):
            text.DrawLatex(0.20, 0.18 + 0.045 * number, words)
        canvas.SaveAs(str(path))
        canvas.Close()
    if not path.is_file():
        raise OSError(f"ROOT did not write {path}: is the directory writable?")


def _points(root: Any, histogram: Any) -> Any:
    """The filled bins as a graph: an empty bin has no place on a logarithmic axis."""
    points = root.TGraphErrors()
    for bin_ in range(1, histogram.GetNbinsX() + 1):
        if histogram.GetBinContent(bin_) > 0:
            number = points.GetN()
            points.SetPoint(number, histogram.GetBinCenter(bin_), histogram.GetBinContent(bin_))
            points.SetPointError(number, histogram.GetBinWidth(bin_) / 2, histogram.GetBinError(bin_))
    points.SetTitle("")
    points.SetMarkerStyle(root.kFullCircle)
    points.SetMarkerSize(1.1)
    points.SetMarkerColor(root.kAzure + 2)
    points.SetLineColor(root.kAzure + 2)
    return points


def _edges_used(histogram: Any) -> tuple[float, float]:
    """Lower edge of the first bin and upper edge of the last filled one."""
    axis = histogram.GetXaxis()
    filled = [bin_ for bin_ in range(1, histogram.GetNbinsX() + 1) if histogram.GetBinContent(bin_) > 0]
    return axis.GetXmin(), axis.GetBinUpEdge(filled[-1]) if filled else axis.GetXmax()


def _axes(points: Any, histogram: Any) -> None:
    for axis, source, offset in (
        (points.GetXaxis(), histogram.GetXaxis(), 1.2),
        (points.GetYaxis(), histogram.GetYaxis(), 1.9),
    ):
        axis.SetTitle(source.GetTitle())
        axis.SetTitleFont(_TEXT)
        axis.SetTitleSize(28)
        axis.SetTitleOffset(offset)
        axis.SetLabelFont(_TEXT)
        axis.SetLabelSize(24)
    points.GetXaxis().SetNoExponent()


@contextmanager
def _batch(root: Any) -> Iterator[None]:
    """ROOT without windows and without its message per saved picture, for as long as this lasts."""
    batch, level = root.gROOT.IsBatch(), root.gErrorIgnoreLevel
    root.gROOT.SetBatch(True)
    root.gErrorIgnoreLevel = root.kWarning
    try:
        yield
    finally:
        root.gROOT.SetBatch(batch)
        root.gErrorIgnoreLevel = level
