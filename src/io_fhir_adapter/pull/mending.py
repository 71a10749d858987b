"""JSON that is not quite JSON: what servers and their proxies put into it without meaning to.

A byte order mark at its start, control characters inside a text, half a character, ``NaN``: one of them in one resource
makes a whole page unreadable for a strict parser. What is mended here changes no text that could be told from another,
and nothing that is cut off or otherwise damaged is made to look whole.
"""

from __future__ import annotations

import json
from typing import Final

__all__ = ["mended"]

_MARK: Final = b"\xef\xbb\xbf"
_MOST: Final = 32 << 20  # bytes: the lenient parser takes many times as much memory


def mended(body: bytes) -> bytes | None:
    """The same content as strict JSON; None where it is no JSON to a lenient parser either.

    Numbers that are none become their names as texts, halves of characters question marks.
    """
    if len(body) > _MOST:
        return None
    try:
        content = json.loads(body.removeprefix(_MARK), strict=False, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
