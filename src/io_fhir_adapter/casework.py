"""The case review of one facility: the drawn cases read, pre-filled, de-identified, and put into a submission.

Composes what pulling, reviewing and submitting each do for the drawn cases; the nightly job calls it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from io_fhir_adapter import __version__
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import Config
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.draws import cases_of, put_response, superseded
from io_fhir_adapter.ledger.identities import person_links
from io_fhir_adapter.ledger.people import record_digest
from io_fhir_adapter.model import Code, Indication, Lookup
from io_fhir_adapter.pull.around import fetch_lookups
from io_fhir_adapter.pull.form import fetch_form
from io_fhir_adapter.pull.sources import fetch_resources
from io_fhir_adapter.review.cases import CaseNeeds, PreparedCase, lookups_of, needs_of, people_in, prepare_case
from io_fhir_adapter.review.forms import load_questionnaire, parse_questionnaire
from io_fhir_adapter.review.guard import Guarded, classes_of, guard_cases, patients_of, scanner_for
from io_fhir_adapter.review.keys import check_key, pseudonym_key
from io_fhir_adapter.review.leaks import LeakScanner
from io_fhir_adapter.review.profile import load_profile
from io_fhir_adapter.review.sample import Sample, frame_of
from io_fhir_adapter.shipped import shipped_path
from io_fhir_adapter.submit.frame import draw_list, frame_group
from io_fhir_adapter.submit.seal import CaseContent, SubmissionContent, Superseded
from io_fhir_adapter.trust.canonical import digest, digest_bytes
from io_fhir_adapter.trust.drawn import Place
from io_fhir_adapter.trust.frame import Commitment, draw_digest
from io_fhir_adapter.volume.measure import build_measure
from io_fhir_adapter.volume.period import Period

__all__ = ["Casework"]

Progress = Callable[[str, int, int | None], None]
Json = dict[str, Any]
_DIAGNOSIS_URIS = {"icd10": "http://hl7.org/fhir/sid/icd-10", "snomed": "http://snomed.info/sct"}


class Casework:
    """What is done for the cases of a sample. Each method is one step.

    Args:
        config: The facility's configuration.
        ledger: Its ledger.
        ruleset: What decides.
        progress: Told what is being done.
    """

    def __init__(self, config: Config, ledger: Ledger, ruleset: Ruleset, progress: Progress) -> None:
        self.config = config
        self.ledger = ledger
        self.ruleset = ruleset
        self.zone = zone(config.facility.time_zone)
        self._progress = progress

    async def form(self) -> Json:
        """The case-review form: the body's own where one is configured, else the shipped one."""
        named = self.config.review.questionnaire
        if named is not None and "://" in named:
            return parse_questionnaire(await fetch_form(self.config, named), named)
        return load_questionnaire(Path(named) if named is not None else None)

    def needs(self, sample: Sample) -> list[CaseNeeds]:
        """What each case's form is filled from; a case that does not count any more has left the sample."""
        with self.ledger.begin() as connection:
            return needs_of(connection, sample.draw, datetime.now(UTC))

    def basis(self, sample: Sample, report: Json, questionnaire: Json) -> str:
        """A digest of all that a submission rests on, but for the clinical records that only the forms are filled from.

        Where it is the same as before, so is the submission, unless one of those records was changed.
        """
        frame = frame_of(sample.draw)
        with self.ledger.read() as connection:
            record = record_digest(connection, frame.patients, person_links(connection))
            drawn = [[case.token, case.role, case.reason] for case in cases_of(connection, sample.draw.id, None)]
        said = {name: value for name, value in report.items() if name != "date"}
        profile = digest_bytes(shipped_path("mappings", "deidentification.yaml").read_bytes())
        draw = [sample.draw.digest, sample.draw.nonce, drawn]
        return digest([__version__, self.ruleset.digest, profile, questionnaire, said, draw, record])

    async def review(
        self, sample: Sample, questionnaire: Json | None = None, needs: list[CaseNeeds] | None = None
    ) -> tuple[list[PreparedCase], LeakScanner]:
        """Pulls, pre-fills and de-identifies the cases; with a scanner for every identifier that was seen."""
        profile, key = load_profile(), pseudonym_key(self.config.review.key_file)
        needs = needs if needs is not None else self.needs(sample)
        with self.ledger.read() as connection:
            drawn = patients_of(connection, sample.draw)
        check_key(key, self.config.facility.code, [need.case for need in needs])
        self._progress("reading the drawn cases", 0, len(needs))
        questionnaire = questionnaire or await self.form()
        pulled = await fetch_resources(self.config, _wanted(needs))
        around = await fetch_lookups(self.config, _lookups(needs, questionnaire))
        self._progress("reading the drawn cases", len(needs), len(needs))
        by_source: dict[str, Json] = {}
        for (source, reference), resource in pulled.items():
            by_source.setdefault(source, {})[reference] = resource
        read = [*pulled.values(), *(one for found in around.found.values() for one in found)]
        people = {
            source: (
                people_in([*by_source.get(source, {}).values(), *around.resources_of(source)])
                | drawn.get(source, set())
            )
            - set(by_source.get(source, {}))
            for source in {*by_source, *drawn}
        }
        named = await fetch_resources(self.config, people)
        facility = self.config.facility
        own = [facility.name, facility.code, build_measure(self.ruleset.programme)]
        with self.ledger.read() as connection:
            everybody = [*read, *named.values()]
            scanner = scanner_for(connection, sample.draw, everybody, profile, questionnaire, own)
        prepared = []
        for number, need in enumerate(needs, start=1):
            found, absent = around.of(need.decision.source)
            case = prepare_case(
                need, by_source.get(need.decision.source, {}), questionnaire, profile,
                key=key, nonce=sample.draw.nonce, zone=self.zone, organ=self._organ(need.decision.indication),
                around=found, absent=absent,
            )  # fmt: skip
            prepared.append(case)
            self._progress("pre-filling", number, len(needs))
        with self.ledger.begin() as connection:
            for case in prepared:
                body = json.dumps(case.response).encode()
                put_response(connection, sample.draw.id, case.number, body, case.sources, case.missing)
        return prepared, scanner

    def guard(
        self, sample: Sample, prepared: Iterable[PreparedCase], questionnaire: Json, scanner: LeakScanner
    ) -> Guarded:
        """Makes prepared cases fit to leave: what may of their answers, and coarser where too few others look alike."""
        with self.ledger.read() as connection:
            classes = classes_of(connection, sample.draw, self._organ)
            sessions = {
                case.number: (case.patient, case.date, case.category) for case in cases_of(connection, sample.draw.id)
            }
        return guard_cases(prepared, sessions, classes, questionnaire, load_profile(), scanner)

    def _organ(self, indication: Indication) -> str:
        """The organ that the tables see in the code of an indication."""
        uri = _DIAGNOSIS_URIS.get(indication.system, "")
        found = self.ruleset.diagnoses.diagnose(Code(uri, indication.code)) if uri else None
        return found.organ if found is not None else ""

    def content(
        self, sample: Sample, period: Period, report: Json, cases: Iterable[PreparedCase], questionnaire: Json
    ) -> SubmissionContent:
        """All that the submission of a sample says.

        Args:
            sample: The drawn sample.
            period: The reported period.
            report: Its MeasureReport.
            cases: The cases as they may leave.
            questionnaire: The form that they answer.
        """
        programme, draw = self.ruleset.programme, sample.draw
        with self.ledger.read() as connection:
            drawn = [Place(case.token, case.reason or case.role) for case in cases_of(connection, draw.id, None)]
            earlier = superseded(connection, programme.id, draw.period)
        return SubmissionContent(
            facility_code=self.config.facility.code,
            programme=programme.id,
            period_start=date.fromisoformat(period.start),
            period_end=date.fromisoformat(period.end),
            measure=build_measure(programme),
            measure_report=report,
            group=frame_group(Commitment.from_json(json.loads(draw.commitment))),
            draw=draw_list(draw.digest, draw.nonce, draw.nonce_origin, drawn),
            questionnaire=questionnaire,
            cases=tuple(
                CaseContent(
                    number=case.number, token=case.token, patient=case.patient, procedures=case.procedures,
                    conditions=case.conditions, questionnaire_response=case.response, encounters=case.encounters,
                )
                for case in cases
            ),
            method={
                "frame_digest": sample.draw.digest,
                "nonce": sample.draw.nonce,
                "ruleset_digest": self.ruleset.digest,
                "software_version": __version__,
            },
            superseded=tuple(Superseded(draw_digest(old.digest, old.nonce), old.superseded) for old in earlier),
        )  # fmt: skip


def _wanted(needs: Iterable[CaseNeeds]) -> Mapping[str, set[str]]:
    wanted: dict[str, set[str]] = {}
    for need in needs:
        wanted.setdefault(need.decision.source, set()).update(need.references)
    return wanted


def _lookups(needs: Iterable[CaseNeeds], questionnaire: Json) -> Mapping[str, set[Lookup]]:
    wanted: dict[str, set[Lookup]] = {}
    for need in needs:
        wanted.setdefault(need.decision.source, set()).update(lookups_of(need, questionnaire))
    return wanted
