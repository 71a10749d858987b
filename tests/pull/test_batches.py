"""Searches by lists of values, of servers that read lists in many ways: nothing that is there is left out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.errors import PullError, TransportError
from io_fhir_adapter.fhir.structs import Condition, Reference
from io_fhir_adapter.pull.batches import Batches
from io_fhir_adapter.pull.decode import Item
from io_fhir_adapter.pull.outcome import SourceOutcome
from io_fhir_adapter.pull.proof import Reading
from io_fhir_adapter.pull.reading import Keep, Pairs, SearchReader
from io_fhir_adapter.pull.seen import marks_of

PAGE = 500


@dataclass
class Server:
    """Answers searches for Conditions by ``patient`` from memory, with the manners of some server.

    Attributes:
        conditions: How many Conditions each patient has.
        most: So many values of a list are looked at.
        lists: Whether a comma separates values.
        bare: Whether ``Patient/1`` is nobody.
        totals: Whether totals are given.
        cap: So many resources are handed over at most, without a word.
        merged: Former records of patients, each with the one that has their Conditions now; asked for either, the
            server gives those.
        drops_lists: Whether a list is taken for no parameter at all.
        strict: Whether who is not known is refused.
    """

    conditions: dict[str, int]
    most: int = 1_000
    lists: bool = True
    bare: bool = False
    totals: bool = True
    cap: int = 10_000
    merged: dict[str, str] = field(default_factory=dict)
    drops_lists: bool = False
    strict: bool = False
    kept: set[str] = field(default_factory=set)
    asked: int = 0

    def posts(self, *_: Any) -> bool:
        return False

    def write(self) -> None:
        return None

    def _found(self, pairs: Pairs) -> list[tuple[Item, str]]:
        text = dict(pairs).get("patient", "")
        values = text.split(",")[: self.most] if self.lists else [text]
        named = [value.removeprefix("Patient/") for value in values if not (self.bare and "/" in value)]
        if self.strict and text and not self.conditions.keys() >= {self.merged.get(name, name) for name in named}:
            raise TransportError("the server refused the request", number=8, transient=False, status=400)
        ids = [self.merged.get(name, name) for name in named]
        if not text or (self.drops_lists and len(values) > 1):
            ids = list(self.conditions)
        return [
            (
                Item("", "Condition", Condition("Condition", id=f"{one}-{n}", subject=Reference(f"Patient/{one}"))),
                f"{one}-{n}",
            )
            for one in ids
            for n in range(self.conditions.get(one, 0))
        ][: self.cap]

    async def open(self, _: str, pairs: Pairs) -> Any:
        self.asked += 1
        await asyncio.sleep(0)
        return SimpleNamespace(items=self._found(pairs))

    async def read(self, kind: str, pairs: Pairs, keep: Keep, *, first: Any = None, **_: bool) -> Reading:
        page = first or await self.open(kind, pairs)
        await asyncio.sleep(0)
        reading = Reading(total=len(page.items) if self.totals else None, pages=1, is_full=len(page.items) >= PAGE)
        for item, name in page.items:
            reading.seen.add(marks_of((name,)))
            if keep(item.resource, name):
                self.kept.add(name)
        return reading

    async def check_end(self, kind: str, pairs: Pairs, reading: Reading, part: str = "") -> None:
        if reading.is_doubtful and reading.is_full:
            raise PullError(f"{kind} of {part} {pairs} ended a search at a full page", number=33)

    @property
    def there(self) -> set[str]:
        return {f"{one}-{n}" for one, number in self.conditions.items() for n in range(number)}


def read(server: Server, values: Sequence[str], **more: Any) -> SourceOutcome:
    config = FhirSourceConfig.model_validate({"name": "s", "url": "http://localhost/fhir", "page_size": PAGE, **more})
    outcome = SourceOutcome("s")
    batches = Batches(config, cast(SearchReader, server), outcome)
    asyncio.run(batches.read("Condition", "patient", [f"Patient/{value}" for value in values]))
    return outcome


MANNERS = st.fixed_dictionaries(
    {}, optional={"most": st.integers(1, 300), "lists": st.booleans(), "bare": st.booleans(), "totals": st.booleans()}
)
WAYS = st.fixed_dictionaries(
    {"concurrency": st.integers(1, 9)}, optional={"batch_size": st.sampled_from([1, 2, 3, 9, 10, 11, 40, 100])}
)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.integers(0, 420), st.integers(1, 3), MANNERS, WAYS)
def test_everything_is_found_of_patients_who_have_something(
    people: int, each: int, manners: dict[str, Any], ways: dict[str, Any]
) -> None:
    server = Server({f"p{number:04}": each for number in range(people)}, **manners)
    read(server, list(server.conditions), **ways)
    assert server.kept == server.there


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(st.sampled_from([0, 0, 0, 1, 2, 9]), max_size=420), WAYS, st.booleans())
def test_a_server_that_reads_lists_is_asked_little_more_than_once(
    numbers: list[int], ways: dict[str, Any], totals: bool
) -> None:
    server = Server({f"p{number:04}": each for number, each in enumerate(numbers)}, totals=totals)
    read(server, list(server.conditions), **ways)
    assert server.kept == server.there
    size = ways.get("batch_size", 100)
    if size >= 40 and totals:
        # a few doubts at first, each of some single questions; then lists, of which each tells where it was read to
        assert server.asked <= 2 * (len(numbers) // (size - 1) + 1) + 3 * 40 + ways["concurrency"]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.integers(100, 420), st.integers(1, 3), st.sampled_from([20, 50, 100, 200, 500]), WAYS)
def test_a_server_that_hands_over_so_many_and_gives_no_totals(
    people: int, each: int, cap: int, ways: dict[str, Any]
) -> None:
    server = Server({f"p{number:04}": each for number in range(people)}, totals=False, cap=cap)
    read(server, list(server.conditions), **ways)
    assert server.kept == server.there


@pytest.mark.parametrize("lists", [True, False])
@pytest.mark.parametrize("people", [1, 7, 150])
def test_a_server_that_knows_who_was_merged_is_not_taken_for_one_that_ignores_patients(
    people: int, lists: bool
) -> None:
    now = {f"new{number:03}": 2 for number in range(people)}
    server = Server(now, lists=lists, merged={f"old{number:03}": f"new{number:03}" for number in range(people)})
    outcome = read(server, list(server.merged))
    assert server.kept == server.there
    assert outcome.notes[0] == "the server answers for some patients with another record of theirs"


def test_what_one_patient_has_is_doubted_where_it_ends_at_a_full_page() -> None:
    with pytest.raises(PullError, match="ended a search at a full page"):
        read(Server({"a": 700, "b": 1}, totals=False, cap=PAGE), ["a", "b"])


def test_a_server_that_takes_a_list_for_no_parameter_is_not_taken_for_one_that_knows_who_was_merged() -> None:
    server = Server({f"p{number:03}": 1 for number in range(300)}, drops_lists=True)
    outcome = read(server, [f"p{number:03}" for number in range(100)])
    assert server.kept == {f"p{number:03}-0" for number in range(100)}
    assert not any("another record" in note for note in outcome.notes)


def test_a_server_that_refuses_nobody_looks_at_patients() -> None:
    server = Server({f"new{number:03}": 1 for number in range(5)}, strict=True)
    server.merged = {f"old{number:03}": f"new{number:03}" for number in range(5)}
    read(server, list(server.merged))
    assert server.kept == server.there


def test_one_merged_record_alone_does_not_make_lists_doubtful() -> None:
    server = Server({"new": 2}, merged={"old": "new"})
    outcome = read(server, ["old", *(f"p{number:03}" for number in range(999))])
    assert server.kept == server.there
    assert not any("does not take lists" in note for note in outcome.notes)
    assert server.asked < 200
