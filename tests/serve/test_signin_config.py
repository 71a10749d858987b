"""The sign_in section of the configuration: what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from io_fhir_adapter.config import Config, load_config
from io_fhir_adapter.errors import ConfigError

Json = dict[str, Any]
PUBLIC = "https://accreditation.hospital.example"


def oidc(**keys: Any) -> Json:
    part = {"issuer": "https://login.hospital.example/realms/clinic/", "client_id": "io", "roles": {"viewer": ["v"]}}
    return {"client_secret": {"env": "IO_OIDC"}, **part, **keys}


def load(folder: Path, sign_in: Json) -> Config:
    document = {
        "facility": {"code": "F-1"},
        "sources": [{"name": "a", "kind": "files", "paths": ["x"]}],
        "sign_in": sign_in,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_config(path)


def test_the_issuer_is_kept_to_the_letter_and_openid_is_asked_for(tmp_path: Path) -> None:
    part = load(tmp_path, {"oidc": oidc(scopes=["email"], ca_file="ca.pem"), "public_url": PUBLIC}).sign_in
    assert part is not None
    assert part.oidc is not None
    assert part.oidc.issuer == "https://login.hospital.example/realms/clinic/"
    assert part.oidc.scopes == ("openid", "email")
    assert part.oidc.http.ca_file == tmp_path / "ca.pem"
    assert part.origin == PUBLIC


@pytest.mark.parametrize(
    ("sign_in", "words"),
    [
        ({}, "nobody could sign in"),
        ({"accounts": False}, "nobody could sign in"),
        ({"oidc": oidc()}, "oidc needs public_url"),
        ({"accounts": True, "public_url": "http://accreditation.hospital.example"}, "people sign in over https"),
        ({"accounts": True, "public_url": f"{PUBLIC}/below"}, "give scheme, host and port alone"),
        ({"accounts": True, "public_url": "https://a:b@hospital.example"}, "give scheme, host and port alone"),
        ({"oidc": oidc(issuer="http://login.example"), "public_url": PUBLIC}, "a provider is reached over https"),
        ({"oidc": oidc(issuer="https://login.example?x=1"), "public_url": PUBLIC}, "an issuer is an address"),
        ({"oidc": oidc(client_secret="canary-4711"), "public_url": PUBLIC}, "named here, never written"),
        ({"oidc": oidc(scopes=["openid profile"]), "public_url": PUBLIC}, "each scope as an entry"),
        ({"oidc": oidc(roles={"boss": ["x"]}), "public_url": PUBLIC}, "sign_in.oidc.roles.boss is not a known key"),
        ({"accounts": True, "session_hours": 48}, "sign_in.session_hours"),
        ({"acounts": True}, "did you mean 'accounts'?"),
    ],
)
def test_a_wrong_value_is_refused_by_name(sign_in: Json, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, sign_in)
    assert words in caught.value.sentence
    assert "canary" not in caught.value.sentence
