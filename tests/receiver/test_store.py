from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from io_fhir_adapter.canonical_urls import SUBMISSION_SYSTEM
from io_fhir_adapter.cli.main import run
from io_fhir_adapter.receiver.checks import Submission, check_submission
from io_fhir_adapter.receiver.entries import entry_target
from io_fhir_adapter.receiver.schema import META, SUBMISSIONS, VERSIONS
from io_fhir_adapter.receiver.store import EntryResult, ReceiverStore
from io_fhir_adapter.receiver.wire import RefusedError
from io_fhir_adapter.trust.submission import submission_digest

Make = Callable[..., dict[str, Any]]
ENTRY = "https://io-fhir-adapter.example/fhir/sid/entry"


def accept(store: ReceiverStore, bundle: dict[str, Any]) -> tuple[EntryResult, ...]:
    return store.accept(check_submission(bundle))


def unchecked(sealed: Make, change: Callable[[dict[str, Any]], Any]) -> Submission:
    """A submission as the checks would never let it through, for what the store itself refuses."""
    checked, bundle = check_submission(sealed()), copy.deepcopy(sealed())
    change(bundle)
    targets = tuple(entry_target(entry["request"]["url"]) for entry in bundle["entry"])
    return replace(checked, bundle=bundle, targets=targets, identifier=submission_digest(bundle))


def places(results: tuple[EntryResult, ...]) -> list[tuple[str, str, int]]:
    return [(result.kind, result.id, result.version) for result in results]


def of_kind(bundle: dict[str, Any], kind: str, number: int = 0) -> dict[str, Any]:
    found = [entry for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]
    entry: dict[str, Any] = found[number]
    return entry


def test_first_creates_and_again_changes_nothing(store: ReceiverStore, sealed: Make) -> None:
    first = accept(store, sealed())
    again = accept(store, sealed())
    assert {result.status for result in first} == {201}
    assert {result.status for result in again} == {200}
    assert places(again) == places(first)
    (kept,) = store.submissions()
    assert (kept.facility, kept.cases, kept.times) == ("F-001", 3, 2)
    assert kept.bundle == sealed()


def test_a_correction_makes_new_versions_of_what_changed_alone(store: ReceiverStore, sealed: Make) -> None:
    first = accept(store, sealed())
    second = accept(store, sealed(counted=152))
    changed = {
        two.kind for one, two in zip(first, second, strict=True) if (one.id, one.version) != (two.id, two.version)
    }
    assert changed == {"MeasureReport", "Provenance"}
    report = next(result for result in second if result.kind == "MeasureReport")
    assert (report.status, report.version) == (200, 2)
    old = store.read("MeasureReport", report.id, "F-001", 1)
    new = store.read("MeasureReport", report.id, "F-001")
    assert old is not None
    assert new is not None
    assert old.content["group"][0]["population"][0]["count"] == 151
    assert new.content["group"][0]["population"][0]["count"] == 152
    assert new.content["meta"]["versionId"] == "2"
    assert len(store.submissions()) == 2


def test_a_late_duplicate_does_not_undo_a_correction(store: ReceiverStore, sealed: Make) -> None:
    accept(store, sealed())
    corrected = accept(store, sealed(counted=152))
    accept(store, sealed())
    report = next(result for result in corrected if result.kind == "MeasureReport")
    stored = store.read("MeasureReport", report.id, None)
    assert stored is not None
    assert stored.version == 2
    assert [submission.times for submission in store.submissions()] == [2, 1]


def test_references_name_what_was_stored(store: ReceiverStore, sealed: Make) -> None:
    results = accept(store, sealed())
    patients = {f"Patient/{result.id}" for result in results if result.kind == "Patient"}
    conditions = {f"Condition/{result.id}" for result in results if result.kind == "Condition"}
    for result in results:
        stored = store.read(result.kind, result.id, "F-001")
        assert stored is not None
        assert "urn:uuid" not in str({**stored.content, "identifier": None})
        if result.kind == "Procedure":
            assert stored.content["subject"]["reference"] in patients
            assert stored.content["reasonReference"][0]["reference"] in conditions


