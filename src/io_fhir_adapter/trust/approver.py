"""Who approved a submission, as its Provenance says it: the role, a token of the account, and a name at most.

The approver approves a body that cannot name them yet; the agent is put in afterwards, and the submission is the same.
So :func:`is_approver` is strict: an agent that says anything beside this counts as part of what the submission says.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, Final

from io_fhir_adapter.canonical_urls import APPROVER_SYSTEM, ROLE_CODES
from io_fhir_adapter.trust.canonical import canonical_json

__all__ = ["approver_agent", "approver_token", "is_approver", "with_approver"]

Json = dict[str, Any]

_PARTICIPANT: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_TYPE: Final = {"coding": [{"system": _PARTICIPANT, "code": "legal"}]}
_ROLE: Final = [{"coding": [{"system": ROLE_CODES, "code": "approver"}]}]


def approver_token(key: bytes, facility_code: str, account: str) -> str:
    """The token of an account: 64 hexadecimal digits that only the holder of ``key`` can link to the account.

    Args:
        key: The facility's secret key.
        facility_code: The facility code from registration.
        account: Account of the approver.
    """
    return hmac.digest(key, canonical_json(["approver", facility_code, account]), "sha256").hex()


def approver_agent(token: str, display: str = "") -> Json:
    """The Provenance.agent of an approver; without their name where it is empty."""
    who: Json = {"type": "PractitionerRole", "identifier": {"system": APPROVER_SYSTEM, "value": token}}
    return {"type": _TYPE, "role": _ROLE, "who": {**who, **({"display": display} if display else {})}}


def is_approver(agent: Any) -> bool:
    """Whether an agent of a Provenance is an approver, and says nothing else."""
    who = agent.get("who") if isinstance(agent, Mapping) else None
    if not isinstance(who, Mapping) or not isinstance(named := who.get("identifier"), Mapping):
        return False
    token, display = named.get("value"), who.get("display", "")
    return isinstance(token, str) and isinstance(display, str) and bool(agent == approver_agent(token, display))


def with_approver(bundle: Mapping[str, Any], agent: Json) -> Json:
    """A copy of a Bundle whose Provenance names this approver and no other."""
    entries = []
    for entry in bundle["entry"]:
        resource = entry["resource"]
        if resource["resourceType"] == "Provenance":
            others = [one for one in resource["agent"] if not is_approver(one)]
            resource = {**resource, "agent": [*others, agent]}
        entries.append({**entry, "resource": resource})
    return {**bundle, "entry": entries}
