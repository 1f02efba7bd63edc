"""``gridproof demo``: the whole path from pilots to histogram, on an embedded Grid, checked and drawn."""

from gridproof.demo.show import run

__all__ = ["run"]
