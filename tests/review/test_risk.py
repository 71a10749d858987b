from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class
from hypothesis import given
from hypothesis import strategies as st

from io_fhir_adapter.canonical_urls import AGE_BAND, DAY_OFFSET, GENERALISED, QUARTER
from io_fhir_adapter.model import Indication, PatientFact
from io_fhir_adapter.review.cases import PreparedCase
from io_fhir_adapter.review.draw import Frame, Session
from io_fhir_adapter.review.forms import INITIAL_EXPRESSION, VARIABLE
from io_fhir_adapter.review.generalise import AGE_BANDS, wide_age_band
from io_fhir_adapter.review.profile import RiskRule, Step, load_profile
from io_fhir_adapter.review.risk import FrameClasses, Quasi, Risk, coarsened, frame_classes, tumour_group
from io_fhir_adapter.review.telling import telling_items

RULE = load_profile().risk
STEPS: tuple[Step, ...] = ("widen-age", "drop-quarter", "drop-age", "drop-sex", "drop-tumour-group")


def rule(k: int) -> RiskRule:
    return RiskRule(k, STEPS, {})


def classes(*sessions: tuple[str, str, str, str, str]) -> FrameClasses:
    """One patient per tuple of age, sex, category, tumour, quarter; patient n is called n."""
    return FrameClasses({
        str(number): {("2025-01-01", session[2]): Quasi(*session)} for number, session in enumerate(sessions)
    })  # fmt: skip


def test_the_shipped_order_is_the_stated_one() -> None:
    assert RULE.k == 3
    assert RULE.steps == STEPS


def test_a_case_with_enough_look_alikes_leaves_as_it_is() -> None:
    alike = ("60-69", "male", "tace", "C22", "2025-Q1")
    risk = classes(alike, alike, alike).measure(1, "0", "2025-01-01", "tace", rule(3))
    assert risk == Risk(1, 3, 3, (), holds=True)


def test_steps_are_taken_in_order_until_enough_look_alike() -> None:
    frame = classes(
        ("60-69", "male", "tace", "C22", "2025-Q1"),
        ("70-79", "male", "tace", "C22", "2025-Q1"),
        ("70-79", "male", "tace", "C22", "2025-Q3"),
        ("40-49", "female", "tace", "C18", "2025-Q3"),
    )
    made = [frame.measure(1, "0", "2025-01-01", "tace", rule(k)) for k in (1, 2, 3, 4)]
    assert [risk.steps for risk in made] == [(), STEPS[:1], STEPS[:2], STEPS]
    assert [(risk.before, risk.alike, risk.holds) for risk in made] == [
        (1, 1, True), (1, 2, True), (1, 3, True), (1, 4, True)
    ]  # fmt: skip


def test_a_case_that_stays_rare_is_flagged() -> None:
    frame = classes(("60-69", "male", "tace", "C22", "2025-Q1"), ("60-69", "male", "tare", "C22", "2025-Q1"))
    risk = frame.measure(7, "0", "2025-01-01", "tace", rule(2))
    assert risk == Risk(7, 1, 1, STEPS, holds=False)
    assert risk.to_json() == {"case": 7, "before": 1, "alike": 1, "steps": list(STEPS)}


def test_a_session_that_left_the_frame_is_flagged() -> None:
    assert not classes().measure(1, "9", "2025-01-01", "tace", rule(1)).holds


def test_a_patient_counts_once_however_many_sessions_look_alike() -> None:
    quasi = Quasi("60-69", "male", "tace", "C22", "2025-Q1")
    frame = FrameClasses({"0": {("2025-01-01", "tace"): quasi, ("2025-02-01", "tace"): quasi}})
    assert frame.size(quasi, ()) == 1


values = st.tuples(
    st.sampled_from(AGE_BANDS), st.sampled_from(["male", "female", ""]), st.sampled_from(["tace", "tare"]),
    st.sampled_from(["C22", "C18"]), st.sampled_from(["2025-Q1", "2025-Q2"]),
)  # fmt: skip


