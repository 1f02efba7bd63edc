"""Lists of files as users keep them: AliEn's XML collections and text files (pure)."""

from __future__ import annotations

from pathlib import PurePosixPath
from xml.parsers import expat

from gridproof.errors import DatasetError

LARGEST = 64 << 20  # bytes of a file that is looked at for being a list
_ENDINGS = {".xml", ".txt", ".list", ".lst"}


def may_be_list(name: str, size: int, alone: bool) -> bool:
    """Whether a file's name says that it is a list; of one without an ending that is given ``alone`` only
    its content tells."""
    ending = PurePosixPath(name).suffix.lower()
    return ending in _ENDINGS or (alone and not ending and 0 <= size <= LARGEST)


def read(name: str, content: bytes) -> list[str] | None:
    """What a list names; None if the file without an ending is no XML collection, but data.

    Raises DatasetError.
    """
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        found = from_xml(name, content)
    elif PurePosixPath(name).suffix:
        found = from_text(name, content)
    else:
        return None
    if not found:
        raise DatasetError(f"the list {name} names no files")
    return found


def from_text(name: str, content: bytes) -> list[str]:
    """One name a line, but for empty ones and those that begin with ``#``. Raises DatasetError."""
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise DatasetError(f"{name} is no text in UTF-8: a list has one file name in each line") from None
    return [line for line in lines if line and not line.startswith("#")]


def from_xml(name: str, content: bytes) -> list[str]:
    """The LFNs in a collection as ``find -x`` and ``toXml`` make them; ``turl`` where it names a member.

    Declarations of types or entities are refused: a collection has none. Raises DatasetError.
    """
    found: list[str] = []
    top: list[str] = []

    def element(tag: str, attributes: dict[str, str]) -> None:
        top.append(tag)
        if tag != "file" or attributes.get("type") == "d":
            return
        lfn, turl = attributes.get("lfn", ""), attributes.get("turl", "").partition("?")[0]
        if wanted := turl if "#" in turl or not lfn else lfn:
            found.append(wanted if "://" in wanted else f"alien://{wanted}")

    def refuse(*_: object) -> None:
        raise DatasetError(f"{name} is no XML collection of AliEn: it declares a document type")

    parser = expat.ParserCreate()
    parser.StartElementHandler = element
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        reason = f"line {error.lineno}, column {error.offset + 1}: {expat.ErrorString(error.code)}"
        raise DatasetError(f"{name} is no XML collection of AliEn: {reason}") from None
    except (ValueError, LookupError) as error:  # of the codec that it names
        raise DatasetError(f"{name} is in an encoding that XML is not read in: {error}") from None
    if top[0] != "alien":
        raise DatasetError(f"{name} is no XML collection of AliEn: it is <{top[0]}>, not <alien>")
    return found
