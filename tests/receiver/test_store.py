from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from io_fhir_adapter.receiver.checks import check_submission
from io_fhir_adapter.receiver.store import EntryResult, ReceiverStore
from io_fhir_adapter.receiver.wire import RefusedError

Make = Callable[..., dict[str, Any]]
ENTRY = "https://io-fhir-adapter.example/fhir/sid/entry"


def accept(store: ReceiverStore, bundle: dict[str, Any]) -> tuple[EntryResult, ...]:
    return store.accept(check_submission(bundle))


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


def test_a_reference_to_anothers_resource_is_refused(store: ReceiverStore, sealed: Make, altered: Make) -> None:
    results = accept(store, sealed())
    condition = next(result for result in results if result.kind == "Condition").id

    def point(bundle: dict[str, Any]) -> None:
        of_kind(bundle, "Procedure")["resource"]["reasonReference"] = [{"reference": f"Condition/{condition}"}]

    with pytest.raises(RefusedError) as caught:
        accept(store, altered(point, facility="F-002"))
    assert caught.value.status == 422
    assert caught.value.issues[0].expression.endswith("reasonReference[0].reference")
    assert {result.status for result in accept(store, altered(point))} == {200}


def test_more_than_one_match_is_412_and_nothing_of_it_is_stored(
    store: ReceiverStore, sealed: Make, altered: Make
) -> None:
    wanted = of_kind(sealed(), "Procedure")["resource"]["identifier"][0]["value"]

    def rename(bundle: dict[str, Any]) -> None:
        for number in (0, 1):
            entry = of_kind(bundle, "Procedure", number)
            given = [{"system": ENTRY, "value": f"other-{number}"}, {"system": ENTRY, "value": wanted}]
            entry["resource"]["identifier"] = given
            entry["request"]["url"] = f"Procedure?identifier={ENTRY}|other-{number}"

    accept(store, altered(rename))
    with pytest.raises(RefusedError) as caught:
        accept(store, sealed(counted=170))
    assert caught.value.status == 412
    assert len(store.submissions()) == 1
    (report,) = store.search("MeasureReport", "identifier", ENTRY, "F-001.iasios.2025-01-01.2025-12-31", "F-001")
    assert report.version == 1


def test_two_names_of_one_stored_resource_are_refused(store: ReceiverStore, altered: Make) -> None:
    def both(bundle: dict[str, Any]) -> None:
        of_kind(bundle, "Procedure", 0)["resource"]["identifier"].append({"system": ENTRY, "value": "second"})

    def use(bundle: dict[str, Any]) -> None:
        entry = of_kind(bundle, "Procedure", 1)
        entry["resource"]["identifier"] = [{"system": ENTRY, "value": "second"}]
        entry["request"]["url"] = f"Procedure?identifier={ENTRY}|second"

    accept(store, altered(both))
    with pytest.raises(RefusedError) as caught:
        accept(store, altered(use))
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
