"""The numbers of a MeasureReport, held against each other and against its Measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from io_fhir_adapter.receiver.wire import Issue

__all__ = ["counts_of", "number_issues"]

Json = Mapping[str, Any]

_EXPLAINED: Final = {"not-counted": "not counted: ", "review": "for review: "}
"""Populations whose reasons are populations of their own, with the start of their texts."""


def counts_of(populations: Sequence[Json]) -> list[tuple[str, int]]:
    """Code (or text) and count of each population."""
    return [(_name(population), population.get("count", 0)) for population in populations]


def _name(population: Json) -> str:
    concept = population.get("code", {})
    coding = (concept.get("coding") or [{}])[0]
    return str(concept.get("text") or coding.get("code", ""))


def number_issues(report: Json, measure: Json | None, place: str) -> Iterator[Issue]:
    """Counts are not negative, strata sum to their group, reasons to what they explain; the Measure knows the groups.

    Args:
        report: The MeasureReport.
        measure: The Measure of the same Bundle.
        place: The report's FHIRPath.
    """
    if measure is not None:
        yield from _unknown(report, measure, place)
    for g, group in enumerate(report.get("group", [])):
        here = f"{place}.group[{g}]"
        rows = counts_of(group.get("population", []))
        totals = dict(rows)
        for p, (_, count) in enumerate(rows):
            if count < 0:
                yield Issue("value", "a count is not negative", f"{here}.population[{p}].count")
        if len(totals) != len(rows):
            yield Issue("business-rule", "two populations have the same code", f"{here}.population")
        for code, prefix in _EXPLAINED.items():
            reasons = [count for name, count in rows if name.startswith(prefix)]
            if reasons and sum(reasons) != totals.get(code):
                yield Issue("business-rule", "the reasons do not sum to what they explain", f"{here}.population")
        yield from _strata_issues(group, totals, here)


def _strata_issues(group: Json, totals: Mapping[str, int], here: str) -> Iterator[Issue]:
    kinds = [code for one in _stratifiers(group) if (code := _code((one.get("code") or [{}])[0]))]
    if len(set(kinds)) != len(kinds):
        yield Issue("business-rule", "two stratifiers are the same", f"{here}.stratifier")
    for s, stratifier in enumerate(_stratifiers(group)):
        sums: dict[str, int] = {}
        strata = stratifier.get("stratum", [])
        for stratum in strata:
            for code, count in counts_of(stratum.get("population", [])):
                sums[code] = sums.get(code, 0) + count
        if any(totals.get(code) != count for code, count in sums.items()):
            yield Issue("business-rule", "the strata do not sum to the group", f"{here}.stratifier[{s}]")
        values = [stratum.get("value", {}).get("text") for stratum in strata]
        if len(set(values)) != len(values):
            yield Issue("business-rule", "two strata are the same", f"{here}.stratifier[{s}]")
        for n, stratum in enumerate(strata):
            value = stratum.get("value", {})
            codes = [coding.get("code") for coding in value.get("coding", [])]
            if codes not in ([], [value.get("text")]):
                yield Issue(
                    "business-rule", "a stratum's code and text differ", f"{here}.stratifier[{s}].stratum[{n}].value"
                )


def _stratifiers(group: Json) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = group.get("stratifier", [])
    return found


def _unknown(report: Json, measure: Json, place: str) -> Iterator[Issue]:
    """What is reported must be what the Measure asks for."""
    named = str(report.get("measure", "")).partition("|")
    if named[0] != measure.get("url") or (named[2] and named[2] != measure.get("version")):
        yield Issue("business-rule", "is not the Measure of the same Bundle", f"{place}.measure")
    defined = {_group_code(group): group for group in measure.get("group", [])}
    if not defined:
        return
    for g, group in enumerate(report.get("group", [])):
        asked = defined.get(_group_code(group))
        if asked is None:
            yield Issue("business-rule", "the Measure has no such group", f"{place}.group[{g}].code")
            continue
        stratified = {_group_code(one) for one in asked.get("stratifier", [])}
        for s, stratifier in enumerate(_stratifiers(group)):
            if not {_code(concept) for concept in stratifier.get("code", [])} <= stratified:
                yield Issue(
                    "business-rule", "the Measure does not stratify by this", f"{place}.group[{g}].stratifier[{s}]"
                )


def _group_code(group: Json) -> str:
    return _code(group.get("code", {}))


def _code(concept: Any) -> str:
    codings = concept.get("coding") if isinstance(concept, Mapping) else None
    return str((codings or [{}])[0].get("code", ""))
