"""The code in the manual: every fenced block with its place, and the commands that are written in it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Block", "blocks_of", "commands_in", "pages"]

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^( *)(`{3,}|~{3,}) *(.*)$")


@dataclass(frozen=True)
class Block:
    """One fenced block: its page, the line of its fence, its language, and its text without the fence's indentation."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every page of the manual, and those that lie beside it."""
    return sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), ROOT / "deploy" / "README.md"])


def blocks_of(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    fence, language, indent, start = "", "", 0, 0
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        found = _FENCE.match(line)
        if not fence:
            if found:
                indent, fence, language = len(found[1]), found[2], found[3].strip()
                start, lines = number, []
        elif found and found[2] == fence and not found[3]:
            yield Block(page.relative_to(ROOT).as_posix(), start, language, "\n".join(lines) + "\n")
            fence = ""
        else:
            lines.append(line[indent:] if line[:indent].isspace() else line)
    assert not fence, f"{page}:{start}: the block has no end"


def commands_in(text: str) -> list[list[str]]:
    """The words of each command, as a shell reads them; a backslash at the end joins two lines."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = (re.sub(r"(^|\s)#.*", "", line) for line in joined.splitlines())  # shlex takes any # for a comment
    return [words for line in lines if (words := shlex.split(line))]
