"""The demonstration: the whole nightly job between the embedded hospital and the embedded receiver."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import HttpUrl

from io_fhir_adapter.config import (
    Config,
    FacilityConfig,
    FhirSourceConfig,
    LedgerConfig,
    MappingsConfig,
    OutputConfig,
    ReviewConfig,
    Role,
    SignInConfig,
    SiteTableConfig,
    SubmissionConfig,
)
from io_fhir_adapter.ledger.accounts import Actor, account_of, add_account, set_password
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.look.passwords import Passwords, one_time_password
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.night import Night
from io_fhir_adapter.owner_only import put_owner_only
from io_fhir_adapter.pipeline import Nightly, rules_for
from io_fhir_adapter.receiver.app import create_app as receiver_app
from io_fhir_adapter.receiver.registry import Facility, Registry, registry_of_tokens
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.sandbox.hospital import Hospital, build_hospital
from io_fhir_adapter.sandbox.server import create_app as sandbox_app
from io_fhir_adapter.sandbox.store import SandboxStore
from io_fhir_adapter.sandbox.truth import YearTruth
from io_fhir_adapter.serve.app import create_app
from io_fhir_adapter.shipped import shipped_path
from io_fhir_adapter.trust.keys import new_signature_key, public_set, signature_key

__all__ = ["AS_OF", "PEOPLE", "Demonstration", "TryOut", "demo_config", "demonstrate", "try_out"]

AS_OF = date(2026, 1, 30)
"""The night that the demonstration runs for: the first on which the year 2025 is reported."""
CODE: Final = "DEMO-001"
NAME: Final = "Sandbox Hospital (synthetic)"
APPROVER: Final = "Head of department (synthetic)"
PUBLIC: Final = "signing-key.jwks.json"
LOCAL_SYSTEM = "http://sandbox.example/CodeSystem/ris"
PEOPLE: Final[Mapping[str, tuple[str, tuple[Role, ...]]]] = MappingProxyType(
    {
        "weber": ("Dr. Anna Weber", ("reviewer",)),
        "both": ("Dr. Kim Both", ("reviewer", "approver")),
        "lang": ("Prof. Jonas Lang", ("approver",)),
        "vogt": ("Vera Vogt", ("viewer",)),
        "adler": ("Ada Adler", ("administrator",)),
    }
)
"""Account to name and roles of the invented people who may sign in at the demonstration's pages."""
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What the demonstration did, what is true, and what it left behind."""

    night: Night
    truth: YearTruth
    files: list[Path]
    submissions: int

    @property
    def agrees(self) -> bool:
        """Whether the counted and review numbers are those that the hospital itself publishes."""
        volume = self.night.volume
        if volume is None:
            return False
        by_category = {name: tally.counted for name, tally in volume.by_category.items() if tally.counted}
        return (
            volume.counted == self.truth.counted
            and volume.review == self.truth.review
            and by_category == {name: number for name, number in self.truth.counted_by_category.items() if number}
        )


def demo_config(source_url: str, receiver_url: str, folder: Path) -> Config:
    """The configuration of the demonstration, everything it keeps inside one folder."""
    return Config(
        facility=FacilityConfig(code=CODE, name=NAME, time_zone="Europe/Berlin"),
        sources=(FhirSourceConfig.model_validate({"name": "sandbox", "kind": "fhir", "url": source_url}),),
        mappings=MappingsConfig(
            site_tables=(SiteTableConfig(system=LOCAL_SYSTEM, file=shipped_path("config", "sandbox-local-codes.csv")),)
        ),
        ledger=LedgerConfig(path=folder / "ledger.sqlite"),
        review=ReviewConfig(key_file=folder / "pseudonym.key"),
        submission=SubmissionConfig.model_validate({"url": receiver_url, "automatic": True, "approver": APPROVER}),
        output=OutputConfig(folder=folder),
    )


async def demonstrate(folder: Path, progress: Progress, hospital: Hospital | None = None) -> Demonstration:
    """Runs one night.

    Args:
        folder: Takes ledger, key, the receiver's database and everything made; found again by the next run.
        progress: Told what is being done.
        hospital: The synthetic hospital, the default one where omitted.
    """
    if hospital is None:
        progress("building the synthetic hospital", 0, 1)
        hospital = build_hospital()
        progress("building the synthetic hospital", 1, 1)
    with _facility(folder, hospital) as (config, ledger, received):
        job = Nightly(config, ledger, rules_for(config), as_of=AS_OF, progress=progress, synthetic=True)
        night = await job.run()
        files = job.write_output(night, folder)
        truth = next(year for year in hospital.truth.years.values() if str(year.year) == job.period.label)
        return Demonstration(night, truth, files, len(received.submissions()))


@contextmanager
def _facility(folder: Path, hospital: Hospital) -> Iterator[tuple[Config, Ledger, ReceiverStore]]:
    """The demonstration's configuration and ledger, while the hospital's server and the receiver run."""
    store = SandboxStore.from_resources(
        [resource for resources in hospital.resources.values() for resource in resources],
        hospital.broken,
        hospital.later,
    )
    received = ReceiverStore(f"sqlite:///{folder / 'receiver.sqlite'}")
    own, registry = _registered(folder)
    with (
        closing(received),
        LoopbackServer(sandbox_app(store)) as sandbox,
        LoopbackServer(receiver_app(received, registry=registry, require_signature=True)) as receiver,
    ):
        config = demo_config(f"{sandbox.base_url}/fhir", f"{receiver.base_url}/fhir", folder)
        address = HttpUrl(f"{receiver.base_url}/fhir")
        config = config.model_copy(update={"submission": own.model_copy(update={"url": address})})
        with closing(open_ledger(config.ledger)) as ledger:
            yield config, ledger, received


def _registered(folder: Path) -> tuple[SubmissionConfig, Registry]:
    """How the facility sends, and what the body has registered of it: the public half of its key, and a token.

    The key lies in the folder, found again by the next run, with the public half in a file beside it; the token is
    another one each time.
    """
    private, token = folder / "signing-key.json", folder / "receiver.token"
    if not private.exists():
        put_owner_only(private, json.dumps(new_signature_key("ES256").as_dict(private=True)).encode())
    token.unlink(missing_ok=True)
    put_owner_only(token, secrets.token_urlsafe(32).encode())
    own = SubmissionConfig.model_validate(
        {
            "url": "http://127.0.0.1",
            "auth": {"kind": "bearer", "token": {"file": token}},
            "automatic": True,
            "approver": APPROVER,
            "signing_key": {"file": private},
        }
    )
    jwks = public_set(signature_key(private.read_text(encoding="utf-8")))
    (folder / PUBLIC).write_text(json.dumps(jwks, indent=2), encoding="utf-8")
    facility = Facility(CODE, NAME, jwks, client_id=CODE)
    return own, replace(registry_of_tokens({token.read_text(encoding="utf-8"): CODE}), facilities=(facility,))


@dataclass(frozen=True, slots=True)
class TryOut:
    """The demonstration's pages while they are served.

    Attributes:
        url: Where.
        password: The password of everybody in :data:`PEOPLE`, made for this time.
        night: The night that drew the cases and pre-filled their forms.
        ledger: The facility's ledger.
        received: What the receiver took.
        jwks: The public keys that the receiver has of the facility.
    """

    url: str
    password: str
    night: Night
    ledger: Ledger
    received: ReceiverStore
    jwks: Mapping[str, Any]


@contextmanager
def try_out(folder: Path, progress: Progress, hospital: Hospital | None = None, port: int = 0) -> Iterator[TryOut]:
    """The pages of the case review with synthetic data: one night, and then the service as of the same day.

    Args:
        folder: As for :func:`demonstrate`; one of its own, since people sign in here and nothing leaves unapproved.
        progress: Told what is being done.
        hospital: The synthetic hospital, the default one where omitted.
        port: The port of the pages, 0 for any free one.
    """
    with _facility(folder, hospital or build_hospital()) as (plain, ledger, received):
        config = plain.model_copy(update={"sign_in": SignInConfig(accounts=True)})
        rules = rules_for(config)
        job = Nightly(config, ledger, rules, as_of=AS_OF, progress=progress, synthetic=True)
        night = asyncio.run(job.run())
        job.write_output(night, folder)
        password = _let_in(ledger)
        with LoopbackServer(create_app(config, ledger, rules, as_of=AS_OF), port) as service:
            yield TryOut(
                service.base_url, password, night, ledger, received, json.loads((folder / PUBLIC).read_bytes())
            )


def _let_in(ledger: Ledger) -> str:
    """Gives everybody the same new password."""
    password, by, now = one_time_password(), Actor("console", ""), datetime.now(UTC)
    hashed = Passwords().hash(password)
    with ledger.begin() as connection:
        for account, (name, roles) in PEOPLE.items():
            if account_of(connection, account) is None:
                add_account(connection, account, name, hashed, roles, one_time=False, by=by, at=now)
            else:
                set_password(connection, account, hashed, one_time=False, by=by, at=now)
    return password
