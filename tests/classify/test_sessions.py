"""Sessions: what is one, what is two, and what joins what."""

from __future__ import annotations

from typing import Any

from io_fhir_adapter.model import Decision, EncounterFact

HIS, RIS = "urn:example:his", "urn:example:ris"


def dates(decisions: list[Decision]) -> list[tuple[str, str, str]]:
    return [(decision.date, decision.category, decision.decision) for decision in decisions]


def test_one_day_is_one_session_and_two_days_are_two(make: Any) -> None:
    same = make.procedures("ops:8-836.ka + ops:8-541.6", stated="C22.0")
    assert len(make.decide(same)) == 1
    next_day = make.procedures("ops:8-836.ka + ops:8-541.6", day="2025-03-15", stated="C22.0", prefix="y")
    assert dates(make.decide([*same, *next_day])) == [
        ("2025-03-14", "tace", "counted"),
        ("2025-03-15", "tace", "counted"),
    ]


def test_two_systems_one_day_apart_recorded_one_session(make: Any) -> None:
    ris = make.procedures("sct:609232008", day="2025-03-14", stated="C22.0", prefix="r", origin=RIS)
    his = make.procedures("ops:5-501.a3 + ops:5-98h.2", day="2025-03-15", stated="C22.0", prefix="h", origin=HIS)
    (decision,) = make.decide([*ris, *his])
    assert (decision.date, decision.category, decision.decision) == ("2025-03-14", "ablation-mwa", "counted")
    assert decision.procedures == ("Procedure/h1", "Procedure/h2", "Procedure/r1")
    assert "also on 2025-03-15" in decision.trail[0].text


def test_one_of_two_systems_may_name_no_energy(make: Any) -> None:
    ris = make.procedures("pcs:0F503ZZ", day="2025-03-15", stated="C22.0", prefix="r", origin=RIS)
    his = make.procedures("ops:5-501.a3", day="2025-03-14", stated="C22.0", prefix="h", origin=HIS)
    (decision,) = make.decide([*ris, *his])
    assert decision.categories == ("ablation-mwa",)


def test_two_systems_may_each_hold_a_part_of_a_chemoembolisation(make: Any) -> None:
    ris = make.procedures("ops:8-836.ka", day="2025-03-14", stated="C22.0", prefix="r", origin=RIS)
    his = make.procedures("pcs:3E06305", day="2025-03-15", stated="C22.0", prefix="h", origin=HIS)
    assert [decision.category for decision in make.decide([*ris, *his])] == ["tace"]


def test_two_systems_two_days_apart_are_two(make: Any) -> None:
    ris = make.procedures("ops:5-501.a3", day="2025-03-14", stated="C22.0", prefix="r", origin=RIS)
    his = make.procedures("ops:5-501.a3", day="2025-03-16", stated="C22.0", prefix="h", origin=HIS)
    assert len(make.decide([*ris, *his])) == 2


def test_two_systems_that_recorded_different_things_are_two(make: Any) -> None:
    ris = make.procedures("ops:5-501.a3", day="2025-03-14", stated="C22.0", prefix="r", origin=RIS)
    his = make.procedures("ops:5-839.90", day="2025-03-15", stated="C79.5", prefix="h", origin=HIS)
    assert len(make.decide([*ris, *his])) == 2


def test_different_organs_on_neighbouring_days_are_two(make: Any) -> None:
    ris = make.procedures("ops:5-501.a3", day="2025-03-14", stated="C78.7", prefix="r", origin=RIS)
    his = make.procedures("ops:5-339.26", day="2025-03-15", stated="C78.0", prefix="h", origin=HIS)
    assert len(make.decide([*ris, *his])) == 2


def test_what_one_system_recorded_on_both_days_stays_two(make: Any) -> None:
    first = make.procedures("ops:5-501.a3", day="2025-03-14", stated="C22.0", prefix="a", origin=HIS)
    second = make.procedures("ops:5-501.a3", day="2025-03-15", stated="C22.0", prefix="b", origin=HIS)
    twin = make.procedures("sct:609232008", day="2025-03-14", stated="C22.0", prefix="r", origin=RIS)
    assert len(make.decide([*first, *second, *twin])) == 2