def test_a_facility_neither_sees_nor_changes_anothers(store: ReceiverStore, sealed: Make) -> None:
    first = accept(store, sealed())
    second = accept(store, sealed(facility="F-002", counted=10))
    assert {result.status for result in second} == {201}
    assert not {result.id for result in first} & {result.id for result in second}
    measure = next(result for result in first if result.kind == "Measure")
    assert store.read("Measure", measure.id, "F-002") is None
    assert store.read("Measure", measure.id, "F-001") is not None
    url = "https://io-fhir-adapter.example/fhir/Measure/io-annual-volume-iasios"
    assert len(store.search("Measure", "url", "", url, "F-002")) == 1
    assert len(store.search("Measure", "url", "", url, None)) == 2
    assert [item.facility for item in store.submissions("F-002")] == ["F-002"]


def test_an_id_of_another_facility_is_refused_and_nothing_is_stored(
    store: ReceiverStore, sealed: Make, altered: Make
) -> None:
    results = accept(store, sealed())
    stolen = next(result for result in results if result.kind == "Provenance").id

    def steal(bundle: dict[str, Any]) -> None:
        entry = of_kind(bundle, "Provenance")
        entry["resource"]["id"] = stolen
        entry["request"]["url"] = f"Provenance/{stolen}"

    with pytest.raises(RefusedError) as caught:
        accept(store, altered(steal, facility="F-002"))
    assert caught.value.status == 403
    assert store.submissions("F-002") == []


def test_a_reference_to_what_is_stored_is_refused(store: ReceiverStore, sealed: Make, altered: Make) -> None:
    results = accept(store, sealed())
    condition = next(result for result in results if result.kind == "Condition").id

    def point(bundle: dict[str, Any]) -> None:
        of_kind(bundle, "Procedure")["resource"]["reasonReference"] = [{"reference": f"Condition/{condition}"}]

    for facility in ("F-002", "F-001"):  # another's, and the facility's own: a submission is judged from itself alone
        with pytest.raises(RefusedError) as caught:
            accept(store, altered(point, facility=facility))
        assert caught.value.status == 422
        assert caught.value.issues[0].expression.endswith("reasonReference[0].reference")
    assert store.submissions("F-002") == []


def test_more_than_one_match_is_412_and_nothing_of_it_is_stored(store: ReceiverStore, sealed: Make) -> None:
    wanted = of_kind(sealed(), "Procedure")["resource"]["identifier"][0]["value"]

    def rename(bundle: dict[str, Any]) -> None:
        for number in (0, 1):
            entry = of_kind(bundle, "Procedure", number)
            given = [{"system": ENTRY, "value": f"other-{number}"}, {"system": ENTRY, "value": wanted}]
            entry["resource"]["identifier"] = given
            entry["request"]["url"] = f"Procedure?identifier={ENTRY}|other-{number}"

    store.accept(unchecked(sealed, rename))
    with pytest.raises(RefusedError) as caught:
        accept(store, sealed(counted=170))
    assert caught.value.status == 412
    assert len(store.submissions()) == 1
    (report,) = store.search("MeasureReport", "identifier", ENTRY, "F-001.iasios.2025-01-01.2025-12-31", "F-001")
    assert report.version == 1


def test_two_names_of_one_stored_resource_are_refused(store: ReceiverStore, sealed: Make) -> None:
    def both(bundle: dict[str, Any]) -> None:
        of_kind(bundle, "Procedure", 0)["resource"]["identifier"].append({"system": ENTRY, "value": "second"})

    def use(bundle: dict[str, Any]) -> None:
        entry = of_kind(bundle, "Procedure", 1)
        entry["resource"]["identifier"] = [{"system": ENTRY, "value": "second"}]
        entry["request"]["url"] = f"Procedure?identifier={ENTRY}|second"

    store.accept(unchecked(sealed, both))
    with pytest.raises(RefusedError) as caught:
        store.accept(unchecked(sealed, use))
    assert caught.value.status == 422


