"""Making the key that submissions are signed with, and checking a submission with its public half."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.ledgers import new_ledger

from io_fhir_adapter.cli.main import run
from io_fhir_adapter.errors import ReviewError
from io_fhir_adapter.ledger.audit import entries
from io_fhir_adapter.ledger.draws import StoredCase, commit_frame, put_cases, put_nonce
from io_fhir_adapter.review.keys import key_of, pseudonym_key
from io_fhir_adapter.submit.withdrawal import seal_withdrawal
from io_fhir_adapter.trust.frame import patient_token
from io_fhir_adapter.trust.keys import signature_key
from io_fhir_adapter.trust.signature import ALGORITHMS, sign_bundle

NOW = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_key_is_made_once_and_only_its_public_half_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = tmp_path / "secrets" / "signing-key.json"
    assert run(["keys", "new", str(file), "--alg", name]) == 0
    made = capsys.readouterr()
    public = json.loads(made.out)
    assert (public["keys"][0]["alg"], file.stat().st_mode & 0o777) == (name, 0o600)
    assert str(file) in made.err.replace("\n", "")
    secret = json.loads(file.read_text())["d"]
    assert run(["keys", "show", str(file)]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == public
    assert secret not in made.out + made.err + shown.out
    assert run(["keys", "new", str(file)]) == 2
    assert "never overwritten" in capsys.readouterr().err.replace("\n", " ")
    assert json.loads(file.read_text())["d"] == secret
    file.chmod(0o644)
    assert run(["keys", "show", str(file)]) == 2


def test_there_is_no_other_way_to_sign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "new", str(tmp_path / "key"), "--alg", "HS256"]) == 2
    assert "ES256 or EdDSA" in capsys.readouterr().err
    assert not (tmp_path / "key").exists()


def test_verify_says_whether_it_is_signed_and_by_which_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    private, jwks, file = tmp_path / "key.json", tmp_path / "jwks.json", tmp_path / "withdrawal.json"
    run(["keys", "new", str(private)])
    jwks.write_text(capsys.readouterr().out)
    key = signature_key(private.read_text())
    made = seal_withdrawal("F-001", "iasios", "sha256:" + "0" * 64, "other", "0.1.0", NOW)

    def said(bundle: dict[str, Any], *more: str) -> tuple[int, str]:
        file.write_text(json.dumps(bundle))
        code = run(["verify", str(file), "--json", *more])
        found = {one["check"]: one["words"] for one in json.loads(capsys.readouterr().out)}
        assert found["structure"] == f"a withdrawal of sha256:{'0' * 64}, reason: other"
        return code, found["signature"]

    signed = sign_bundle(made, key, when=NOW)
    assert said(made) == (0, "not signed")
    assert said(made, "--jwks", str(jwks)) == (1, "the Bundle is not signed")
    assert said(signed) == (0, "signed, not checked: no keys given")
    assert said(signed, "--jwks", str(jwks)) == (0, f"signed by kid {key.kid}")
    code, words = said({**signed, "timestamp": "2026-01-06T03:00:00+00:00"}, "--jwks", str(jwks))
    assert (code, "was changed" in words) == (1, True)
    assert run(["verify", str(file), "--jwks", str(private)]) == 1  # a key, but no set of them
    assert "is no JWKS" in capsys.readouterr().err


def test_the_pseudonym_key_is_changed_for_the_draws_to_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, path = tmp_path / "hospital.yaml", tmp_path / "pseudonym.key"
    document = {"facility": {"code": "F-1"}, "sources": [{"name": "s", "kind": "files", "paths": ["x"]}]}
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    first = pseudonym_key(path)
    drawn = [StoredCase(1, "case", patient_token(first, "F-1", "Patient/1"), "Patient/1", "2025-05-05", "tace", ())]
    window = ("2025-01-01", "2025-12-31")
    ledger = new_ledger(tmp_path / "ledger.sqlite")
    with ledger.begin() as connection:
        draw = commit_frame(connection, "iasios", "2025", window, b"{}", "sha256:a", 9, NOW)
    assert run(["keys", "rotate", "-c", str(config)]) == 2
    assert "nobody is drawn from it yet" in capsys.readouterr().err.replace("\n", " ")
    assert pseudonym_key(path) == first
    with ledger.begin() as connection:
        put_nonce(connection, draw, "5a" * 32, "local", NOW)
        put_cases(connection, draw, drawn, NOW)
    assert run(["keys", "rotate", "-c", str(config)]) == 0
    (former,) = tmp_path.glob("pseudonym.key.until-*")
    assert former.stat().st_mode & 0o777 == 0o600
    assert pseudonym_key(path) not in {first, b""}
    assert key_of(path, "F-1", drawn) == first  # the draw under way keeps its own
    assert key_of(path, "F-1", []) == pseudonym_key(path)
    with ledger.read() as connection:
        assert [(one.entity, one.detail) for one in entries(connection)] == [("Key/pseudonym", "changed")]
    ledger.close()
    former.unlink()
    with pytest.raises(ReviewError, match="not the one that the cases were drawn with"):
        key_of(path, "F-1", drawn)
