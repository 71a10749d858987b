"""A small facility for the pages that look at decisions, mappings and runs: synthetic facts, decided on, no night."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from argon2 import PasswordHasher
from fastapi import FastAPI
from tests.ledgers import new_ledger
from tests.serve.conftest import PASSWORD, Browser

from io_fhir_adapter.classify.redecide import redecide
from io_fhir_adapter.classify.ruleset import rules_for
from io_fhir_adapter.classify.tables import COLUMNS
from io_fhir_adapter.config import Config, Role
from io_fhir_adapter.ledger.accounts import Actor, add_account
from io_fhir_adapter.ledger.audit import entries
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.intake import StoredFact, put_facts
from io_fhir_adapter.ledger.runs import finish_run, start_run
from io_fhir_adapter.look.passwords import Passwords
from io_fhir_adapter.model import Code, ProcedureFact
from io_fhir_adapter.serve.pages import install_pages
from io_fhir_adapter.serve.web import Web

__all__ = ["LOCAL", "NOW", "OPS", "House", "house_in", "procedure"]

OPS: Final = "http://fhir.de/CodeSystem/bfarm/ops"
LOCAL: Final = "http://example.org/CodeSystem/ris"
ICD: Final = "http://fhir.de/CodeSystem/bfarm/icd-10-gm"
NOW: Final = datetime(2026, 1, 30, 8, tzinfo=UTC)
MICROWAVE: Final = "5-501.a3"
LOOK_ALIKE: Final = "8-542.11"
TABLE: Final = ",".join(COLUMNS) + "\nR-1,microwave,liver,percutaneous,none,main,expected,,,ablation,list of 2025,\n"
PEOPLE: Final[dict[str, tuple[Role, ...]]] = {
    "vogt": ("viewer",), "weber": ("reviewer",), "lang": ("approver",), "adler": ("administrator",),
}  # fmt: skip


def procedure(name: str, patient: str, *codes: Code, day: str = "2025-03-04", **more: Any) -> ProcedureFact:
    """A completed Procedure of the synthetic source."""
    told = {"status": "completed", **more}
    return ProcedureFact("main", name, f"Patient/{patient}", day=day, codes=codes, **told)


def _facts() -> list[ProcedureFact]:
    tumour = (Code(ICD, "C22.0"),)
    found = [
        procedure("prc-one", "pat-ana", Code(OPS, MICROWAVE), reasons=tumour),
        procedure("prc-two", "pat-ana", Code(OPS, MICROWAVE), status="stopped"),
        procedure("prc-bare", "pat-ben", Code(OPS, MICROWAVE), day="2024-07-01"),
        procedure("prc-undated", "pat-cai", Code(OPS, MICROWAVE), day="", reasons=tumour),
    ]
    found += [
        procedure(f"prc-like-{n}", f"pat-like-{n}", Code(OPS, LOOK_ALIKE), day=f"2025-05-{n % 28 + 1:02}")
        for n in range(60)
    ]
    for n in range(6):
        found.append(procedure(f"prc-mwa-{n}", f"pat-{n}", Code(LOCAL, "R-7", "", "Mikrowellenablation Leber")))
        found.append(procedure(f"prc-cryo-{n}", f"pat-{n}", Code(LOCAL, "R-8", "", "Kryoablation Niere")))
        found.append(procedure(f"prc-knee-{n}", f"pat-{n}", Code(LOCAL, "R-9", "", "Erika Mustermann" * (n < 2))))
    return found


@dataclass
class House:
    """The facility, its pages, and who looks at them."""

    ledger: Ledger
    config: Config
    table: Path
    web: Web
    app: FastAPI
    runner: asyncio.Runner
    browsers: dict[str, Browser] = field(default_factory=dict)

    def at(self, account: str) -> Browser:
        if account not in self.browsers:
            self.browsers[account] = Browser(self.app, self.runner, "http://localhost")
            assert self.browsers[account].sign_in(account).status_code == 303
        return self.browsers[account]

    def page(self, path: str, account: str = "vogt", status: int = 200, **more: Any) -> str:
        answer = self.at(account).get(path, **more)
        assert answer.status_code == status, path
        return answer.text

    def text(self, path: str, account: str = "vogt", status: int = 200, **more: Any) -> str:
        return words(self.page(path, account, status, **more))

    def audit(self) -> list[tuple[str, str, str, str]]:
        with self.ledger.read() as connection:
            return [(one.agent, one.action, one.entity, one.detail) for one in entries(connection)]

    def decide(self) -> None:
        """What a night does of the rules as they are now."""
        with self.ledger.begin() as connection:
            run = start_run(connection, NOW)
        redecide(self.ledger, rules_for(self.config), (), run, lambda *_: None, today="2026-01-30")
        with self.ledger.begin() as connection:
            finish_run(connection, run, NOW, "complete", {})


def words(page: str) -> str:
    """What a page says."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


@contextmanager
def house_in(folder: Path, hasher: PasswordHasher, **mappings: Any) -> Iterator[House]:
    """The facility in a folder of its own; ``mappings`` in place of its own table for the local keys."""
    table = folder / "tables" / "ris.csv"
    table.parent.mkdir(parents=True)
    table.write_text(TABLE, encoding="utf-8")
    own = {"site_tables": [{"system": LOCAL, "file": str(table)}]}
    config = Config.model_validate(
        {
            "facility": {"code": "S-001", "name": "Synthetic Hospital", "time_zone": "Europe/Berlin"},
            "sources": [{"name": "main", "kind": "files", "paths": ["none.ndjson"]}],
            "mappings": mappings or own,
            "sign_in": {"accounts": True},
        }
    )
    ledger = new_ledger(folder / "ledger.sqlite")
    with ledger.begin() as connection:
        run = start_run(connection, NOW)
        put_facts(connection, [StoredFact(fact, mapped=False, known_system=False) for fact in _facts()], run)
    passwords = Passwords(hasher)
    web = Web(config, ledger, passwords=passwords, clock=lambda: NOW)
    app = FastAPI(openapi_url=None)
    web.install(app)
    install_pages(app, web, rules_for(config), date(2026, 1, 30))
    with ledger.begin() as connection:
        for name, roles in PEOPLE.items():
            hashed = passwords.hash(PASSWORD)
            add_account(connection, name, name.title(), hashed, roles, one_time=False, by=Actor("", ""), at=NOW)
    with asyncio.Runner() as runner:
        house = House(ledger, config, table, web, app, runner)
        house.decide()
        yield house
        for browser in house.browsers.values():
            browser.close()
    ledger.close()
