"""What every section of the configuration shares: no unknown key, no secret inside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from io_fhir_adapter.errors import ConfigError

__all__ = ["Part", "SecretRef"]


class Part(BaseModel):
    """A section of the configuration: unknown keys refused, unchangeable once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SecretRef(Part):
    """A secret by reference: exactly one of a file and an environment variable."""

    file: Path | None = None
    env: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _named_not_written(cls, value: Any) -> Any:
        if not isinstance(value, dict | SecretRef):
            msg = "a secret is named here, never written: { env: NAME } or { file: PATH }"
            raise ValueError(msg)  # noqa: TRY004 - pydantic wants a ValueError
        return value

    @model_validator(mode="after")
    def _one_of_two(self) -> SecretRef:
        if (self.file is None) == (self.env is None):
            msg = "give exactly one of file and env"
            raise ValueError(msg)
        return self

    def read(self, where: str) -> str:
        """The secret's text, without surrounding white space and without the byte order mark of an editor.

        Raises:
            ConfigError: The file or variable does not exist, is empty or no UTF-8.
        """
        place = str(self.file) if self.env is None else f"environment variable {self.env}"
        try:
            value = Path(place).read_text(encoding="utf-8-sig") if self.env is None else os.environ.get(self.env, "")
            value.encode()  # a variable may hold bytes that are no UTF-8, which could not be sent
        except (OSError, UnicodeError) as exc:
            raise ConfigError(
                f"the secret in {place} cannot be read",
                where=where,
                do="check the path and its permissions, and that it is UTF-8",
                number=3,
            ) from exc
        if not value.strip():
            raise ConfigError(f"the secret in {place} is empty", where=where, do="set it and start again", number=3)
        return value.strip()
