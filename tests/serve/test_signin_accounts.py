"""The administrators' pages: accounts, and the audit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from io_fhir_adapter.ledger.accounts import account_of
from io_fhir_adapter.ledger.audit import note

Site = Any  # of conftest, which is no module to import from
Make = Callable[..., Site]
PASSWORD = "correct horse battery"


@pytest.fixture
def here(site: Make) -> Site:
    made = site()
    made.account("admin", "administrator")
    made.account("weber", "reviewer")
    return made


@pytest.fixture
def admin(here: Site) -> Any:
    made = here.browser()
    made.sign_in("admin")
    return made


@pytest.fixture
def weber(here: Site) -> Any:
    made = here.browser()
    made.sign_in("weber")
    return made


def test_an_account_is_made_with_a_one_time_password_that_is_shown_once(here: Site, admin: Any) -> None:
    fields = {"name": "M.Schulz", "display": "M.  <Schulz>", "role": ["viewer", "approver"]}
    answer = admin.fill("/accounts", fields)
    assert answer.status_code == 200
    shown = re.search(r"<code>([a-z2-9]{5}(?:-[a-z2-9]{5}){3})</code>", answer.text)
    assert shown is not None
    assert "M. &lt;Schulz&gt;" in answer.text
    assert shown[1] not in admin.get("/accounts").text
    assert here.browser().sign_in("m.schulz", shown[1]).headers["location"] == "/password"
    entry = here.audit()[-2]
    assert (entry.agent, entry.role, entry.action, entry.entity, entry.detail) == (
        "admin", "administrator", "C", "Account/m.schulz", "account added, roles viewer,approver",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "weber"}, "There is an account of this name already"),
        ({"name": "oidc:weber"}, "This name cannot be used"),
        ({"name": "ünser"}, "This name cannot be used"),
        ({"name": ""}, "This name cannot be used"),
    ],
)
def test_a_name_that_cannot_be_is_refused(fields: dict[str, str], words: str, admin: Any) -> None:
    answer = admin.fill("/accounts", fields)
    assert answer.status_code == 422
    assert words in answer.text


def test_a_role_that_is_none_is_refused(admin: Any) -> None:
    assert admin.fill("/accounts", {"name": "new", "role": "boss"}).status_code == 400


@pytest.mark.parametrize(("action", "fields"), [("roles", {"role": "viewer"}), ("disable", {}), ("password", {})])
def test_what_takes_something_away_ends_the_sessions(
    action: str, fields: dict[str, str], here: Site, admin: Any, weber: Any
) -> None:
    assert weber.get("/cases").status_code == 200
    assert admin.fill("/accounts", fields, f"/accounts/weber/{action}").status_code in {200, 303}
    assert weber.get("/cases").status_code == 303
    assert here.audit()[-1].entity == "Account/weber"


def test_an_account_is_disabled_and_enabled(here: Site, admin: Any) -> None:
    admin.fill("/accounts", {}, "/accounts/weber/disable")
    assert here.browser().sign_in("weber").status_code == 401
    assert "disabled" in admin.get("/accounts").text
    admin.fill("/accounts", {}, "/accounts/weber/enable")
    assert here.browser().sign_in("weber").status_code == 303


def test_nobody_changes_their_own_account(here: Site, admin: Any) -> None:
    for action in ("roles", "disable", "password"):
        answer = admin.fill("/accounts", {"role": ["reviewer"]}, f"/accounts/admin/{action}")
        assert answer.status_code == 409
        answer = admin.fill("/accounts", {"role": ["reviewer"]}, f"/accounts/ADMIN/{action}")
        assert answer.status_code == 409
    with here.ledger.read() as connection:
        found = account_of(connection, "admin")
    assert found is not None
    assert (set(found.roles), found.disabled) == ({"administrator"}, False)


def test_an_account_that_is_not_there_is_a_sentence(admin: Any) -> None:
    answer = admin.fill("/accounts", {}, "/accounts/absent/disable")
    assert answer.status_code == 400
    assert "IOA-USE-032" in answer.text


@pytest.mark.parametrize("path", ["/accounts", "/audit", "/audit.ndjson"])
def test_only_administrators_see_it(path: str, here: Site, weber: Any) -> None:
    assert weber.get(path).status_code == 403
    assert here.browser().get(path).status_code == 303
    assert weber.fill("/", {"name": "mine", "role": "administrator"}, "/accounts").status_code == 403


def test_the_audit_is_paged_and_escaped(here: Site, admin: Any) -> None:
    with here.ledger.begin() as connection:
        for number in range(60):
            note(connection, at=here.clock(), agent=f"<b>{number}</b>", role="", action="R", entity=f"Case/1/{number}")
    first = admin.get("/audit").text
    assert "<b>" not in first
    assert first.count("<time ") == 50
    older = re.search(r'href="(/audit\?before=\d+)"', first)
    assert older is not None
    second = admin.get(older[1]).text
    numbers = [int(n) for n in re.findall(r'class="n">(\d+)</td>', first + second)]
    assert numbers == sorted(set(numbers), reverse=True)
    assert numbers[-1] == 1
    assert "2026-03-02 09:00:00" in first  # of Berlin


def test_the_export_is_whole_and_is_noted_itself(here: Site, admin: Any) -> None:
    answer = admin.get("/audit.ndjson")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines == [entry.to_json() for entry in here.audit()]
    assert (lines[-1]["agent"], lines[-1]["entity"], lines[-1]["detail"]) == ("admin", "Audit", "export")