@given(st.lists(values, min_size=1, max_size=30), st.integers(1, 5))
def test_each_step_only_makes_classes_larger_and_the_shortest_run_is_taken(
    sessions: list[tuple[str, str, str, str, str]], k: int
) -> None:
    frame = classes(*sessions)
    quasi = Quasi(*sessions[0])
    sizes = [frame.size(quasi, STEPS[:number]) for number in range(len(STEPS) + 1)]
    assert sizes == sorted(sizes)
    risk = frame.measure(1, "0", "2025-01-01", quasi.category, rule(k))
    enough = [number for number, size in enumerate(sizes) if size >= k]
    assert len(risk.steps) == (enough[0] if enough else len(STEPS))
    assert risk.holds == bool(enough)
    # counted the slow way
    after = quasi.after(risk.steps)
    assert risk.alike == sum(Quasi(*session).after(risk.steps) == after for session in sessions)


@pytest.mark.parametrize(("band", "wide"), [("<18", "<18"), ("18-39", "18-59"), ("50-59", "18-59"), ("90+", "80+")])
def test_wide_age_bands(band: str, wide: str) -> None:
    assert wide_age_band(band) == wide


def test_the_frames_facts_become_what_a_session_says() -> None:
    sessions = (Session("2025-03-02", "tace", ("Procedure/1",)),)
    frame = Frame("2025-01-01", "2025-12-31", {"Patient/1": sessions, "Patient/2": sessions})
    people = {"Patient/1": [PatientFact("a", "1", gender=""), PatientFact("b", "8", "female", "1951-07-02")]}
    made = frame_classes(frame, people, {("Patient/1", "2025-03-02", "tace"): "C22"}).sessions
    key = ("2025-03-02", "tace")
    assert made["Patient/1"][key] == Quasi("70-79", "female", "tace", "C22", "2025-Q1")
    assert made["Patient/2"][key] == Quasi("", "", "tace", "", "2025-Q1")
    assert "1951" not in repr(frame_classes(frame, people, {}))


def test_tumour_groups_are_icd_groups_or_kind_and_organ() -> None:
    assert tumour_group(Indication("condition", "icd10", "C22.0", "malignant"), lambda _: "liver") == "C22"
    snomed = Indication("condition", "snomed", "109841003", "malignant")
    assert tumour_group(snomed, lambda _: "liver") == "malignant liver"
    assert tumour_group(Indication("code"), lambda _: "") == ""


def prepared() -> PreparedCase:
    subject = {"reference": "Patient/t"}
    return PreparedCase(
        number=1,
        token="t",
        patient={
            "resourceType": "Patient", "gender": "male", "extension": [{"url": AGE_BAND, "valueCode": "70-79"}]
        },
        procedures=({
            "resourceType": "Procedure", "status": "completed", "subject": subject,
            "extension": [{"url": QUARTER, "valueCode": "2025-Q1"}, {"url": DAY_OFFSET, "valueInteger": 0}],
        },),
        encounters=(),
        conditions=({"resourceType": "Condition", "subject": subject, "code": {"coding": [{"code": "C22"}]}},),
        response={
            "resourceType": "QuestionnaireResponse", "status": "in-progress",
            "item": [
                {"linkId": "header", "item": [
                    {"linkId": "case.age-band", "answer": [{"valueCoding": {"code": "70-79"}}]},
                    {"linkId": "case.sex", "answer": [{"valueCoding": {"code": "male"}}]},
                ]},
                {"linkId": "proc", "item": [
                    {"linkId": "proc.quarter", "answer": [{"valueCoding": {"code": "quarter-1"}}]},
                    {"linkId": "proc.category", "answer": [{"valueCoding": {"code": "tace"}}]},
                    {"linkId": "dx.tumour", "answer": [{"valueCoding": {"code": "tumour-liver"}}]},
                ]},
            ],
        },
        sources={},
        missing={},
    )  # fmt: skip


