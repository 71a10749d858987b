"""Logs: what an event may carry, and that nothing else is written, whoever logs it."""

from __future__ import annotations

import ast
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from io_fhir_adapter.logs import KEYS, configure_logs, log, within_run

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "io_fhir_adapter"
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
CANARY = "Mustermann 4711"


@pytest.fixture
def stream() -> io.StringIO:
    written = io.StringIO()
    configure_logs(written)
    return written


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def sources(*words: str) -> Iterator[tuple[Path, ast.Module]]:
    """The modules in which one of these words stands: parsing all takes seconds."""
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if any(word in text for word in words):
            yield path.relative_to(PACKAGE), ast.parse(text)


def calls() -> Iterator[tuple[str, ast.Call]]:
    for path, tree in sources("log."):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in LEVELS and isinstance(node.func.value, ast.Name) and node.func.value.id == "log":
                yield f"{path}:{node.lineno}", node


def test_every_call_in_the_source_logs_words_of_ours_and_keys_that_may_be_shown() -> None:
    found = list(calls())
    assert len(found) > 10
    wrong = []
    for place, call in found:
        event = call.args[0] if len(call.args) == 1 else None
        if not (isinstance(event, ast.Constant) and KEYS["event"](event.value)):
            wrong.append(f"{place}: the event is no fixed text")
        wrong += [f"{place}: {word.arg or 'keys unknown'}" for word in call.keywords if word.arg not in KEYS]
    assert wrong == []


def test_nothing_in_the_source_logs_in_another_way() -> None:
    others = []
    for path, tree in sources("structlog", "getLogger", "get_logger"):
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if {"getLogger", "get_logger", "structlog"} & set(names) and path.name != "logs.py":
                others.append(str(path))
    assert others == []


def test_unknown_keys_and_values_of_another_form_are_dropped(stream: io.StringIO) -> None:
    log.info("night failed", code="IOA-NET-003", patient=CANARY, source=CANARY, run=7, exception=f"{CANARY}()")
    log.info(CANARY, reason=CANARY)
    first, second = lines(stream)
    assert {key: first[key] for key in ("event", "code", "run", "dropped")} == {
        "event": "night failed", "code": "IOA-NET-003", "run": 7, "dropped": 3,
    }  # fmt: skip
    assert (second["event"], second["dropped"]) == ("an event that may not be shown", 2)
    assert "Mustermann" not in stream.getvalue()


def test_an_exception_is_its_type(stream: io.StringIO) -> None:
    try:
        int(CANARY)
    except ValueError:
        log.exception("page failed")
    assert lines(stream)[0]["exception"] == "ValueError"
    assert "Mustermann" not in stream.getvalue()


def test_all_that_is_logged_within_a_run_carries_its_number(stream: io.StringIO) -> None:
    with within_run(12):
        log.info("written", files=1)
        logging.getLogger("httpx").warning("GET /Patient?name=%s", CANARY)
    log.info("written", files=2)
    logging.getLogger("httpx").warning(CANARY)
    assert [line.get("run") for line in lines(stream)] == [12, 12, None, None]
    assert "Mustermann" not in stream.getvalue()


@pytest.mark.parametrize("key", sorted(KEYS))
def test_no_key_takes_a_name_or_an_identifier(key: str) -> None:
    patient = "http://x/Patient/1"
    said: tuple[object, ...] = ("Erika Mustermann", "Patient/4711-M", "erika@m.example", patient, None, [])
    assert [value for value in said if KEYS[key](value)] == []


def test_the_form_is_one_object_a_line(stream: io.StringIO) -> None:
    log.info("scheduled", job="nightly", due="2026-03-29T03:30:00+02:00")
    (line,) = lines(stream)
    assert set(line) == {"event", "level", "timestamp", "job", "due"}