def test_an_unrelated_record_of_the_same_system_does_not_keep_twins_apart(make: Any) -> None:
    ris = make.procedures("sct:609232008", day="2025-03-14", stated="C22.0", prefix="r", origin=RIS)
    his = make.procedures("ops:5-501.a3", day="2025-03-15", stated="C22.0", prefix="h", origin=HIS)
    port = make.procedures("ops:5-399.5", day="2025-03-14", prefix="p", origin=HIS)
    assert [d.decision for d in make.decide([*ris, *his, *port])] == ["counted"]


def test_three_days_in_a_row_are_not_all_one(make: Any) -> None:
    facts = [
        *make.procedures("ops:5-501.a3", day="2025-03-14", stated="C22.0", prefix="a", origin=HIS),
        *make.procedures("sct:609232008", day="2025-03-15", stated="C22.0", prefix="b", origin=RIS),
        *make.procedures("ops:5-501.a3", day="2025-03-16", stated="C22.0", prefix="c", origin=HIS),
    ]
    assert [decision.date for decision in make.decide(facts)] == ["2025-03-14", "2025-03-16"]


def test_a_resource_read_twice_is_one_and_the_later_version_holds(make: Any) -> None:
    old = make.procedure("1", "ops:5-501.a3", stated="C22.0", updated="2025-03-14T10:00:00Z")
    new = make.procedure("1", "ops:5-501.a1", stated="C22.0", updated="2025-03-15T10:00:00Z")
    gone = make.procedure("1", "local:UNKNOWN", stated="C22.0", updated="2025-03-16T10:00:00Z")
    assert len(make.decide([old, old])) == 1
    for facts in ([old, new], [new, old], [old, new, old]):
        assert [(d.category, d.reason) for d in make.decide(facts)] == [("none", "not-percutaneous")]
    for facts in ([old, gone], [gone, new, old]):
        assert [(d.category, d.reason) for d in make.decide(facts)] == [("none", "unmapped")]


def test_a_correction_of_a_diagnosis_holds_too(make: Any) -> None:
    facts = make.procedures("ops:5-501.a3")
    old = make.condition("c", "C22.0", updated="2025-01-01T00:00:00Z")
    new = make.condition("c", "C22.0", updated="2025-02-01T00:00:00Z", verification_status="entered-in-error")
    assert make.decide(facts, [old])[0].decision == "counted"
    assert {make.decide(facts, pair)[0].reason for pair in ([old, new], [new, old])} == {"indication-not-found"}


def test_equal_ids_of_two_sources_are_two_resources(make: Any) -> None:
    here = make.procedure("1", "ops:5-501.a3", stated="C22.0")
    there = make.procedure("1", "ops:5-501.a3", day="2025-05-14", stated="C22.0", source="other")
    assert len(make.decide([here, there])) == 2


def test_children_go_with_their_parent_even_on_another_day(make: Any) -> None:
    parent = make.procedure("1", "ops:8-836.ka", stated="C22.0")
    child = make.procedure("2", "ops:8-541.6", day="2025-03-15", part_of=("Procedure/1",))
    grandchild = make.procedure("3", "ops:8-83b.10", day="", part_of=("Procedure/2",))
    assert dates(make.decide([grandchild, child, parent])) == [("2025-03-14", "deb-tace", "counted")]


def test_a_child_without_its_parent_is_for_a_person(make: Any) -> None:
    child = make.procedure("2", "ops:5-501.a3", stated="C22.0", part_of=("Procedure/1",))
    (decision,) = make.decide([child])
    assert (decision.decision, decision.reason) == ("review", "part-of-missing-procedure")


def test_procedures_that_are_part_of_each_other_end(make: Any) -> None:
    one = make.procedure("1", "ops:5-501.a3", stated="C22.0", part_of=("Procedure/2",))
    two = make.procedure("2", "ops:5-98h.2", part_of=("Procedure/1",))
    assert len(make.decide([one, two])) == 1


def test_what_has_no_day_joins_the_only_day_of_its_stay(make: Any) -> None:
    dated = make.procedure("1", "ops:8-836.ka", stated="C22.0", encounter="Encounter/e")
    for day in ("", "2025", "2025-03"):
        undated = make.procedure("2", "ops:8-541.6", day=day, encounter="Encounter/e")
        assert dates(make.decide([dated, undated])) == [("2025-03-14", "tace", "counted")]
    elsewhere = make.procedure("2", "ops:8-541.6", day="2025-04", encounter="Encounter/e")
    assert len(make.decide([dated, elsewhere])) == 2


