"""What JAliEn's reader refuses in a JDL, in its words. Pure.

It looks for ``=`` and the next ``;`` outside quotes, and then at how the value begins and ends. What it takes
though nobody can mean it (a key given twice, say) is refused by :func:`gridproof.alien.jdl.parse` only.
"""

from __future__ import annotations

import re

from gridproof.errors import JdlError

_VALUE_END = re.compile(r'(?:[^\\";]|\\.|"(?:[^\\"]|\\.)*")*', re.DOTALL)
_COMMENTS = re.compile(r"(?:\s*(?:#|//)[^\n]*(?:\n|$))*")
_FOREIGN = re.compile(r"\W")


def check(text: str) -> None:
    """Raises JdlError for a JDL that JAliEn's reader refuses."""
    lines = (line for line in text.splitlines() if not line.strip().startswith(("#", "//")))
    content = "\n".join(lines)
    if not content.strip():
        raise JdlError("Content is empty")
    at = 0
    while (equals := content.find("=", at)) >= 0:
        key = _COMMENTS.sub("", content[at:equals], count=1).strip()
        if not key:
            raise JdlError("Key cannot be the empty string")
        if foreign := _FOREIGN.search(key):
            raise JdlError(f"Illegal character '{foreign.group()}' in key '{key}'")
        found = _VALUE_END.match(content, equals + 1)
        assert found
        at = found.end()
        if at < len(content) and content[at] != ";":
            what = "quotes" if content[at] == '"' else "escape"
            raise JdlError(f"JDL syntax error: unfinished {what} in the value of tag {key}")
        value = content[equals + 1 : at].strip()
        if value.startswith('"') and (len(value) < 2 or not value.endswith('"')):
            raise JdlError(f"JDL syntax error: quotes do not close at the end of string for tag {key}")
        if value.startswith("{") and not value.endswith("}"):
            raise JdlError(f"JDL syntax error: unclosed brackets in the value of tag {key}")
        at += 1