def test_the_same_submission_from_many_at_once_is_stored_once(store: ReceiverStore, sealed: Make) -> None:
    submission = check_submission(sealed())
    results: list[tuple[EntryResult, ...]] = []
    threads = [threading.Thread(target=lambda: results.append(store.accept(submission))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert len({tuple(places(result)) for result in results}) == 1
    assert [(item.number, item.times) for item in store.submissions()] == [(1, 6)]


def test_a_file_keeps_what_it_was_given(tmp_path: Any, sealed: Make) -> None:
    url = f"sqlite:///{tmp_path / 'kept.db'}"
    first = ReceiverStore(url)
    results = accept(first, sealed())
    first.close()
    second = ReceiverStore(url)
    assert places(accept(second, sealed())) == places(results)
    second.close()


class KilledError(Exception):
    """The process ends here."""


@contextmanager
def killed_before(statement: int) -> Iterator[None]:
    """Ends what is done before its n-th writing statement."""
    seen: list[str] = []

    def look(_connection: Any, _cursor: Any, sql: str, *_rest: Any) -> None:
        if sql.startswith(("INSERT", "UPDATE", "DELETE")):
            seen.append(sql)
            if len(seen) == statement:
                raise KilledError

    sa.event.listen(sa.Engine, "before_cursor_execute", look)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", look)


def contents(store: ReceiverStore) -> dict[str, list[Any]]:
    with store.reading() as connection:
        return {table.name: [*map(tuple, connection.execute(sa.select(table)))] for table in META.sorted_tables}


def test_killed_at_any_step_nothing_of_it_is_there_and_the_next_time_all_is(
    store: ReceiverStore, sealed: Make, altered: Make
) -> None:
    accept(store, sealed(cases=1))
    before = contents(store)
    corrected = check_submission(correcting(altered, sealed(cases=1)))
    steps = 0
    while True:
        steps += 1
        try:
            with killed_before(steps):
                results = store.accept(corrected)
            break
        except KilledError:
            assert contents(store) == before, f"something stayed after a kill at step {steps}"
    assert steps > 10
    assert {result.status for result in results} == {200, 201}
    assert [kept.replaces for kept in store.submissions()] == [(), (sealed(cases=1)["identifier"]["value"],)]
    assert store.problems() == []


def correcting(altered: Make, earlier: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A submission that says that it corrects an earlier one."""
    named = {"system": SUBMISSION_SYSTEM, "value": earlier["identifier"]["value"]}

    def name(bundle: dict[str, Any]) -> None:
        of_kind(bundle, "Provenance")["resource"]["entity"].append({"role": "revision", "what": {"identifier": named}})

    return altered(name, **({"cases": 1, "counted": 152} | fields))


@pytest.mark.parametrize("fields", [{"facility": "F-002"}, {"counted": 152}])
def test_only_an_own_earlier_submission_can_be_corrected(
    store: ReceiverStore, sealed: Make, altered: Make, fields: dict[str, Any]
) -> None:
    if "facility" in fields:
        accept(store, sealed(cases=1))
    with pytest.raises(RefusedError) as caught:
        accept(store, correcting(altered, sealed(cases=1), **fields))
    assert (caught.value.status, caught.value.issues[0].code) == (422, "not-found")


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (sa.update(SUBMISSIONS).where(SUBMISSIONS.c.number == 1).values(cases=0, programme="degir"), "a submission"),
        (sa.delete(SUBMISSIONS).where(SUBMISSIONS.c.number == 2), "changed or gone"),
        (
            sa.update(VERSIONS).where(VERSIONS.c.kind == "MeasureReport").values(content={"status": "final"}),
            "not as it",
        ),
        (sa.delete(VERSIONS).where(VERSIONS.c.kind == "MeasureReport", VERSIONS.c.version == 1), "version of"),
        (sa.update(META.tables["chain"]).where(META.tables["chain"].c.number == 1).values(at="2020"), "link 1"),
        (sa.delete(META.tables["chain"]).where(META.tables["chain"].c.number == 1), "link 1"),
    ],
)
def test_what_was_taken_cannot_be_changed_unseen(sealed: Make, break_it: sa.Update | sa.Delete, words: str) -> None:
    store = ReceiverStore()
    accept(store, sealed(cases=1))
    accept(store, sealed(cases=1, counted=152))
    assert store.problems() == []
    with store.writing() as connection:
        connection.execute(break_it)
    assert any(words in problem for problem in store.problems()), store.problems()
    store.close()


def test_the_command_looks_through_a_store(tmp_path: Any, sealed: Make, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kept.db"
    store = ReceiverStore(f"sqlite:///{path}")
    accept(store, sealed(cases=1))
    assert run(["receiver", "--store", str(path), "--verify-store"]) == 0
    assert f"1 links, nothing changed; the last is {store.last_link()[1]}" in capfd.readouterr().out
    with store.writing() as connection:
        connection.execute(sa.delete(SUBMISSIONS))
    store.close()
    assert run(["receiver", "--store", str(path), "--verify-store"]) == 1
    assert "a submission that was taken is changed or gone" in capfd.readouterr().err