def test_a_stay_with_two_days_dates_nothing(make: Any) -> None:
    facts = [
        make.procedure("1", "ops:8-836.ka", stated="C22.0", encounter="Encounter/e"),
        make.procedure("2", "ops:5-501.a3", day="2025-03-20", stated="C22.0", encounter="Encounter/e"),
        make.procedure("3", "ops:8-541.6", day="", encounter="Encounter/e"),
    ]
    assert len(make.decide(facts)) == 3


def test_a_look_alike_dates_nothing(make: Any) -> None:
    undated = make.procedure("1", "ops:5-501.a3", day="", stated="C22.0", encounter="Encounter/e")
    heart = make.procedure("2", "ops:8-835.23", encounter="Encounter/e")
    assert dates(make.decide([undated, heart])) == [
        ("", "ablation-mwa", "not-counted"),
        ("2025-03-14", "none", "not-counted"),
    ]
    assert make.decide([undated, heart])[0].reason == "undated"


def test_a_session_known_by_month_or_year_counts_there(make: Any) -> None:
    for day in ("2025", "2025-03"):
        facts = make.procedures("ops:8-836.ka + ops:8-541.6", day=day, stated="C22.0", encounter="Encounter/e")
        assert dates(make.decide(facts)) == [(day, "tace", "counted")]


def test_unknown_procedures_have_a_session_only_on_days_of_their_own(make: Any) -> None:
    treated = make.procedures("ops:5-501.a3", stated="C22.0")
    beside = make.procedures("local:X", prefix="u")
    alone = make.procedures("local:X", day="2025-04-01", prefix="v")
    assert dates(make.decide([*treated, *beside, *alone])) == [
        ("2025-03-14", "ablation-mwa", "counted"),
        ("2025-04-01", "none", "not-counted"),
    ]


def test_encounters_of_another_source_are_not_mistaken(make: Any) -> None:
    facts = [make.procedure("1", "ops:5-839.90", encounter="Encounter/e")]
    stay = EncounterFact("other", "e", "Patient/p1", diagnoses=(("Condition/c", "", 1),))
    bones = make.condition("c", "C79.5", onset="2026")
    assert make.decide(facts, [bones], [stay])[0].reason == "no-tumour-indication"


def test_versions_are_compared_as_moments(make: Any) -> None:
    earlier = make.procedure("1", "ops:5-501.a3", stated="C22.0", updated="2025-03-14T10:00:00+02:00")
    later = make.procedure("1", "ops:5-501.a1", stated="C22.0", updated="2025-03-14T09:00:00Z")
    unknown = make.procedure("1", "ops:8-836.ka", stated="C22.0")
    for facts in ([earlier, later, unknown], [unknown, later, earlier]):
        assert [d.reason for d in make.decide(facts)] == ["not-percutaneous"]


def test_the_day_of_the_coded_record_holds(make: Any) -> None:
    text = make.procedure("t", "", "2025-03-14", origin=RIS, text="Mikrowellenablation Leber")
    coded = make.procedures("ops:5-501.a3", day="2025-03-15", stated="C22.0", prefix="h", origin=HIS)
    (decision,) = make.decide([text, *coded])
    assert (decision.date, decision.decision) == ("2025-03-15", "counted")
    assert "also on 2025-03-14" in decision.trail[0].text
    later = make.procedure("t", "", "2025-03-16", origin=RIS, text="Mikrowellenablation Leber")
    assert dates(make.decide([later, *coded])) == [("2025-03-15", "ablation-mwa", "counted")]


def test_a_code_for_something_else_does_not_date_a_text(make: Any) -> None:
    text = make.procedure("t", "", "2025-03-14", origin=RIS, text="Mikrowellenablation Leber")
    biopsy = make.procedure("b", "ops:1-442.0", "2025-03-14", stated="C22.0", origin=RIS)
    coded = make.procedures("ops:5-501.a3", day="2025-03-15", stated="C22.0", prefix="h", origin=HIS)
    assert [d.date for d in make.decide([text, biopsy, *coded])] == ["2025-03-15"]


