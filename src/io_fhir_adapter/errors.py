"""The error tree: what went wrong, where, and what the user does about it.

Every error that a user can cause is one of these::

    AdapterError
    ├── UsageError          IOA-USE   wrong call or arguments                     exit 2
    ├── ConfigError         IOA-CFG   the configuration file or a secret          exit 2
    ├── MappingError        IOA-MAP   a code table, rule or programme file        exit 2
    ├── InputError          IOA-INP   a file or stream given as input             exit 1
    ├── ResourceError       IOA-RES   one resource; goes to quarantine            (never ends a run)
    ├── TransportError      IOA-NET   HTTP with a server                          exit 1
    │   └── ForeignOriginError        a link that leads to an origin not trusted
    ├── PullError           IOA-PUL   a pull that cannot be proved complete       exit 1
    ├── LedgerError         IOA-LED   the local database                          exit 1
    ├── ReviewError         IOA-REV   drawing, de-identifying, pre-filling        exit 1
    │   └── LeakError                 an identifier in what was about to leave
    └── SubmitError         IOA-SUB   sealing, sending, receipts                  exit 1

``code`` is stable (``IOA-PUL-004``); ``transient`` says whether trying again later may help.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AdapterError",
    "ConfigError",
    "ForeignOriginError",
    "InputError",
    "LeakError",
    "LedgerError",
    "MappingError",
    "PullError",
    "ResourceError",
    "ReviewError",
    "SubmitError",
    "TransportError",
    "UsageError",
]


class AdapterError(Exception):
    """An error with a stable code and a sentence that says what, where and what to do.

    Args:
        what: What happened, without patient data.
        where: The file and line, resource position or server it happened at.
        do: What the user can do about it.
        number: The number within the class's family, for the stable code.
        transient: Whether the same call may succeed later; the class's default when omitted.
    """

    family: ClassVar[str] = "IOA-GEN"
    exit_code: ClassVar[int] = 1
    transient_by_default: ClassVar[bool] = False

    def __init__(
        self, what: str, *, where: str = "", do: str = "", number: int = 1, transient: bool | None = None
    ) -> None:
        self.what = what
        self.where = where
        self.do = do
        self.code = f"{self.family}-{number:03d}"
        self.transient = self.transient_by_default if transient is None else transient
        super().__init__(self.sentence)

    @property
    def sentence(self) -> str:
        """The whole message on one line."""
        parts = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.do:
            parts.append(self.do)
        text = "; ".join(part.rstrip(" .;") for part in parts)
        return f"{' '.join(text.split())} [{self.code}]"


class UsageError(AdapterError):
    """The command line asks for something that does not exist or does not fit together."""

    family = "IOA-USE"
    exit_code = 2


class ConfigError(AdapterError):
    """The configuration file, or a secret it names, cannot be used."""

    family = "IOA-CFG"
    exit_code = 2


class MappingError(AdapterError):
    """A code table, session rule, indication table or programme file is wrong."""

    family = "IOA-MAP"
    exit_code = 2


class InputError(AdapterError):
    """A file or stream given as input cannot be read."""

    family = "IOA-INP"


class ResourceError(AdapterError):
    """One resource cannot be used; it goes to quarantine and the run goes on."""

    family = "IOA-RES"


class TransportError(AdapterError):
    """A server could not be reached or answered with something that cannot be used."""

    family = "IOA-NET"
    transient_by_default = True

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        do: str = "",
        number: int = 1,
        transient: bool | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what, where=where, do=do, number=number, transient=transient)
        self.status = status
        self.retry_after = retry_after


class ForeignOriginError(TransportError):
    """A link leads to an origin that the configuration does not trust; no request was made."""

    transient_by_default = False


class PullError(AdapterError):
    """A pull could not be proved complete; no cursor moved."""

    family = "IOA-PUL"


class LedgerError(AdapterError):
    """The local database cannot be opened, read or written."""

    family = "IOA-LED"


class ReviewError(AdapterError):
    """A draw, a de-identification or a pre-filled form could not be made."""

    family = "IOA-REV"


class LeakError(ReviewError):
    """Something about to leave holds an identifier of a patient or practitioner; nothing was queued."""


class SubmitError(AdapterError):
    """A submission could not be sealed, sent or was not accepted."""

    family = "IOA-SUB"
