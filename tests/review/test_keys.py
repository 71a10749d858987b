from __future__ import annotations

import os
from pathlib import Path

import pytest

from io_fhir_adapter.errors import ConfigError, ReviewError
from io_fhir_adapter.ledger.draws import StoredCase
from io_fhir_adapter.review.keys import check_key, pseudonym_key
from io_fhir_adapter.trust.frame import patient_token


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "pseudonym.key"
    key = pseudonym_key(path)
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert pseudonym_key(path) == key
    assert [found.name for found in path.parent.iterdir()] == ["pseudonym.key"]
    assert pseudonym_key(tmp_path / "other.key") != key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644, 0o610])
def test_a_key_that_others_can_get_at_is_refused_at_each_use(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "pseudonym.key"
    key = pseudonym_key(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="others than its owner") as refused:
        pseudonym_key(path)
    assert key.hex() not in str(refused.value)
    path.chmod(0o400)
    assert pseudonym_key(path) == key


@pytest.mark.parametrize("text", ["", "ab" * 8, "no hexadecimal", "\u00e4" * 64])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pseudonym.key"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(ConfigError):
        pseudonym_key(path)


def test_a_place_where_no_key_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be read"):
        pseudonym_key(tmp_path / "file" / "pseudonym.key")


def test_a_key_that_another_process_made_first_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pseudonym.key"
    first = pseudonym_key(path)
    seen = iter([False])  # what a process sees that looked just before the other was done
    monkeypatch.setattr(Path, "exists", lambda _: next(seen))
    assert pseudonym_key(path) == first
    assert os.listdir(tmp_path) == ["pseudonym.key"]  # noqa: PTH208 - Path.exists is not itself here


def test_cases_of_another_key_are_refused() -> None:
    key, other = b"k" * 32, b"q" * 32
    case = StoredCase(1, "case", patient_token(key, "F", "Patient/1"), "Patient/1", "2025-03-02", "tace", ())
    check_key(key, "F", [case])
    for wrong, code in ((other, "F"), (key, "G")):
        with pytest.raises(ReviewError, match="not the one") as refused:
            check_key(wrong, code, [case])
        assert "Patient/1" not in str(refused.value)
