"""Whole resources for the few cases drawn, from a server and from files."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from io_fhir_adapter.config import FhirSourceConfig, FilesSourceConfig
from io_fhir_adapter.errors import AdapterError, InputError
from io_fhir_adapter.pull.targets import fetch_by_reference, fetch_from_files, fetch_of_patients
from io_fhir_adapter.sandbox.faults import Faults, PageFault
from io_fhir_adapter.transport.client import FhirClient

Make = Callable[..., Any]


def fetch(site: Any, *references: str, **config: Any) -> set[str]:
    """References of what the server gave."""
    source = FhirSourceConfig.model_validate(
        {"name": "s", "url": f"{site.url}/fhir", "max_retry_wait_s": 0, "retries": 2, **config}
    )

    async def go() -> dict[str, Any]:
        async with FhirClient(source, "sources.s") as client:
            return await fetch_by_reference(client, references)

    found = asyncio.run(go())
    assert all(f"{resource['resourceType']}/{resource['id']}" == name for name, resource in found.items())
    return set(found)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(),
        Faults(max_page_size=1),
        Faults(ignored_parameters=("_id",)),
        Faults(no_lists=True),
        Faults(max_list=1),
        Faults(posted_searches="refused"),
        Faults(page_faults=(PageFault("truncated", times=2),)),
        Faults(next_links="relative", max_page_size=2),
    ],
)
def test_what_the_server_has_is_read(site: Any, faults: Faults) -> None:
    site.switch(faults)
    wanted = {"Procedure/p00", "Procedure/p01", "Patient/a", "Condition/c0"}
    assert fetch(site, *wanted, "Procedure/unknown", "Patient/b?x", "Patient?identifier=a|b", "", "Patient/") == wanted


def test_many_are_read_in_batches(make_site: Make, kit: Any) -> None:
    names = [f"n{number}" for number in range(120)]
    site = make_site([kit.person(name) for name in names])
    assert len(fetch(site, *(f"Patient/{name}" for name in names))) == 120
    assert len(site.requests()) == 3


def test_a_circle_of_links_ends(site: Any) -> None:
    site.switch(Faults(next_links="loop", max_page_size=1))
    with pytest.raises(AdapterError, match="circle"):
        fetch(site, *(f"Procedure/p0{number}" for number in range(5)))


def test_files_of_every_form(tmp_path: Path, kit: Any) -> None:
    lines = [kit.procedure("p1"), kit.procedure("p2"), kit.person("a")]
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "a.ndjson").write_text(f"{{broken\n{text}\n\nno json either\n")
    with gzip.open(tmp_path / "b.ndjson.gz", "wt") as file:
        file.write(json.dumps(kit.condition("c1")) + "\n" + json.dumps(kit.condition("c2")))
    bundle = {"resourceType": "Bundle", "entry": [{"resource": kit.encounter("e1")}, {"fullUrl": "x"}]}
    outer = {"resourceType": "Bundle", "entry": [{"resource": bundle}]}
    (tmp_path / "c.json").write_text(json.dumps(outer, indent=2))
    (tmp_path / "d.json").write_text(json.dumps(kit.person("b")))
    config = FilesSourceConfig(name="f", kind="files", paths=(str(tmp_path),))
    wanted = {"Procedure/p2", "Patient/a", "Condition/c1", "Encounter/e1", "Patient/b"}
    assert set(fetch_from_files(config, [*wanted, "Patient/unknown"])) == wanted


def test_the_newest_version_in_the_files_is_taken(tmp_path: Path, kit: Any) -> None:
    for name, moment in (("1.json", "2025-02-01T00:00:00Z"), ("2.json", "2025-01-01T00:00:00Z")):
        (tmp_path / name).write_text(json.dumps(kit.person("a", meta={"lastUpdated": moment})))
    config = FilesSourceConfig(name="f", kind="files", paths=(str(tmp_path),))
    assert fetch_from_files(config, ["Patient/a"])["Patient/a"]["meta"]["lastUpdated"].startswith("2025-02")


def test_what_the_pull_did_not_look_at_may_be_anything(tmp_path: Path, kit: Any) -> None:
    deep = "[" * 400 + "]" * 400
    lines = {
        "a": json.dumps(kit.person("a") | {"name": "Müller"}, ensure_ascii=False).encode("latin-1"),
        "b": json.dumps(kit.person("b"))[:-1].encode() + f', "extension": {deep}}}'.encode(),
        "c": json.dumps(kit.person("c"))[:-1].encode() + b', "extension": [' + b"9" * 5_000 + b"]}",
        "d": json.dumps(kit.person("d")).encode(),
    }
    (tmp_path / "1.ndjson").write_bytes(b"\n".join(lines.values()))
    (tmp_path / "2.json").write_text(json.dumps({"resourceType": "Bundle", "total": "12", "entry": 7}))
    for name in "34":
        (tmp_path / f"{name}.json").write_text(json.dumps(kit.person("e") | {"meta": None}))
    config = FilesSourceConfig(name="f", kind="files", paths=(str(tmp_path),))
    found = fetch_from_files(config, [f"Patient/{name}" for name in "abcde"])
    assert sorted(found) == ["Patient/a", "Patient/d", "Patient/e"]
    assert found["Patient/a"]["name"] == "M\ufffdller"
    by_type, present = fetch_of_patients(config, ["Patient"], ["a", "b", "e"], lambda one: str(one["id"]))
    assert sorted(one["id"] for one in by_type["Patient"]) == ["a", "e"]
    assert present == {"Patient"}


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson.gz"
    path.write_bytes(gzip.compress(b"{}" * 1000, mtime=0)[:20])
    config = FilesSourceConfig(name="f", kind="files", paths=(str(path),))
    with pytest.raises(InputError, match=r"x\.ndjson\.gz: the file cannot be read"):
        fetch_from_files(config, ["Patient/a"])
