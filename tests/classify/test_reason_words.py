"""Every reason code has words of its own, wherever a person reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from io_fhir_adapter.classify.explain import in_words
from io_fhir_adapter.model import Decision
from io_fhir_adapter.report.wording import reason_words

MANUAL = Path(__file__).resolve().parents[2] / "docs" / "counting.md"


def reasons() -> list[str]:
    table = MANUAL.read_text(encoding="utf-8").partition("<!-- reasons: begin")[2].partition("<!-- reasons: end")[0]
    return re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)


def test_explain_has_a_sentence_for_each(make: Any) -> None:
    assert len(reasons()) > 20
    for reason in reasons():
        decision = Decision("his", "Patient/1", "2025-03-14", "tace", "review", reason)
        sentence = in_words(decision, make.ruleset)[1]
        assert re.fullmatch(rf"because \w+ .+ \[{reason}\]", sentence), reason


def test_the_report_has_words_for_each() -> None:
    words = {reason: reason_words(reason) for reason in reasons()}
    assert len(set(words.values())) == len(words)
    assert words["text-only"] == "known by text only"
    assert words["protection-possible"] == "may only protect"
