"""The table of error codes in docs/errors.md, read from the places where errors are made.

python .ci/error_table.py            fails where the manual's table is not that of the code
python .ci/error_table.py --write    writes it
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from io_fhir_adapter import errors

__all__ = ["MANUAL", "SOURCES", "Site", "error_sites", "table", "table_in"]

_ROOT = Path(__file__).resolve().parents[1]
SOURCES = _ROOT / "src" / "io_fhir_adapter"
MANUAL = _ROOT / "docs" / "errors.md"
_BEGIN, _END = "<!-- errors: begin -->", "<!-- errors: end -->"
_CLASSES: dict[str, type[errors.AdapterError]] = {name: getattr(errors, name) for name in errors.__all__}
_CODE = re.compile(r"IOA-[A-Z]{3}-\d{3}")
_OPEN = "…"
_OPEN_RUN = re.compile("…+")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Names = Mapping[str, ast.expr]


@dataclass(frozen=True, order=True)
class Site:
    """One place where an error is made; in its texts ``…`` stands for what is known only when it happens."""

    code: str
    kind: str
    what: str
    do: str
    transient: str
    module: str


def error_sites(sources: Path = SOURCES) -> list[Site]:
    """Every place of the package where an error of the tree, or a quarantine entry with a code, is made.

    Raises:
        ValueError: A number cannot be read off the source.
    """
    return sorted({site for path in sorted(sources.rglob("*.py")) for site in _in_module(path, sources)})


def _in_module(path: Path, sources: Path) -> Iterator[Site]:
    module = ast.parse(path.read_text(encoding="utf-8"))
    where = path.relative_to(sources).as_posix()
    inside: dict[ast.AST, Function] = {}
    for function in [node for node in ast.walk(module) if isinstance(node, Function)]:
        for node in ast.walk(function):
            inside[node] = function  # inner functions come later and win
    for call in [node for node in ast.walk(module) if isinstance(node, ast.Call)]:
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        if name in _CLASSES:
            for names in _bindings(call, inside.get(call), module):
                yield _site(name, call, names, where)
        else:
            yield from _written_out(call, where)


def _site(name: str, call: ast.Call, names: Names, where: str) -> Site:
    given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    number = _resolve(given["number"], names) if "number" in given else ast.Constant(1)
    value = number.value if isinstance(number, ast.Constant) else None
    code = f"{_CLASSES[name].family}-{value:03d}" if isinstance(value, int) else ""
    if not code:
        msg = f"{where}:{call.lineno}: the number of {name} is not written out"
        raise ValueError(msg)
    transient = given.get("transient")
    return Site(
        code=code,
        kind=name,
        what=_words(call.args[0], names) if call.args else "",
        do=_words(given["do"], names) if "do" in given else "",
        transient=_yes_no(transient, _CLASSES[name].transient_by_default),
        module=where,
    )


def _yes_no(node: ast.expr | None, default: bool) -> str:
    if node is None:
        return "yes" if default else "no"
    if isinstance(node, ast.Constant):
        return "yes" if node.value else "no"
    return "it depends"


def _written_out(call: ast.Call, where: str) -> Iterator[Site]:
    """A code given as text: an entry of the quarantine."""
    texts = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    for code in [text for text in texts if _CODE.fullmatch(text)]:
        family = code.rpartition("-")[0]
        kind = next(name for name, found in _CLASSES.items() if found.family == family)
        what = next((text for text in texts if " " in text), _OPEN)
        yield Site(code, kind, what, "", "no", where)


def _bindings(call: ast.Call, function: Function | None, module: ast.Module) -> list[Names]:
    """What the names in a call stand for: one mapping for each way that the call can be reached."""
    used = {node.id for argument in _arguments(call) for node in ast.walk(argument) if isinstance(node, ast.Name)}
    if function is None:
        return [{}]
    assigned = [
        dict(zip([t.id for t in target.elts if isinstance(t, ast.Name)], node.value.elts, strict=False))
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
    ]
    assigned = [names for names in assigned if used & set(names)]
    if assigned:
        return list(assigned)
    parameters = [argument.arg for argument in function.args.args]
    if not used & set(parameters):
        return [{}]
    defaults = dict(zip(reversed(parameters), reversed(function.args.defaults), strict=False))
    calls = [
        node
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function.name
    ]
    return [
        {
            **defaults,
            **dict(zip(parameters, node.args, strict=False)),
            **{keyword.arg: keyword.value for keyword in node.keywords if keyword.arg},
        }
        for node in calls
    ] or [{}]


def _arguments(call: ast.Call) -> Sequence[ast.expr]:
    wanted = [keyword.value for keyword in call.keywords if keyword.arg in {"do", "number"}]
    return [*call.args, *wanted]


def _resolve(node: ast.expr, names: Names) -> ast.expr:
    return names.get(node.id, node) if isinstance(node, ast.Name) else node


def _words(node: ast.expr, names: Names) -> str:
    return _OPEN_RUN.sub(_OPEN, _text(node, names))


def _text(node: ast.expr, names: Names) -> str:
    node = _resolve(node, names)
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, names) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        inner = _resolve(node.value, names)
        return str(inner.value) if isinstance(inner, ast.Constant) and isinstance(inner.value, str) else _OPEN
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, names) + _text(node.right, names)
    if isinstance(node, ast.IfExp):
        either = dict.fromkeys(_text(part, names) for part in (node.body, node.orelse))
        return " or: ".join(text for text in either if text and text != _OPEN) or _OPEN
    return _OPEN


def table(sites: Sequence[Site]) -> str:
    """The Markdown table of all codes."""
    by_code: dict[str, list[Site]] = defaultdict(list)
    for site in sites:
        by_code[site.code].append(site)
    lines = ["| code | error | try again | what happened | what to do |", "| --- | --- | --- | --- | --- |"]
    for code, found in sorted(by_code.items()):
        cells = [
            f"`{code}`",
            _all(site.kind for site in found),
            _all(site.transient for site in found),
            _all(site.what for site in found) or "see the message",
            _all(site.do for site in found) or "see the message",
        ]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _all(texts: Iterable[str]) -> str:
    return "<br>".join(dict.fromkeys(text for text in texts if text and text != _OPEN))


def table_in(manual: str) -> str:
    """The table that stands in the manual's text.

    Raises:
        ValueError: It has no place for one.
    """
    begin, end = manual.index(_BEGIN) + len(_BEGIN), manual.index(_END)
    return manual[begin:end].strip()


def main(arguments: Sequence[str]) -> int:
    """Checks the manual's table, or writes it."""
    manual = MANUAL.read_text(encoding="utf-8")
    made = table(error_sites())
    if table_in(manual) == made:
        return 0
    if "--write" not in arguments:
        print("docs/errors.md does not list the errors that the code makes; run make docs", file=sys.stderr)
        return 1
    head, tail = manual[: manual.index(_BEGIN)], manual[manual.index(_END) :]
    MANUAL.write_text(f"{head}{_BEGIN}\n{made}\n{tail}", encoding="utf-8")
    print("docs/errors.md: table written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
