"""What is posted of a form is taken anew: whatever it holds, only the form's own words and bounded values come out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from io_fhir_adapter.errors import ReviewError
from io_fhir_adapter.review.completing import accept, completeness
from io_fhir_adapter.review.enabling import answered_values
from io_fhir_adapter.review.forms import enabled, items, load_questionnaire

Json = dict[str, Any]
SYSTEM = "urn:example:answers"
UNITS = "http://unitsofmeasure.org"
SECRET = "Mustermann"


def coding(code: str, **more: str) -> Json:
    return {"system": SYSTEM, "code": code, **more}


def choice(link: str, *codes: str, **more: Any) -> Json:
    options = [{"valueCoding": coding(code, display=f"The word {code}")} for code in codes]
    return {"linkId": link, "type": "choice", "text": f"Question {link}", "answerOption": options, **more}


def when(question: str, **condition: Any) -> Json:
    return {"enableWhen": [{"question": question, **condition}]}


YES = {"operator": "=", "answerCoding": coding("yes")}
ABSENCE = "https://io-fhir-adapter.example/fhir/StructureDefinition/absence-of"
UNIT = "http://hl7.org/fhir/StructureDefinition/questionnaire-unitOption"
FORM: Json = {
    "resourceType": "Questionnaire",
    "url": "urn:example:form",
    "version": "2",
    "item": [
        {
            "linkId": "head",
            "type": "group",
            "text": "Head",
            "item": [
                {"linkId": "no", "type": "integer", "readOnly": True, "text": "Number"},
                {"linkId": "words", "type": "display", "text": "Read this."},
            ],
        },
        {
            "linkId": "body",
            "type": "group",
            "text": "Body",
            "item": [
                choice("any", "yes", "no"),
                choice("which", "a", "b", "c", repeats=True, **when("any", **YES)),
                choice("why", "a", "b", **when("which", operator="exists", answerBoolean=True)),
                {"linkId": "days", "type": "integer", "text": "Days"},
                choice("days.absent", "unknown", extension=[{"url": ABSENCE, "valueString": "days"}],
                       **when("days", operator="exists", answerBoolean=False)),
                {"linkId": "ratio", "type": "decimal", "text": "Ratio", "extension": [
                    {"url": "http://hl7.org/fhir/StructureDefinition/minValue", "valueDecimal": 0},
                    {"url": "http://hl7.org/fhir/StructureDefinition/maxValue", "valueDecimal": 1}]},
                {"linkId": "dose", "type": "quantity", "text": "Dose", "extension": [
                    {"url": UNIT, "valueCoding": {"system": UNITS, "code": "mg", "display": "mg"}},
                    {"url": UNIT, "valueCoding": {"system": UNITS, "code": "mL", "display": "mL"}}]},
                {"linkId": "sure", "type": "boolean", "text": "Sure"},
                {"linkId": "on", "type": "date", "text": "On"},
                {"linkId": "moment", "type": "dateTime", "text": "Moment"},
                {"linkId": "at", "type": "time", "text": "At"},
                {"linkId": "note", "type": "text", "text": "Note", "maxLength": 40, "item": [
                    {"linkId": "help", "type": "display", "text": "No names."},
                    {"linkId": "note.kind", "type": "string", "text": "Kind"}]},
                {"linkId": "link", "type": "url", "text": "Link"},
                {"linkId": "file", "type": "attachment", "text": "File"},
            ],
        },
        {
            "linkId": "lesion",
            "type": "group",
            "repeats": True,
            "item": [{"linkId": "size", "type": "integer", "text": "Size"}],
        },
    ],
}  # fmt: skip
PREFILLED: Json = {
    "resourceType": "QuestionnaireResponse",
    "identifier": {"system": "urn:example:cases", "value": "P-1"},
    "questionnaire": "urn:example:form|2",
    "status": "in-progress",
    "subject": {"reference": "Patient/token"},
    "item": [{"linkId": "head", "item": [{"linkId": "no", "answer": [{"valueInteger": 7}]}]}],
}
HEAD = {name: PREFILLED[name] for name in ("resourceType", "identifier", "questionnaire", "status", "subject")}
BY_LINK = {item["linkId"]: item for item in items(FORM)}


def node(link: str, *values: Json, **more: Any) -> Json:
    return {"linkId": link, "answer": list(values), **more}


def posted(*body: Json, **more: Any) -> Json:
    return {"resourceType": "QuestionnaireResponse", "item": [{"linkId": "body", "item": list(body)}], **more}


def answers(response: Json) -> dict[str, list[Any]]:
    return answered_values(response)


def of(code: str) -> Json:
    return {"valueCoding": coding(code)}


def test_nothing_of_the_posted_head_or_of_its_trimmings_is_kept() -> None:
    given_any = node("any", {"valueCoding": coding("yes", display=SECRET, userSelected="x")}, text=SECRET, id=SECRET)
    made = accept(
        FORM,
        posted(
            given_any,
            identifier={"value": SECRET}, subject={"reference": f"Patient/{SECRET}"}, status="completed",
            meta={"tag": [{"code": "lformsVersion"}]}, questionnaire="urn:other", author={"display": SECRET},
            text={"div": SECRET}, extension=[{"url": "urn:x", "valueString": SECRET}], contained=[{"id": SECRET}],
        ),
        PREFILLED,
    )  # fmt: skip
    assert {name: made[name] for name in HEAD} == HEAD
    assert made.keys() == {*HEAD, "item"}
    assert SECRET not in json.dumps(made)
    assert answers(made)["any"] == [coding("yes", display="The word yes")]


def test_what_only_the_adapter_answers_stays_whatever_was_posted() -> None:
    made = accept(
        FORM,
        {
            "resourceType": "QuestionnaireResponse",
            "item": [{"linkId": "head", "item": [node("no", {"valueInteger": 8})]}],
        },
        PREFILLED,
    )
    assert answers(made) == {"no": [7]}


@pytest.mark.parametrize(
    ("link", "value", "words"),
    [
        ("any", of("maybe"), "any is none of the options"),
        ("any", {"valueCoding": {"system": "urn:other", "code": "yes"}}, "any is none of the options"),
        ("any", {"valueString": "yes"}, "any is none of the options"),
        ("days", {"valueInteger": 10_000}, "days is not between -9999 and 9999"),
        ("days", {"valueInteger": True}, "days is no whole number"),
        ("days", {"valueInteger": 1.5}, "days is no whole number"),
        ("days", {"valueString": "3"}, "days is no integer"),
        ("days", {"valueInteger": 1, "valueString": SECRET}, "days has several values in one answer"),
        ("ratio", {"valueDecimal": 1.5}, "ratio is not between 0 and 1"),
        ("ratio", {"valueDecimal": float("nan")}, "ratio is no number"),
        ("dose", {"valueQuantity": {"value": 5, "code": "kg", "system": UNITS}}, "dose has none of the form's units"),
        ("dose", {"valueQuantity": {"value": 5}}, "dose has none of the form's units"),
        ("dose", {"valueQuantity": {"value": 10**9, "code": "mg", "system": UNITS}}, "dose is not between"),
        ("dose", {"valueQuantity": "5 mg"}, "dose is no quantity"),
        ("sure", {"valueBoolean": "true"}, "sure is no boolean"),
        ("on", {"valueDate": "2025-02-30"}, "on is no date"),
        ("on", {"valueDate": f"2025-02-03 {SECRET}"}, "on is no date"),
        ("moment", {"valueDateTime": "2025-02-03T10:00"}, "moment is no date and time"),
        ("at", {"valueTime": "25:00:00"}, "at is no time"),
        ("note", {"valueString": SECRET * 5}, "note is longer than 40 characters"),
        ("note", {"valueString": [SECRET]}, "note is no text"),
        ("link", {"valueUri": f"http://x {SECRET}"}, "link is no address"),
        ("file", {"valueAttachment": {"url": SECRET}}, "file is a attachment, which is not taken here"),
        ("any", SECRET, "any is no answer"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_its_linkid_and_never_by_its_value(link: str, value: Any, words: str) -> None:
    with pytest.raises(ReviewError) as caught:
        accept(FORM, posted(node(link, value)), PREFILLED)
    assert words in caught.value.sentence
    assert SECRET not in caught.value.sentence


@pytest.mark.parametrize(
    ("link", "value", "kept"),
    [
        ("days", {"valueInteger": 9_999}, 9_999),
        ("dose", {"valueQuantity": {"value": 2.5, "unit": "mL"}},
         {"value": 2.5, "unit": "mL", "system": UNITS, "code": "mL"}),
        ("on", {"valueDate": "2025-02"}, "2025-02"),
        ("moment", {"valueDateTime": "2025-02-03T10:00:00.000+01:00"}, "2025-02-03T10:00:00.000+01:00"),
        ("at", {"valueTime": "09:30"}, "09:30:00"),
        ("note", {"valueString": "  two\r\nlines\x00 "}, "two\nlines"),
    ],
)  # fmt: skip
def test_what_fits_is_kept_in_the_forms_own_way(link: str, value: Json, kept: Any) -> None:
    assert answers(accept(FORM, posted(node(link, value)), PREFILLED))[link] == [kept]


@pytest.mark.parametrize("value", [None, {}, {"valueString": " \n "}, {"valueString": None}])
def test_an_empty_answer_is_none(value: Any) -> None:
    given_note = node("note", value) if value is not None else {"linkId": "note"}
    assert "note" not in answers(accept(FORM, posted(given_note), PREFILLED))


def test_several_answers_only_where_the_form_repeats() -> None:
    both = posted(node("any", of("yes")), node("which", of("a"), of("c")))
    assert [one["code"] for one in answers(accept(FORM, both, PREFILLED))["which"]] == ["a", "c"]
    for wrong, words in (
        (posted(node("any", of("yes"), of("no"))), "any has more answers than the form takes"),
        (posted(node("any", of("yes")), node("any", of("no"))), "any stands there more than once"),
        (posted(node("any", of("yes")), node("which", of("a"), of("a"))), "which has the same answer twice"),
    ):
        with pytest.raises(ReviewError, match=words):
            accept(FORM, wrong, PREFILLED)


def test_a_repeated_group_keeps_its_members_apart() -> None:
    sizes = [{"linkId": "lesion", "item": [node("size", {"valueInteger": size})]} for size in (3, 5)]
    made = accept(FORM, {"resourceType": "QuestionnaireResponse", "item": sizes}, PREFILLED)
    assert [one for one in made["item"] if one["linkId"] == "lesion"] == sizes


def test_the_answers_of_disabled_items_are_dropped_and_of_those_that_hang_on_them() -> None:
    hidden = posted(
        node("any", of("no")), node("which", of("a")), node("why", of("b")), node("days", {"valueInteger": 1})
    )
    assert answers(accept(FORM, hidden, PREFILLED)).keys() == {"no", "any", "days"}
    shown = posted(node("any", of("yes")), node("which", of("a")), node("why", of("b")))
    assert answers(accept(FORM, shown, PREFILLED)).keys() == {"no", "any", "which", "why"}


def test_an_items_own_questions_are_kept_with_its_answer_alone() -> None:
    inner = {"item": [node("note.kind", {"valueString": "kind"})]}
    made = answers(accept(FORM, posted(node("note", {"valueString": "a note", **inner})), PREFILLED))
    assert (made["note"], made["note.kind"]) == (["a note"], ["kind"])
    assert "note.kind" not in answers(accept(FORM, posted({"linkId": "note", **inner}), PREFILLED))


@pytest.mark.parametrize(
    "strange",
    [None, [], SECRET, {}, {"resourceType": "Patient"}, posted({"linkId": SECRET}), posted({"linkId": "no"}),
     {"resourceType": "QuestionnaireResponse", "item": [SECRET]}],
)  # fmt: skip
def test_what_is_no_answer_to_this_form_is_refused(strange: Any) -> None:
    with pytest.raises(ReviewError) as caught:
        accept(FORM, strange, PREFILLED)
    assert SECRET not in caught.value.sentence


def test_what_is_open_is_what_a_person_has_to_answer() -> None:
    open_now = completeness(FORM, PREFILLED)
    assert [one.link_id for one in open_now] == ["any", "days", "ratio", "dose", "sure", "on", "moment", "at", "size"]
    assert {one.group for one in open_now[:-1]} == {"Body"}
    said = accept(FORM, posted(node("any", of("yes")), node("days.absent", of("unknown"))), PREFILLED)
    left = [one.link_id for one in completeness(FORM, said)]
    assert "days" not in left
    assert "which" in left
    assert "why" not in left


def test_the_shipped_form_asks_for_no_text_and_takes_a_reason_for_a_missing_value() -> None:
    form = load_questionnaire()
    links = [one.link_id for one in completeness(form, {})]
    assert "rev.complete" in links
    assert "rev.action" not in links
    assert not [link for link in links if link.endswith(".absent") or link in ("case.no", "case.pseudonym")]


# Whatever is posted.

SCALARS = st.none() | st.booleans() | st.integers(-20_000, 20_000) | st.floats() | st.text(max_size=50)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
CODINGS = st.fixed_dictionaries(
    {"code": st.sampled_from(["yes", "no", "a", "b", "c", "unknown", "zzz"])},
    optional={"system": st.sampled_from([SYSTEM, "urn:other"]), "display": st.text(max_size=9), "extension": ANYTHING},
)
QUANTITIES = st.fixed_dictionaries(
    {"value": st.integers(-10, 10) | st.floats() | ANYTHING},
    optional={"code": st.sampled_from(["mg", "mL", "kg"]), "system": st.just(UNITS), "unit": st.sampled_from(["mg"])},
)
VALUES = st.one_of(
    st.fixed_dictionaries({"valueCoding": CODINGS | ANYTHING}),
    st.fixed_dictionaries({"valueInteger": st.integers() | ANYTHING}),
    st.fixed_dictionaries({"valueDecimal": st.floats() | ANYTHING}),
    st.fixed_dictionaries({"valueQuantity": QUANTITIES | ANYTHING}),
    st.fixed_dictionaries({"valueBoolean": st.booleans() | ANYTHING}),
    st.fixed_dictionaries({"valueString": st.text(max_size=60)}),
    st.fixed_dictionaries({"valueDate": st.dates().map(str) | st.text(max_size=10)}),
    st.fixed_dictionaries({"valueTime": st.times().map(str) | st.text(max_size=10)}),
    ANYTHING,
)
FITTING = {
    "integer": st.fixed_dictionaries({"valueInteger": st.integers(-9_999, 9_999)}),
    "decimal": st.fixed_dictionaries({"valueDecimal": st.floats(0, 1)}),
    "quantity": st.fixed_dictionaries(
        {"valueQuantity": st.fixed_dictionaries({"value": st.integers(-10, 10), "unit": st.just("mg")})}
    ),
    "boolean": st.fixed_dictionaries({"valueBoolean": st.booleans()}),
    "text": st.fixed_dictionaries({"valueString": st.text(max_size=40)}),
    "date": st.fixed_dictionaries({"valueDate": st.dates().map(str)}),
}


def fitting(asked: Json) -> st.SearchStrategy[Any]:
    """Answers that a person could give to an item, with what browsers add."""
    if asked["type"] == "choice":
        codes = [option["valueCoding"]["code"] for option in asked["answerOption"]]
        return st.sampled_from(codes).map(lambda code: {"valueCoding": coding(code, display=SECRET)})
    return FITTING.get(asked["type"], st.just({}))


@st.composite
def nodes(draw: st.DrawFn, asked: Json, wild: bool) -> Any:
    values = VALUES if wild else fitting(asked)
    many = draw(st.lists(values, min_size=1, max_size=3 if wild or asked.get("repeats") else 1, unique_by=repr))
    made: Json = {"linkId": asked["linkId"], "answer": many}
    if draw(st.booleans()):
        made |= {"text": SECRET, "extension": [{"valueString": SECRET}], "definition": SECRET}
    return made


@st.composite
def documents(draw: st.DrawFn) -> Any:
    wild = draw(st.booleans())
    groups = []
    for link in ("head", "body", "lesion"):
        asked = BY_LINK[link]["item"]
        chosen = draw(st.lists(st.sampled_from(asked), min_size=len(asked) // 2, unique_by=lambda one: one["linkId"]))
        groups.append({"linkId": link, "text": SECRET, "item": [draw(nodes(one, wild)) for one in chosen]})
    return {
        "resourceType": "QuestionnaireResponse", "identifier": SECRET, "subject": SECRET, "meta": SECRET,
        "item": groups,
        **draw(st.dictionaries(st.sampled_from(["status", "id", "source", "_status"]), ANYTHING, max_size=2)),
    }  # fmt: skip


def below(node_: Json) -> Iterator[Json]:
    for item in node_.get("item", ()):
        yield item
        yield from below(item)
        for answer in item.get("answer", ()):
            yield from below(answer)


KINDS: dict[str, tuple[str, Any]] = {
    "choice": ("valueCoding", dict), "integer": ("valueInteger", int), "decimal": ("valueDecimal", (int, float)),
    "quantity": ("valueQuantity", dict), "boolean": ("valueBoolean", bool), "date": ("valueDate", str),
    "dateTime": ("valueDateTime", str), "time": ("valueTime", str), "text": ("valueString", str),
    "string": ("valueString", str), "url": ("valueUri", str),
}  # fmt: skip


def check(made: Json) -> None:
    assert {name: made[name] for name in HEAD} == HEAD
    assert made.keys() <= {*HEAD, "item"}
    assert SECRET not in json.dumps(made)
    said = answers(made)
    for item in below(made):
        assert item.keys() <= {"linkId", "answer", "item"}
        asked = BY_LINK[item["linkId"]]
        assert enabled(asked, said)
        assert len(item.get("answer", ())) <= (50 if asked.get("repeats") else 1)
        for answer in item.get("answer", ()):
            name, kind = KINDS[asked["type"]]
            assert answer.keys() <= {name, "item"}
            value = answer[name]
            assert isinstance(value, kind)
            if asked["type"] == "choice":
                assert {"valueCoding": value} in asked["answerOption"]
            if asked["type"] in ("integer", "decimal"):
                assert abs(value) <= 9_999
            if asked["type"] == "quantity":
                assert value.keys() == {"value", "unit", "system", "code"}
            if isinstance(value, str):
                assert 0 < len(value) <= 255
    assert accept(FORM, made, PREFILLED) == made


@settings(max_examples=150)
@given(document=documents())
def test_whatever_is_posted_only_the_forms_own_comes_out_and_stays_as_it_is(document: Any) -> None:
    try:
        check(accept(FORM, document, PREFILLED))
    except ReviewError as exc:
        assert SECRET not in exc.sentence  # noqa: PT017 - only one of two ways it may go


@settings(max_examples=60)
@given(document=ANYTHING)
def test_any_json_at_all_is_refused_or_gives_the_empty_form(document: Any) -> None:
    with pytest.raises(ReviewError):
        accept(FORM, document, PREFILLED)
    wrapped = {"resourceType": "QuestionnaireResponse", "item": document}
    try:
        check(accept(FORM, wrapped, PREFILLED))
    except ReviewError as exc:
        assert "posted items are not of this form" in exc.sentence  # noqa: PT017 - only one of two ways it may go
