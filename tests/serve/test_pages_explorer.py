"""Looking through the decisions: what the pages say, to whom, and that they never say whose a decision is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher
from tests.classify.test_reason_words import reasons
from tests.serve.house import House, house_in, words

from io_fhir_adapter.classify.trail import programme_step, unit_step
from io_fhir_adapter.ledger.explored import Chosen, decisions_alike, handle_key, listed
from io_fhir_adapter.ledger.facts import decisions_between, every_procedure
from io_fhir_adapter.model import TrailStep
from io_fhir_adapter.serve.language import translator
from io_fhir_adapter.serve.pages.explorer_words import Names, steps_in

READERS = ("vogt", "weber", "lang")
IDS = re.compile(r"pat-|prc-|Patient/|Procedure/\w")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, hasher: PasswordHasher) -> Iterator[House]:
    with house_in(tmp_path_factory.mktemp("house"), hasher) as made:
        yield made


def path_of(house: House, query: str) -> str:
    found = re.search(r'class="open" href="([^"]+)"', house.page(f"/decisions?{query}"))
    assert found is not None
    return found[1]


def test_every_decision_is_listed_by_what_the_address_asks_for(house: House) -> None:
    for account in READERS:
        page = house.page("/decisions", account)
        assert IDS.search(page) is None
        assert "1 to 50 of 69" in words(page)
    assert "counted 1 " in house.text("/decisions?year=2025")
    text = house.text("/decisions?decision=review&year=2024")
    assert "1 to 1 of 1" in text
    assert "1 July 2024 Microwave ablation for review no indication recorded" in text
    assert "1 to 50 of 60" in house.text("/decisions?category=none&reason=look-alike&year=2025")
    assert "1 to 1 of 1" in house.text("/decisions?year=undated")
    assert "No decision is like that" in house.text("/decisions?year=2019")
    odd = "/decisions?year=20%27&category=%3Cscript%3E&decision=x&reason=%00&page=-3"
    assert "1 to 50 of 69" in house.text(odd)
    assert house.at("adler").get("/decisions").status_code == 403


def test_pages_of_fifty_hold_every_decision_once_with_its_filters_kept(house: House) -> None:
    seen: Counter[str] = Counter()
    for number in (1, 2):
        seen.update(
            re.findall(r'class="open" href="([^"]+)"', house.page(f"/decisions?reason=look-alike&page={number}"))
        )
    assert (len(seen), set(seen.values())) == (60, {1})
    second = house.page("/decisions?reason=look-alike&page=2")
    assert 'rel="prev" href="/decisions?reason=look-alike"' in second
    assert 'rel="next"' not in second
    assert "51 to 60 of 60" in house.text("/decisions?reason=look-alike&page=99")


def test_a_decision_is_explained_rule_by_rule_without_saying_whose_it_is(house: House) -> None:
    path = path_of(house, "decision=counted&year=2025")
    for account in READERS:
        page = house.page(path, account)
        assert IDS.search(page) is None
        text = words(page)
        assert "4 March 2025 · counted: it meets every rule of the programme" in text
        assert "Session 2 recorded on 4 March 2025" in text
        assert "Procedure 2 adds nothing: stopped" in text
        assert "malignant tumour, icd10 C22.0, stated as the reason (Procedure 1)" in text
        assert "ops 5-501.a3 microwave, liver, percutaneous codes/ops.csv:" in text
        assert "programme:iasios:counts.ablation-mwa" in text
        assert ("Show identity" in text) == (account == "weber")
    german = house.text(path, headers={"Accept-Language": "de"})
    assert "04.03.2025 · " in german
    assert "bösartiger Tumor, icd10 C22.0, als Grund genannt (Prozedur 1)" in german
    assert house.at("adler").get(path).status_code == 403


def test_a_reviewer_sees_the_identity_on_demand_and_each_look_is_noted(house: House) -> None:
    path = path_of(house, "decision=counted&year=2025")
    house.page(path, "weber")
    before = house.audit()
    answer = house.at("weber").fill(path, {}, f"{path}/identity")
    assert answer.status_code == 200
    for shown in ("Patient/pat-ana", "Procedure/prc-one", "Procedure/prc-two adds nothing"):
        assert shown in words(answer.text)
    assert house.audit()[len(before) :] == [("weber", "R", f"Decision/{path.rsplit('/', 1)[1]}", "identity")]
    for account in ("vogt", "lang"):
        assert house.at(account).fill("/decisions", {}, f"{path}/identity").status_code in (403, 404)
        token = house.at(account).token(path)
        assert house.at(account).post(f"{path}/identity", {"csrf": token}).status_code == 403
    assert house.at("weber").post(f"{path}/identity").status_code == 403  # without the form's token
    assert len([one for one in house.audit() if one[3] == "identity"]) == 1


def test_a_record_leads_to_its_decision_and_the_search_is_noted_without_the_id(house: House) -> None:
    path = path_of(house, "decision=counted&year=2025")
    answer = house.at("weber").fill("/decisions", {"record": " Procedure/prc-two "}, "/decisions/find")
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    assert house.audit()[-1][3] == "looked for by the id of a record"
    lost = house.at("weber").fill("/decisions", {"record": "prc-knee-1"}, "/decisions/find")
    assert lost.status_code == 404
    assert "No decision rests on such a record" in words(lost.text)
    assert house.audit()[-1][2:] == ("Decision", "looked for by the id of a record, not found")
    token = house.at("vogt").token("/decisions")
    assert house.at("vogt").post("/decisions/find", {"csrf": token, "record": "prc-two"}).status_code == 403


def test_an_address_of_a_decision_that_is_gone_says_so(house: House) -> None:
    path = path_of(house, "decision=counted&year=2025")
    for wrong in (f"{path[:-1]}x", path.replace("2025-03-04", "2025-03-05"), "/decisions/undated/0"):
        assert "There is no such decision any more" in house.text(wrong, status=404)


def test_handles_are_another_ledgers_secret_and_the_same_every_time(
    house: House, tmp_path_factory: pytest.TempPathFactory, hasher: PasswordHasher
) -> None:
    def handles(one: House) -> list[str]:
        key = handle_key(one.ledger)
        with one.ledger.read() as connection:
            return [line.handle for line in listed(connection, Chosen(), key, first=0, most=99)]

    assert handles(house) == handles(house)
    assert len(set(handles(house))) == 69
    with house_in(tmp_path_factory.mktemp("other"), hasher) as other:
        assert set(handles(house)).isdisjoint(handles(other))


def test_decisions_are_counted_from_the_index_as_from_the_decisions_themselves(house: House) -> None:
    with house.ledger.read() as connection:
        for start, end in (("2025-01-01", "2025-12-31"), ("2024-01-01", "2024-12-31")):
            one_by_one = Counter(
                (one.date, one.category, one.decision, one.reason) for one in decisions_between(connection, start, end)
            )
            alike = {
                (one.date, one.category, one.decision, one.reason): number
                for one, number in decisions_alike(connection, start, end)
            }
            assert alike == one_by_one
        assert sum(number for _, number in decisions_alike(connection)) == 69
        ids = [fact.id for fact in every_procedure(connection)]
        assert (len(ids), ids) == (82, sorted(set(ids)))
        assert len(list(every_procedure(connection, unmapped_only=True))) == 6


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_sentence_of_a_trail_has_words_and_no_record_id(language: str) -> None:
    sentences = [
        unit_step("p", each=True), unit_step("p", each=False),
        *(programme_step("p", "tace", counts) for counts in ("yes", "review", "no")),
        TrailStep("session", "", "2 Procedure(s) on an unknown date"),
        TrailStep("session", "", "2 Procedure(s) on 2025-01-02, one treatment recorded by two systems, also on "
                                 "2025-01-03"),
        TrailStep("status", "", "Procedure/12 is in-progress, ended on 2025-01-02 and is taken for completed"),
        TrailStep("part-of", "", "Procedure/1 is part of a Procedure that is not there or was not completed"),
        TrailStep("indication", "", "no diagnosis that explains it was found"),
        TrailStep("indication", "", "other, icd10 K70.3, from condition in Condition/c.1; not stated as the reason "
                                    "and not the likely one"),
        TrailStep("also", "", "biopsy: category-not-counted"),
        TrailStep("category", "", "tace: Chemoembolisation"),
        TrailStep("decision", "", "not-counted: look-alike"),
        TrailStep("scope", "", "Procedure/12 is included, by Procedure.location"),
        TrailStep("scope", "", "Procedure/12 is excluded, by Procedure.location, Encounter.location"),
        TrailStep("scope", "", "Procedure/12 is not excluded, by Encounter.location"),
        TrailStep("scope", "", "Procedure/12 is none of those included, by Procedure.location"),
        TrailStep("scope", "", "Procedure/12 and its Encounter do not say whether it is within (location); taken as "
                               "unknown"),
        TrailStep("scope", "", "Procedure/12 says nothing of it and stands with Procedure/1, which it is part of"),
        TrailStep("decision", "scope", "review: scope-unknown; without the scope counted: counted"),
    ]  # fmt: skip
    t = translator(language)
    names = Names(["Procedure/1", "Procedure/12"], lambda number: t("decisions.record", number=number), open=False)
    said = steps_in(t, sentences, names, {"category": str.upper, "day": str})
    assert [step.text for step in said if step.english] == []
    assert not any(re.search(r"\w/\w", step.text) for step in said)
    assert said[7].text.startswith(t("decisions.record", number=2))
    assert len({step.text for step in said}) == len(said)
    other = steps_in(t, [TrailStep("code", "", "Procedure/12 is a sentence of its own")], names, {})
    assert (other[0].english, other[0].text.partition(" is")[0]) == (True, t("decisions.record", number=2))


def test_every_reason_is_told_in_a_sentence_in_both_languages() -> None:
    assert len(reasons()) > 20
    for language in ("en", "de"):
        t = translator(language)
        assert len({t(f"decisions.why.{reason}") for reason in reasons()}) == len(reasons())
        assert len({t(f"approval.reasons.{reason}") for reason in reasons()}) == len(reasons())