def test_a_part_never_counts_by_itself(make: Any) -> None:
    child = make.procedure("2", "ops:5-501.a3", stated="C22.0", part_of=("Procedure/1",))
    lost = ("review", "part-of-missing-procedure")
    for beside in (
        make.procedure("9", "ops:1-442.0", stated="C22.0"),  # something else of that day
        make.procedure("9", "ops:8-835.23"),
        make.procedure("1", "ops:5-501.a3", stated="C22.0", status="not-done"),  # its parent, not done
        make.procedure("1", "ops:5-501.a3", stated="C22.0", status="entered-in-error"),
        make.procedure("1", "local:X"),  # its parent, known to no table
        make.procedure("1", "ops:8-836.ka", stated="C22.0", source="other"),  # another source's
    ):
        found = [d for d in make.decide([child, beside]) if "Procedure/2" in d.procedures]
        assert ("ablation-mwa", *lost) in [(d.category, d.decision, d.reason) for d in found] or any(
            step.text == "ablation-mwa: part-of-missing-procedure" for d in found for step in d.trail
        )
        assert not any(d.category == "ablation-mwa" and d.decision == "counted" for d in found)


def test_a_part_of_a_part_of_what_is_missing_is_lost_too(make: Any) -> None:
    part = make.procedure("2", "ops:8-836.ka", stated="C22.0", part_of=("Procedure/1",))
    of_part = make.procedure("3", "ops:8-541.6", stated="C22.0", part_of=("Procedure/2",))
    (decision,) = make.decide([part, of_part])
    assert (decision.category, decision.reason) == ("tace", "part-of-missing-procedure")
    assert [step.step for step in decision.trail].count("part-of") == 2


def test_any_parent_that_is_there_will_do(make: Any) -> None:
    parent = make.procedure("1", "ops:8-836.ka", day="2025-03-15", stated="C22.0")
    child = make.procedure("2", "ops:8-541.6", part_of=("Procedure/gone", "Procedure/1"))
    assert dates(make.decide([child, parent])) == [("2025-03-15", "tace", "counted")]


def test_a_parent_without_a_day_is_dated_by_its_parts(make: Any) -> None:
    parent = make.procedure("1", "ops:8-836.ka", day="2025", stated="C22.0")
    child = make.procedure("2", "ops:8-541.6", part_of=("Procedure/1",))
    assert dates(make.decide([parent, child])) == [("2025-03-14", "tace", "counted")]


def test_what_a_period_takes_past_midnight_is_of_the_day_it_began(make: Any) -> None:
    period = {"time": "22:30", "end_day": "2025-03-15", "end_time": "00:40"}
    evening = make.procedure("1", "ops:8-836.ka", stated="C22.0", **period)
    after = make.procedure("2", "ops:8-541.6", "2025-03-15", stated="C22.0", time="00:20")
    assert dates(make.decide([evening, after])) == [("2025-03-14", "tace", "counted")]
    next_day = make.procedure("3", "ops:5-501.a3", "2025-03-15", stated="C22.0", time="09:00")
    assert dates(make.decide([evening, after, next_day])) == [
        ("2025-03-14", "tace", "counted"),
        ("2025-03-15", "ablation-mwa", "counted"),
    ]
    # a date alone does not say that it was in the same night: two dates are two
    undated = make.procedure("4", "ops:5-501.a3", "2025-03-15", stated="C22.0")
    assert len(make.decide([evening, undated])) == 2
    # what has nothing to do with a treatment, such as a night under watch, moves none
    watch = make.procedure("5", "ops:8-930", time="22:30", end_day="2025-03-15", end_time="10:00")
    assert dates(make.decide([watch, next_day]))[-1] == ("2025-03-15", "ablation-mwa", "counted")


def test_a_part_of_something_named_by_an_identifier_alone_does_not_count_by_itself(make: Any) -> None:
    part = make.procedure("1", "ops:5-501.a3", stated="C22.0", part_of=("Procedure?identifier=urn:x|7",))
    (decision,) = make.decide([part])
    assert (decision.decision, decision.reason) == ("review", "part-of-missing-procedure")
