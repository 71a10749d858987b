"""What the pages of the case review share: the desk they work at, the form, and the cases in words."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from io_fhir_adapter.classify.redecide import decided_with
from io_fhir_adapter.classify.ruleset import Ruleset, rules_for
from io_fhir_adapter.errors import MappingError, ReviewError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.fhir.form_words import category_title, form_in
from io_fhir_adapter.handover.desk import Desk
from io_fhir_adapter.ledger.accounts import all_accounts
from io_fhir_adapter.logs import log
from io_fhir_adapter.review.board import CaseLine
from io_fhir_adapter.review.sample import Sample
from io_fhir_adapter.serve.web import Web

__all__ = ["Row", "View"]

Json = dict[str, Any]
_FORM_S: Final = 600.0
"""A body's own form is asked for anew so often, in seconds."""


@dataclass(frozen=True, slots=True)
class Row:
    """One case as pages show it: :class:`.CaseLine` in words.

    Attributes:
        number: Place in the draw.
        state: ``open``, ``draft``, ``signed`` or ``returned``.
        category: The category's title.
        percent: How much of the form the record answered.
        open: How many questions are open.
        who: Name of who works on it or signed it, empty where nobody does.
        account: Their account.
        rare: Whether few others look like it, and no approver let it leave yet.
        signed: When it was signed, empty where it is not.
        prefilled: Whether its record was read already; there is no form before.
    """

    number: int
    state: str
    category: str
    percent: int
    open: int
    who: str
    account: str
    rare: bool
    signed: str
    prefilled: bool


class View:
    """The case review of one facility, for its pages. Its methods block: call them in a worker thread.

    Args:
        web: The shell.
        ruleset: What decides.
        as_of: The local date that the pages work on; each day's own where omitted.
    """

    def __init__(self, web: Web, ruleset: Ruleset, as_of: date | None = None) -> None:
        self.web = web
        self._ruleset = ruleset
        self._looked = ruleset.digest
        self._as_of = as_of
        self._lock = threading.Lock()
        self._form: tuple[float, Json] | None = None

    @property
    def ruleset(self) -> Ruleset:
        """What decides: the rules that the decisions in the ledger were made with, once a night took other tables."""
        with self.web.ledger.read() as connection:
            decided = decided_with(connection)
        if decided != self._looked:
            self._looked = decided
            try:
                found = rules_for(self.web.config)
            except MappingError as exc:
                log.error("rules not renewed", code=exc.code)
            else:
                self._ruleset = found if found.digest == decided else self._ruleset
        return self._ruleset

    def desk(self) -> Desk:
        """The desk of today."""
        return Desk(self.web.config, self.web.ledger, self.ruleset, as_of=self._as_of)

    @property
    def today(self) -> date:
        """The local date that the pages work on."""
        return self._as_of or datetime.now(zone(self.web.config.facility.time_zone)).date()

    def sample(self) -> Sample | None:
        """The sample of the year that is due, None where nobody is drawn yet."""
        try:
            return self.desk().sample()
        except ReviewError:
            return None

    def form(self) -> Json:
        """The form that is asked now."""
        with self._lock:
            now = time.monotonic()
            if self._form is None or now - self._form[0] > _FORM_S:
                self._form = (now, asyncio.run(self.desk().casework.form()))
            return self._form[1]

    def shown_form(self, language: str) -> Json:
        """The form in the words of a language: to be shown, and never to be filled from or sent."""
        return form_in(self.form(), language)

    def lines(self, sample: Sample) -> list[CaseLine]:
        """The cases that are asked for, in drawn order."""
        return [line for line in self.desk().casework.board(sample, self.form()) if line.role == "case"]

    def rows(self, sample: Sample, language: str) -> list[Row]:
        """The same as pages show them in a language."""
        names = self.names()
        return [self._row(line, names, language) for line in self.lines(sample)]

    def names(self) -> dict[str, str]:
        """Local account to the name for people; an account of a provider stands for itself."""
        with self.web.ledger.read() as connection:
            return {account.name: account.display for account in all_accounts(connection)}

    def title(self, category: str, language: str) -> str:
        """The title of a category in a language."""
        return category_title(category, self._ruleset.categories.get(category, category), language)

    def _row(self, line: CaseLine, names: dict[str, str], language: str) -> Row:
        return Row(
            line.number, line.state, self.title(line.category, language), round(100 * line.share), len(line.open),
            names.get(line.reviewer, line.reviewer), line.reviewer, line.rare and not line.cleared, line.signed,
            line.prefilled,
        )  # fmt: skip
