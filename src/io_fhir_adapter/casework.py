"""The case review of one facility: the drawn cases read, pre-filled, de-identified, and put into a submission.

Composes what pulling, reviewing and submitting each do for the drawn cases; the nightly job calls it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from io_fhir_adapter import __version__
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import Config
from io_fhir_adapter.errors import ReviewError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.approvals import approved_texts, cleared_of
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.draws import StoredDraw, cases_of, find_draw, forms_of, put_response, superseded
from io_fhir_adapter.ledger.facts import survivor
from io_fhir_adapter.ledger.identities import person_links
from io_fhir_adapter.ledger.people import record_digest
from io_fhir_adapter.ledger.reviews import CaseReview, reviews_of, save_draft, send_back, sign
from io_fhir_adapter.model import Code, Indication, Lookup
from io_fhir_adapter.report.standards import questionnaire as standards_form
from io_fhir_adapter.review.board import CaseForm, CaseLine, Identity, board_of, form_of, identity_of
from io_fhir_adapter.review.cases import CaseNeeds, PreparedCase, lookups_of, needs_of, people_in, prepare_case
from io_fhir_adapter.review.completing import accept, completeness
from io_fhir_adapter.review.forms import canonical, load_questionnaire, parse_questionnaire
from io_fhir_adapter.review.guard import Guarded, classes_of, guard_cases, patients_of, scanner_for
from io_fhir_adapter.review.keys import key_of
from io_fhir_adapter.review.leaks import LeakScanner
from io_fhir_adapter.review.profile import load_profile
from io_fhir_adapter.review.sample import Sample, frame_of
from io_fhir_adapter.shipped import shipped_path
from io_fhir_adapter.submit.deliver import needs_approval
from io_fhir_adapter.submit.frame import draw_list, frame_group
from io_fhir_adapter.submit.resting import noted
from io_fhir_adapter.submit.seal import CaseContent, Method, SubmissionContent, Superseded
from io_fhir_adapter.trust.canonical import digest, digest_bytes
from io_fhir_adapter.trust.drawn import Place
from io_fhir_adapter.trust.frame import Commitment, draw_digest
from io_fhir_adapter.volume.measure import build_measure
from io_fhir_adapter.volume.period import Period

__all__ = ["Casework"]

Progress = Callable[[str, int, int | None], None]
Json = dict[str, Any]
_FORM_CHANGED = "the form was changed after it was signed; look through it and sign again"
_SEALED_WORDS = ("Device",)  # what the seal says of this program; the shipped form happens to hold the word too
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
            from io_fhir_adapter.pull.form import fetch_form  # noqa: PLC0415 - as below

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
            links = person_links(connection)
            people = {*frame.patients, *(survivor(patient, links) for patient in frame.patients)}
            record = record_digest(connection, people, links)
            drawn = [[case.token, case.role, case.reason] for case in cases_of(connection, sample.draw.id, None)]
            signed = self._reviewed(connection, sample.draw)
        said = {name: value for name, value in report.items() if name != "date"}
        profile = digest_bytes(shipped_path("mappings", "deidentification.yaml").read_bytes())
        draw = [sample.draw.digest, sample.draw.nonce, drawn]
        return digest([__version__, self.ruleset.digest, profile, questionnaire, said, draw, record, signed])

    def _reviewed(self, connection: Connection, draw: StoredDraw) -> list[Any] | str:
        """What people said of the cases, once all of them are signed: until then nothing rests on it."""
        if not needs_approval(self.config):
            return ""
        standing = [case.number for case in cases_of(connection, draw.id)]
        signed = _signed(connection, draw)
        if not all(number in signed for number in standing):
            return "open"
        answers = [[number, digest_bytes(signed[number])] for number in standing]
        return [answers, sorted(approved_texts(connection, draw.id))]

    async def review(
        self, sample: Sample, questionnaire: Json | None = None, needs: list[CaseNeeds] | None = None
    ) -> tuple[list[PreparedCase], LeakScanner]:
        """Pulls, pre-fills and de-identifies the cases; with a scanner for every identifier that was seen."""
        # What pulls takes a fifth of a second to import, and the pages do without until a case is read.
        from io_fhir_adapter.pull.around import fetch_lookups  # noqa: PLC0415
        from io_fhir_adapter.pull.sources import fetch_resources  # noqa: PLC0415

        profile = load_profile()
        needs = needs if needs is not None else self.needs(sample)
        with self.ledger.read() as connection:
            drawn = patients_of(connection, sample.draw)
        key = key_of(self.config.review.key_file, self.config.facility.code, [need.case for need in needs])
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
        programme = self.ruleset.programme
        standards = [standards_form(programme)] if programme.standards is not None else []
        own = [facility.name, facility.code, build_measure(programme), *standards, *_SEALED_WORDS]
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

    def sample(self, period: str) -> Sample | None:
        """The drawn sample of a period as it is now, None where nobody is drawn yet; asks nobody and draws nothing."""
        with self.ledger.read() as connection:
            draw = find_draw(connection, self.ruleset.programme.id, period)
            cases = tuple(cases_of(connection, draw.id)) if draw is not None else ()
        wanted = self.ruleset.programme.sample.size
        return Sample(draw, cases, fresh=False, wanted=wanted) if draw is not None and cases else None

    def board(self, sample: Sample, questionnaire: Json) -> tuple[CaseLine, ...]:
        """Every case as it stands; names no patient."""
        with self.ledger.read() as connection:
            known = noted(connection, sample.draw.period)
            risks = {risk["case"]: risk for risk in known.guarded.get("risks", ())} if known is not None else {}
            return board_of(connection, sample.draw, questionnaire, risks, cleared_of(connection, sample.draw.id))

    def case_form(self, sample: Sample, number: int) -> CaseForm:
        """The form of one case: what a person left, else the newest pre-fill.

        Raises:
            ReviewError: There is no such case in the sample, or it is not pre-filled yet.
        """
        with self.ledger.read() as connection:
            return form_of(connection, sample.draw, number)

    def identity(self, sample: Sample, number: int) -> Identity:
        """Whose case it is; every look at it belongs into the audit.

        Raises:
            ReviewError: There is no such case in the sample.
        """
        with self.ledger.read() as connection:
            return identity_of(connection, sample.draw, number)

    def save(
        self, sample: Sample, number: int, posted: object, questionnaire: Json, *, by: str, revision: int
    ) -> CaseReview:
        """Keeps what a reviewer posted as their draft.

        Args:
            sample: The drawn sample.
            number: The case.
            posted: Any parsed JSON.
            questionnaire: The form.
            by: Account of the reviewer.
            revision: The revision that they saw.

        Raises:
            ReviewError: It is no answer to the form, or there is no such case.
            LedgerError: It was changed since, is signed, or another works on it.
        """
        clean = accept(questionnaire, posted, self.case_form(sample, number).prefilled)
        with self.ledger.begin() as connection:
            return save_draft(
                connection, sample.draw.id, number, json.dumps(clean).encode(), by, datetime.now(UTC), revision
            )

    def sign(
        self,
        sample: Sample,
        number: int,
        questionnaire: Json,
        *,
        by: str,
        revision: int,
        witness: Callable[[Connection], object] | None = None,
    ) -> CaseReview:
        """Puts a reviewer's signature under what was saved, where it is complete.

        Args:
            sample: The drawn sample.
            number: The case.
            questionnaire: The form.
            by: Account of the reviewer.
            revision: The revision that they saw.
            witness: Told in the same transaction: what it writes stands or falls with the signature.

        Raises:
            ReviewError: Questions are open, named by linkId; or there is no such case.
            LedgerError: Nothing was saved, it was changed since, is signed already, or another works on it.
        """
        draw, now = sample.draw.id, datetime.now(UTC)
        with self.ledger.begin() as connection:
            form = form_of(connection, sample.draw, number)
            clean = accept(questionnaire, form.response, form.prefilled)
            missing = [item.link_id for item in completeness(questionnaire, clean)]
            if missing:
                raise ReviewError(
                    f"{len(missing)} questions are open: {', '.join(missing)}", where=f"case {number}",
                    do="answer them, or say there why there is no answer", number=34,
                )  # fmt: skip
            if form.state != "open" and clean != form.response:  # what the adapter itself knows was corrected since
                body = json.dumps(clean).encode()
                revision = save_draft(connection, draw, number, body, by, now, revision).revision
            signed = sign(connection, draw, number, by, now, revision)
            if witness is not None:
                witness(connection)
            return signed

    def reopen_outdated(self, sample: Sample, questionnaire: Json) -> list[int]:
        """Sends signed forms back that answer another form than the one that is asked now; gives their numbers."""
        with self.ledger.begin() as connection:
            filled = forms_of(connection, sample.draw.id)
            outdated = [
                number
                for number, answers in _signed(connection, sample.draw).items()
                if not _answers(json.loads(answers), questionnaire, filled[number].response)
            ]
            now = datetime.now(UTC)
            return [
                one
                for number in outdated
                for one in send_back(connection, sample.draw.id, number, "", now, _FORM_CHANGED)
            ]

    def completed(
        self, sample: Sample, prepared: Iterable[PreparedCase], questionnaire: Json
    ) -> tuple[list[PreparedCase], int]:
        """The cases with the signed forms in place of the pre-filled ones, and how many are signed."""
        with self.ledger.read() as connection:
            signed = _signed(connection, sample.draw)
        cases = [
            _completed(case, json.loads(signed[case.number]), questionnaire) if case.number in signed else case
            for case in prepared
        ]
        return cases, sum(case.number in signed for case in cases)

    def guard(
        self, sample: Sample, prepared: Iterable[PreparedCase], questionnaire: Json, scanner: LeakScanner
    ) -> Guarded:
        """Makes prepared cases fit to leave: what may of their answers, and coarser where too few others look alike."""
        with self.ledger.read() as connection:
            classes = classes_of(connection, sample.draw, self._organ)
            sessions = {
                case.number: (case.patient, case.date, case.category) for case in cases_of(connection, sample.draw.id)
            }
            approved = approved_texts(connection, sample.draw.id)
        return guard_cases(prepared, sessions, classes, questionnaire, load_profile(), scanner, approved)

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
        draw = sample.draw
        with self.ledger.read() as connection:
            drawn = [Place(case.token, case.reason or case.role) for case in cases_of(connection, draw.id, None)]
            earlier = superseded(connection, self.ruleset.programme.id, draw.period)
        return replace(
            self.volume_content(period, report),
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
            method=self._method(draw.digest, draw.nonce),
            superseded=tuple(Superseded(draw_digest(old.digest, old.nonce), old.superseded) for old in earlier),
        )  # fmt: skip

    def volume_content(self, period: Period, report: Json) -> SubmissionContent:
        """A period's numbers alone, as a submission says them: no frame, no draw, no case.

        Args:
            period: The reported period.
            report: Its MeasureReport.
        """
        programme = self.ruleset.programme
        return SubmissionContent(
            facility_code=self.config.facility.code,
            programme=programme.id,
            period_start=date.fromisoformat(period.start),
            period_end=date.fromisoformat(period.end),
            measure=build_measure(programme),
            measure_report=report,
            group=None,
            draw=None,
            questionnaire=None,
            cases=(),
            method=self._method("", ""),
        )

    def _method(self, frame: str, nonce: str) -> Method:
        return {
            "frame_digest": frame, "nonce": nonce, "ruleset_digest": self.ruleset.digest,
            "software_version": __version__,
        }  # fmt: skip


def _signed(connection: Connection, draw: StoredDraw) -> dict[int, bytes]:
    """The signed answers of the cases that are in the sample."""
    said = reviews_of(connection, draw.id)
    return {
        case.number: review.answers
        for case in cases_of(connection, draw.id)
        if (review := said.get(case.number)) is not None and review.state == "signed" and review.answers is not None
    }


def _completed(case: PreparedCase, said: Json, questionnaire: Json) -> PreparedCase:
    return replace(case, response={**accept(questionnaire, said, case.response), "status": "completed"})


def _answers(said: Json, questionnaire: Json, prefilled: Json | None) -> bool:
    """Whether a signed form answers this form still."""
    if said.get("questionnaire") != canonical(questionnaire) or prefilled is None:
        return False
    try:
        return not completeness(questionnaire, accept(questionnaire, said, prefilled))
    except ReviewError:
        return False


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