def said(case: PreparedCase) -> set[str]:
    found: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            for value in node.values():
                walk(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                walk(value)
        elif isinstance(node, str):
            found.add(node)

    for part in (case.patient, case.procedures, case.conditions, case.response):
        walk(part)
    return found


@pytest.mark.parametrize(
    ("step", "gone"),
    [
        ("widen-age", {"70-79", "case.age-band"}),
        ("drop-age", {"70-79", "case.age-band", AGE_BAND}),
        ("drop-sex", {"male", "case.sex"}),
        ("drop-quarter", {"2025-Q1", "quarter-1", QUARTER, "proc.quarter"}),
        ("drop-tumour-group", {"C22", "tumour-liver", "dx.tumour"}),
    ],
)
def test_what_a_step_names_is_gone_from_resources_and_form_alike(step: Step, gone: set[str]) -> None:
    case = prepared()
    made = coarsened(case, Risk(1, 1, 3, (step,), holds=True), RULE)
    assert gone <= said(case)
    assert gone & said(made) == set()
    assert made.response["meta"]["tag"] == [{"system": GENERALISED, "code": step}]
    assert "tace" in said(made)
    for resource in (made.patient, *made.procedures, *made.conditions, made.response):
        get_fhir_model_class(resource["resourceType"]).model_validate(
            {**resource, "questionnaire": "urn:q"} if "item" in resource else resource
        )
    assert prepared() == case


def test_a_group_without_items_goes_too_and_no_steps_change_nothing() -> None:
    case = prepared()
    made = coarsened(case, Risk(1, 1, 3, ("drop-sex", "drop-age"), holds=True), RULE)
    assert [item["linkId"] for item in made.response["item"]] == ["proc"]
    assert "extension" not in made.patient
    assert coarsened(case, Risk(1, 3, 3, (), holds=True), RULE) is case


def test_one_person_under_two_records_is_not_two_who_look_alike() -> None:
    session = Session("2025-05-06", "tace", ("Procedure/a",))
    frame = Frame("2025-01-01", "2025-12-31", dict.fromkeys(("Patient/1", "Patient/2", "Patient/3"), (session,)))
    people = {
        name: [PatientFact(source="s", id=name[-1], gender="female", birth_date="1950-01-01")]
        for name in ("Patient/2", "Patient/3")
    }
    tumours = {(name, "2025-05-06", "tace"): "C22" for name in people}
    classes = frame_classes(frame, people, tumours, {"Patient/1": "Patient/2"})
    of_two = [classes.measure(1, name, "2025-05-06", "tace", rule(2)) for name in ("Patient/1", "Patient/2")]
    assert [risk.alike for risk in of_two] == [2, 2]


def test_a_bodys_own_form_is_made_coarser_by_what_its_items_are_answered_from() -> None:
    def extension(url: str, **expression: str) -> dict[str, Any]:
        return {"url": url, "valueExpression": {"language": "text/fhirpath", **expression}}

    def item(link: str, expression: str) -> dict[str, Any]:
        return {"linkId": link, "type": "choice", "extension": [extension(INITIAL_EXPRESSION, expression=expression)]}

    form = {
        "extension": [
            extension(VARIABLE, name="known", expression="%session.parameter"),
            extension(VARIABLE, name="organ", expression="%known.where(name = 'indication-organ').value"),
        ],
        "item": [
            {"linkId": "1", "type": "group", "item": [
                item("1.1", "%patient.gender"),
                item("1.2", "%session.parameter.where(name = 'age-band').value"),
                item("1.3", "iif(%organ = 'liver', 'x', {})"),
                item("1.4", "%known.where(name = 'category').value"),
            ]},
            item("2", "%known.where(name = 'quarter').value.substring(6)"),
            {"linkId": "3", "type": "text"},
        ],
    }  # fmt: skip
    telling = telling_items(form)
    assert telling == {"1.1": {"sex"}, "1.2": {"age"}, "1.3": {"tumour-group"}, "2": {"quarter"}}
    answer = [{"valueCoding": {"system": "urn:x", "code": "y"}}]
    inner = [{"linkId": f"1.{number}", "answer": answer} for number in range(1, 5)]
    response = {"resourceType": "QuestionnaireResponse", "item": [{"linkId": "1", "item": inner}]}
    case = replace(prepared(), response=response)
    made = coarsened(case, Risk(1, 1, 3, STEPS, holds=True), RULE, telling)
    assert made.response["item"] == [{"linkId": "1", "item": [inner[3]]}]
