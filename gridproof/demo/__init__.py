"""``gridproof demo``: the whole path from pilots to histogram, on an embedded Grid, checked and drawn."""

from gridproof.demo.show import main, run

__all__ = ["main", "run"]
