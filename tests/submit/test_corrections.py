"""What a submission says beside its cases: the standards, what it corrects, who approved it; and its signature."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from io_fhir_adapter.canonical_urls import SUBMISSION_SYSTEM
from io_fhir_adapter.classify.programme import load_programme
from io_fhir_adapter.config import LedgerConfig, SubmissionConfig
from io_fhir_adapter.errors import ConfigError, LedgerError, SubmitError
from io_fhir_adapter.handover.sealing import seal_correcting, sign_anew, standards_of
from io_fhir_adapter.ledger.approvals import approval_of, approve, clears, hold_unapproved
from io_fhir_adapter.ledger.assessments import put_assessment
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.ledger.outbox import enqueue, item, put_body, settle
from io_fhir_adapter.owner_only import put_owner_only
from io_fhir_adapter.report.standards import ANSWERS, questionnaire
from io_fhir_adapter.review.forms import canonical
from io_fhir_adapter.submit.content import StandardsContent
from io_fhir_adapter.submit.seal import SubmissionContent, seal
from io_fhir_adapter.submit.signing import Finish, signature_words, signing_key
from io_fhir_adapter.trust.approver import approver_agent
from io_fhir_adapter.trust.canonical import canonical_json, digest_bytes
from io_fhir_adapter.trust.keys import new_signature_key, public_set
from io_fhir_adapter.trust.signature import check_signature
from io_fhir_adapter.trust.verify import verify_submission

Json = dict[str, Any]
Make = Callable[..., SubmissionContent]
NOW = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)
LATER = datetime(2026, 2, 5, 3, 0, tzinfo=UTC)
FORM = questionnaire(load_programme("iasios"))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(LedgerConfig(path=tmp_path / "ledger.sqlite"))
    yield opened
    opened.close()


def accepted(ledger: Ledger, bundle: Json, now: datetime) -> str:
    value = str(bundle["identifier"]["value"])
    with ledger.begin() as connection:
        enqueue(connection, value, "2025", canonical_json(bundle), now)
        settle(connection, value, "accepted")
    return value


def correcting(ledger: Ledger, content: SubmissionContent, now: datetime = LATER) -> Json:
    with ledger.read() as connection:
        return seal_correcting(connection, content, "2025", now)


def revised(bundle: Json) -> list[str]:
    (statement,) = (e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "Provenance")
    return [
        entity["what"]["identifier"]["value"]
        for entity in statement["entity"]
        if entity["role"] == "revision" and entity["what"]["identifier"]["system"] == SUBMISSION_SYSTEM
    ]


def answered(**changes: Any) -> Json:
    first = FORM["item"][0]["item"][0]
    asked, evidence = first["item"][0], first["item"][1]
    named = [
        {"linkId": evidence["item"][0]["linkId"], "answer": [{"valueString": "SOP 7 CANARY.pdf"}]},
        {"linkId": evidence["item"][1]["linkId"], "answer": [{"valueString": "cd" * 32}]},
    ]
    items = [
        {"linkId": asked["linkId"], "answer": [{"valueCoding": asked["answerOption"][0]["valueCoding"]}]},
        {"linkId": evidence["linkId"], "item": named},
    ]
    group = {"linkId": FORM["item"][0]["linkId"], "item": [{"linkId": first["linkId"], "item": items}]}
    head = {"resourceType": "QuestionnaireResponse", "questionnaire": canonical(FORM), "status": "completed"}
    return {**head, "item": [group], **changes}


def test_a_correction_names_what_it_corrects_and_what_says_the_same_is_none(ledger: Ledger, make_content: Make) -> None:
    content = make_content()
    first = correcting(ledger, content, NOW)
    one = accepted(ledger, first, NOW)
    assert revised(first) == []
    assert correcting(ledger, content)["identifier"]["value"] == one

    changed = make_content(measure_report={**content.measure_report, "status": "pending"})
    second = correcting(ledger, changed)
    two = accepted(ledger, second, LATER)
    assert revised(second) == [one]
    assert two != one
    assert correcting(ledger, changed)["identifier"]["value"] == two

    back = correcting(ledger, content)  # what was said first is said again: a correction of the correction
    assert revised(back) == [two]
    assert back["identifier"]["value"] not in (one, two)
    assert all(finding.holds for finding in verify_submission(back))


def test_a_submission_for_another_programme_is_not_corrected(ledger: Ledger, make_content: Make) -> None:
    accepted(ledger, correcting(ledger, make_content(programme="degir"), NOW), NOW)
    assert revised(correcting(ledger, make_content())) == []


def test_the_standards_leave_as_they_were_completed_without_their_evidence(ledger: Ledger, make_content: Make) -> None:
    programme = load_programme("iasios")
    with ledger.begin() as connection:
        assert standards_of(connection, programme) is None
        for incomplete in (answered(status="in-progress"), answered(questionnaire=f"{FORM['url']}|0.0.1")):
            put_assessment(connection, programme.id, incomplete, NOW)
            assert standards_of(connection, programme) is None
        put_assessment(connection, programme.id, answered(), NOW)
        found = standards_of(connection, programme)
    assert found is not None
    bundle = seal(make_content(standards=found), NOW)
    assert "CANARY" not in json.dumps(bundle)
    assert "cd" * 32 not in json.dumps(bundle)
    (given,) = (
        entry["resource"]
        for entry in bundle["entry"]
        if str(entry["resource"].get("identifier", {})).find(".standards") > 0
    )
    assert given["subject"]["identifier"]["value"] == "F-001"
    assert given["identifier"]["value"] == "F-001.iasios.2025-01-01.2025-12-31.standards"
    assert next(iter(ANSWERS)) in json.dumps(given)
    assert [e["resource"]["url"] for e in bundle["entry"] if e["resource"]["resourceType"] == "Questionnaire"][1:] == [
        FORM["url"]
    ]
    assert all(finding.holds for finding in verify_submission(bundle))


@pytest.mark.parametrize(
    "changes", [{"status": "in-progress"}, {"questionnaire": "https://other.example/Questionnaire/x"}]
)
def test_standards_that_do_not_fit_are_not_sealed(make_content: Make, changes: Json) -> None:
    wrong = StandardsContent(FORM, {**answered(), **changes})
    with pytest.raises(SubmitError, match="standards, QuestionnaireResponse"):
        seal(make_content(standards=wrong), NOW)


def test_volumes_alone_may_have_standards(make_content: Make) -> None:
    given = StandardsContent(FORM, answered())
    bundle = seal(make_content(group=None, draw=None, questionnaire=None, cases=(), standards=given), NOW)
    assert [finding.check for finding in verify_submission(bundle)] == ["identifier"]


def test_what_is_corrected_is_a_submission(make_content: Make) -> None:
    with pytest.raises(SubmitError, match="replaces"):
        seal(make_content(replaces="2025"), NOW)


def test_only_what_an_approval_made_may_leave(ledger: Ledger, make_content: Make) -> None:
    key = new_signature_key("ES256")
    finish = Finish(key, LATER, approver_agent("0" * 64))
    bundle = seal(make_content(), NOW)
    held, name = canonical_json(bundle), str(bundle["identifier"]["value"])
    with ledger.begin() as connection:
        enqueue(connection, name, "2025", held, NOW, held=True)
        approve(connection, None, name, digest_bytes(held), by="chief", role="approver", at=LATER, finish=finish)
        hold_unapproved(connection)
        said, found = approval_of(connection, name), item(connection, name)
    assert said is not None
    assert found is not None
    assert (found.state, said.digest, said.sealed_digest) == ("queued", digest_bytes(held), digest_bytes(found.body))
    assert clears(said, found.body)
    assert not clears(said, held)  # the very bytes that were looked at name no approver: they are not what leaves
    assert json.loads(found.body)["identifier"] == bundle["identifier"]
    assert check_signature(json.loads(found.body), public_set(key)) == key.kid

    signed_by_another = Finish(new_signature_key("ES256"), LATER)(found.body)
    with ledger.begin() as connection:
        settle(connection, name, "held")
        enqueue(connection, name, "2025", signed_by_another, NOW)  # somebody puts other bytes there
        hold_unapproved(connection)
        again = item(connection, name)
    assert again is not None
    assert again.state == "held"
    with ledger.begin() as connection, pytest.raises(LedgerError, match="not the one that was looked at"):
        approve(connection, None, name, digest_bytes(held), by="chief", role="approver", at=LATER, finish=finish)


def test_what_is_held_again_is_held_without_its_earlier_approver(ledger: Ledger, make_content: Make) -> None:
    bundle = seal(make_content(), NOW)
    held, name = canonical_json(bundle), str(bundle["identifier"]["value"])
    finish = Finish(None, LATER, approver_agent("0" * 64))
    with ledger.begin() as connection:
        enqueue(connection, name, "2025", held, NOW, held=True)
        approve(connection, None, name, digest_bytes(held), by="chief", role="approver", at=LATER, finish=finish)
        settle(connection, name, "superseded")
        enqueue(connection, name, "2025", held, LATER, held=True)
        found = item(connection, name)
    assert found is not None
    assert (found.state, found.body) == ("held", held)


def test_what_was_refused_unsigned_is_signed_once_there_is_a_key(ledger: Ledger, make_content: Make) -> None:
    key = new_signature_key("ES256")
    bundle = seal(make_content(), NOW)
    body, name = canonical_json(bundle), str(bundle["identifier"]["value"])
    signed = Finish(key, LATER)(body)
    with ledger.begin() as connection:
        enqueue(connection, name, "2025", body, NOW)

        def stands() -> tuple[str, bytes]:
            sign_anew(connection, name, body, key)
            found = item(connection, name)
            assert found is not None
            return found.state, found.body

        assert stands() == ("queued", body)  # on its way as it is
        settle(connection, name, "rejected", "a signature is required")
        assert stands() == ("held", body)  # to be approved, which signs it
        settle(connection, name, "rejected", "another reason")
        put_body(connection, name, signed)
        assert stands() == ("rejected", signed)  # signed with that key already


def test_the_key_is_looked_at_before_it_is_used(tmp_path: Path) -> None:
    file = tmp_path / "signing-key.json"
    config = SubmissionConfig.model_validate({"url": "https://a.example", "signing_key": {"file": file}})
    assert signing_key(None) is None
    assert signature_words(config.model_copy(update={"signing_key": None})).startswith("submissions are not signed")
    with pytest.raises(ConfigError, match="cannot be read"):
        signing_key(config)
    put_owner_only(file, b"nonsense")
    with pytest.raises(ConfigError, match="cannot be used"):
        signing_key(config)
    file.unlink()
    key = new_signature_key("EdDSA")
    put_owner_only(file, json.dumps(key.as_dict(private=True)).encode())
    assert signature_words(config) == f"submissions are signed (EdDSA, kid {key.kid})"
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="others than its owner"):
        signing_key(config)
    with pytest.raises(FileExistsError):
        put_owner_only(file, b"another")


def test_a_finished_body_that_is_not_signed_has_no_signature_of_before(make_content: Make) -> None:
    body = canonical_json(seal(make_content(), NOW))
    signed = Finish(new_signature_key("ES256"), NOW)(body)
    assert b'"signature"' in signed
    assert Finish(None, NOW)(signed) == body
    assert replace(Finish(None, NOW), approver=approver_agent("1" * 64))(signed).count(b"NamingSystem/approver") == 1
