"""De-identifying: resources a second on one core, beside the scrubber of cumulus-etl where that installs.

The scrubber runs in an environment of its own (``deidentify/cumulus`` below the output folder), which is made at first
use with what the scrubber itself needs. Both are given the same resources, decoded, and timed in turn.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.generate import procedure
from io_fhir_adapter.review.deidentify import DeidContext, deidentify
from io_fhir_adapter.review.profile import load_profile

__all__ = ["measure"]

Json = dict[str, Any]
_PATIENTS = 500
_DAY = "2025-03-02"
_ICD = "http://fhir.de/CodeSystem/bfarm/icd-10-gm"
_CUMULUS = "cumulus-etl==4.3.6"
_CUMULUS_NEEDS = ("cumulus-fhir-support>=1.12", "nltk>=3.9", "philter-lite", "rich", "ctakesclient>=5.1", "httpx")
_INSTALL_LIMIT_S = 600
_THEIRS = """
import copy, json, sys, time
from cumulus_etl.deid import Scrubber
lines = open(sys.argv[1], "rb").read().splitlines()
scrubber = Scrubber()
best = 0.0
for _ in range(int(sys.argv[2]) + 1):
    resources = [json.loads(line) for line in lines]
    began = time.process_time()
    kept = sum(scrubber.scrub_resource(resource) for resource in resources)
    best = max(best, kept / (time.process_time() - began))
print(best)
"""


def _records(number: int) -> list[Json]:
    """So many resources of synthetic patients: of ten, one Patient, five Procedures, two Conditions, two Encounters."""
    rng = random.Random(1)
    made: list[Json] = []
    for index in range(number):
        base = procedure(rng, index, _PATIENTS)
        patient = base["subject"]["reference"].partition("/")[2]
        place = index % 10
        if place == 0:
            made.append(_patient(patient, rng))
        elif place < 6:
            made.append(base)
        elif place < 8:
            made.append(_condition(patient, index, rng))
        else:
            made.append(_encounter(patient, index, rng))
    return made


def _patient(patient: str, rng: random.Random) -> Json:
    return {
        "resourceType": "Patient", "id": patient,
        "identifier": [{"system": "https://synthetic.example/sid/mrn", "value": patient[-7:]}],
        "name": [{"use": "official", "family": "Synthetic", "given": ["Sample", "Second"]}],
        "telecom": [{"system": "phone", "value": "+49 30 0000000"}],
        "gender": rng.choice(("female", "male")),
        "birthDate": f"{rng.randrange(1930, 2000)}-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}",
        "address": [{"line": ["Sample street 1"], "city": "Sample", "postalCode": "00000", "country": "DE"}],
    }  # fmt: skip


def _condition(patient: str, index: int, rng: random.Random) -> Json:
    status = "http://terminology.hl7.org/CodeSystem/condition-"
    return {
        "resourceType": "Condition", "id": f"con-{index:09d}",
        "clinicalStatus": {"coding": [{"system": f"{status}clinical", "code": "active", "display": "Active"}]},
        "verificationStatus": {"coding": [{"system": f"{status}ver-status", "code": "confirmed"}]},
        "code": {
            "coding": [{"system": _ICD, "version": "2025", "code": rng.choice(("C22.0", "C78.7", "C34.1", "N18.3"))}],
            "text": "synthetic diagnosis",
        },
        "subject": {"reference": f"Patient/{patient}"},
        "recordedDate": "2025-01-10",
    }  # fmt: skip


def _encounter(patient: str, index: int, rng: random.Random) -> Json:
    day = rng.randrange(1, 20)
    return {
        "resourceType": "Encounter", "id": f"enc-{index:09d}", "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP", "display": "inpatient"},
        "subject": {"reference": f"Patient/{patient}"},
        "participant": [{"individual": {"reference": "Practitioner/prac-1", "display": "Dr Synthetic"}}],
        "period": {"start": f"2025-03-{day:02d}T08:00:00+01:00", "end": f"2025-03-{day + 3:02d}T12:00:00+01:00"},
        "serviceProvider": {"reference": "Organization/org-1", "display": "Synthetic hospital"},
    }  # fmt: skip


def _contexts(resources: list[Json]) -> list[DeidContext]:
    """The context of each resource: one for a patient, which allows links to all that is the patient's."""
    made: dict[str, DeidContext] = {}
    linked: dict[str, set[str]] = {}
    owners = [resource.get("subject", {}).get("reference", f"Patient/{resource['id']}") for resource in resources]
    for owner, resource in zip(owners, resources, strict=True):
        links = linked.setdefault(owner, set())
        links.update(part["reference"] for part in (resource.get("encounter"),) if part)
        links.update(part["reference"] for part in resource.get("reasonReference", ()))
    for number, (owner, links) in enumerate(linked.items()):
        made[owner] = DeidContext(
            key=b"k" * 32, token=f"{number:064x}", patient=owner, index_date=_DAY, category="tace",
            included=frozenset(links),
        )  # fmt: skip
    return [made[owner] for owner in owners]


