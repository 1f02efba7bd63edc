"""What ROOT's own lists of files say: ``TChain`` and ``TFileCollection``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gridproof.errors import DatasetError


@dataclass(frozen=True)
class Described:
    """Files by name, their tree ("" where the object does not say), and friends by alias."""

    names: Sequence[str]
    tree: str
    friends: Sequence[tuple[str, Any]] = ()


def describe(source: Any) -> Described:
    """What a ``TChain`` or ``TFileCollection`` lists. Raises DatasetError for anything else."""
    inherits = getattr(source, "InheritsFrom", None)
    if inherits is not None and inherits("TChain"):
        return _chain(source)
    if inherits is not None and inherits("TFileCollection"):
        names = [_name(info.GetFirstUrl()) for info in source.GetList()]
        return Described(names, str(source.GetDefaultTreeName() or "").strip("/"))
    raise DatasetError(
        f"{source!r} names no files: give LFNs, URLs, local paths, patterns, a list or collection, a TChain "
        "or a TFileCollection"
    )


def _chain(chain: Any) -> Described:
    elements = list(chain.GetListOfFiles())
    trees = sorted({str(element.GetName()) for element in elements})
    if len(trees) > 1:
        raise DatasetError(
            f"the chain's files have different trees: {', '.join(trees[:5])}; a dataset has one, "
            "which may be a pattern such as 'DF_*/O2track'"
        )
    friends = []
    for friend in chain.GetListOfFriends() or ():
        tree = friend.GetTree()
        if not tree.InheritsFrom("TChain"):
            raise DatasetError(f"the friend {friend.GetName()} is no TChain: its files are not known")
        friends.append((str(friend.GetName()), tree))
    names = [str(element.GetTitle()) for element in elements]
    return Described(names, trees[0] if trees else str(chain.GetName()), friends)


def _name(url: Any) -> str:
    """A URL as it was given: ROOT writes ``file:`` before names that have no protocol."""
    if str(url.GetProtocol()) != "file":
        return str(url.GetUrl())
    anchor = str(url.GetAnchor())
    return str(url.GetFile()) + (f"#{anchor}" if anchor else "")