def _ours(resources: list[Json]) -> tuple[float, float]:
    """Resources a second of processor time: de-identifying alone, and with decoding and encoding."""
    profile = load_profile()
    contexts = _contexts(resources)
    began = time.process_time()
    for resource, context in zip(resources, contexts, strict=True):
        deidentify(resource, profile, context)
    alone = len(resources) / (time.process_time() - began)
    lines = [json.dumps(resource).encode() for resource in resources]
    contexts = _contexts(resources)
    began = time.process_time()
    for line, context in zip(lines, contexts, strict=True):
        msgspec.json.encode(deidentify(msgspec.json.decode(line), profile, context))
    return alone, len(resources) / (time.process_time() - began)


def _cumulus(folder: Path) -> tuple[Path | None, str]:
    """The interpreter of an environment with the scrubber, or why there is none."""
    place = folder / "cumulus"
    python = place / "bin" / "python"
    check = [str(python), "-c", "from cumulus_etl.deid import Scrubber; Scrubber()"]
    if python.exists() and subprocess.run(check, capture_output=True, check=False).returncode == 0:
        return python, ""
    try:
        venv.create(place, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # the scrubber alone: the rest of the package wants Spark and cloud tools
        subprocess.run([*pip, "--no-deps", _CUMULUS], check=True, capture_output=True, timeout=_INSTALL_LIMIT_S)
        subprocess.run([*pip, *_CUMULUS_NEEDS], check=True, capture_output=True, timeout=_INSTALL_LIMIT_S)
        subprocess.run(check, check=True, capture_output=True, timeout=_INSTALL_LIMIT_S)
    except (OSError, subprocess.SubprocessError) as exc:
        return None, f"cumulus-etl could not be installed ({type(exc).__name__})"
    return python, ""


def _theirs(folder: Path, path: Path, rounds: int) -> tuple[float, str]:
    python, reason = _cumulus(folder)
    if python is None:
        return 0.0, reason
    done = subprocess.run(
        [str(python), "-c", _THEIRS, str(path), str(rounds)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return 0.0, "the scrubber of cumulus-etl failed"
    return float(done.stdout.split()[-1]), ""


def measure(folder: Path, number: int, rounds: int = 5) -> dict[str, Any]:
    """All figures for ``number`` resources; the best of some rounds, since others use the machine too."""
    folder = folder / "deidentify"
    folder.mkdir(parents=True, exist_ok=True)
    resources = _records(number)
    path = folder / f"records-{number}.ndjson"
    path.write_text("".join(json.dumps(resource) + "\n" for resource in resources), encoding="utf-8")
    taken = [_ours(resources) for _ in range(rounds)]
    ours, whole = max(alone for alone, _ in taken), max(both for _, both in taken)
    figures: dict[str, Any] = {
        "deidentified": number,
        "deidentify_per_second": round(ours),
        "deidentify_with_json_per_second": round(whole),
    }
    theirs, reason = _theirs(folder, path, rounds)
    if reason:
        return {**figures, "deidentify_beside": f"skipped: {reason}"}
    return {
        **figures,
        "deidentify_beside": _CUMULUS,
        "cumulus_scrubber_per_second": round(theirs),
        "deidentify_rate_to_cumulus": round(ours / theirs, 2),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2])), indent=2) + "\n")
