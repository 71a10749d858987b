"""The manifest of an export: which files there are, and what the server says about them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urljoin

import msgspec

from io_fhir_adapter.errors import PullError
from io_fhir_adapter.fhir.structs import BundleLink

__all__ = ["ISSUES", "Manifest", "ManifestFile", "joined", "manifest_from", "moment_of"]

_COARSE: Final = timedelta(seconds=2)  # how far behind the clock an HTTP date may be
_EARLIEST: Final = datetime(1900, 1, 1, tzinfo=UTC)  # an earlier moment stands for none at all
ISSUES: Final = "OperationOutcome"
"""The type of files that say what went wrong."""


class ManifestFile(msgspec.Struct, frozen=True):
    """One file; ``type`` is empty where it mixes types, ``count`` None where the server does not say."""

    url: str
    type: str = ""
    count: int | None = None


class Manifest(msgspec.Struct, frozen=True):
    """A manifest, or one page of it. Names are those of the Bulk Data specification.

    ``outcome`` is the name that ``error`` bears in later versions.
    """

    transactionTime: str
    output: tuple[ManifestFile, ...] | None = ()
    requiresAccessToken: bool = True
    deleted: tuple[ManifestFile, ...] | None = ()
    error: tuple[ManifestFile, ...] | None = ()
    outcome: tuple[ManifestFile, ...] | None = ()
    link: tuple[BundleLink, ...] | None = ()

    @property
    def files(self) -> tuple[ManifestFile, ...]:
        """What was exported; some servers name :data:`ISSUES` here, too."""
        return self.output or ()

    @property
    def deletions(self) -> tuple[ManifestFile, ...]:
        """What was deleted."""
        return self.deleted or ()

    @property
    def failures(self) -> tuple[ManifestFile, ...]:
        """What the server says about the export."""
        return (*(self.error or ()), *(self.outcome or ()))

    @property
    def next_link(self) -> str:
        """Where the manifest goes on, empty on its last page."""
        return next((link.url for link in self.link or () if link.relation == "next" and link.url), "")

    def based_on(self, url: str) -> Manifest:
        """The manifest with the addresses of its files made absolute.

        Raises:
            PullError: One of them is no URL.
        """

        def absolute(files: tuple[ManifestFile, ...]) -> tuple[ManifestFile, ...]:
            try:
                return tuple(msgspec.structs.replace(file, url=urljoin(url, file.url)) for file in files)
            except ValueError as exc:
                raise PullError(
                    "the export's manifest names a file at an address that is no URL",
                    do="report this to the server's vendor",
                    number=35,
                ) from exc

        return msgspec.structs.replace(
            self,
            output=absolute(self.files),
            deleted=absolute(self.deletions),
            error=absolute(self.failures),
            outcome=(),
        )

    @property
    def moment(self) -> datetime:
        """The server's time that the export shows: everything up to it is in, later changes may be.

        Raises:
            PullError: It is no instant.
        """
        return moment_of(self.transactionTime)

    def not_after(self, asked: str) -> Manifest:
        """The manifest with the time at which it was asked for, where the server says a later one.

        Some servers say when the export was done. What was changed while they wrote it may not be in, and a cursor at
        that time would hide it. An HTTP date tells whole seconds, and many servers look at the clock for it only once
        a second: a manifest's time so close to it is the same moment, told more finely.

        Args:
            asked: The server's time at the kick-off, an HTTP date; empty where it said none.
        """
        try:
            moment = parsedate_to_datetime(asked)
        except (ValueError, OverflowError):
            return self
        moment = moment.replace(tzinfo=moment.tzinfo or UTC)
        if self.moment - moment < _COARSE:
            return self
        return msgspec.structs.replace(self, transactionTime=moment.isoformat())


_MANIFEST: Final = msgspec.json.Decoder(Manifest, strict=False)  # some write a count as text


def moment_of(text: str) -> datetime:
    """An instant in UTC.

    Raises:
        PullError: It is none.
    """
    moment: datetime | None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        moment = None
    if moment is None or moment < _EARLIEST:
        raise PullError(
            "the manifest's transactionTime is no instant", do="report this to the server's vendor", number=21
        )
    return moment


def manifest_from(body: bytes, where: str, *, transient: bool = True) -> Manifest:
    """A manifest out of an answer.

    Args:
        body: The answer's body.
        where: The server, for messages.
        transient: Whether asking once more may help.

    Raises:
        PullError: It is none; maybe a proxy's page, or cut off.
    """
    try:
        found = _MANIFEST.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise PullError(
            "the export's manifest cannot be read",
            where=where,
            do="run again; check the proxies in between and the server's log if it persists",
            number=20,
            transient=transient,
        ) from exc
    found.moment  # noqa: B018 - one that says no time is refused here
    return found


def joined(pages: list[Manifest]) -> Manifest:
    """All pages of a manifest as one; the earliest time holds, and a token is needed where any page says so."""
    return Manifest(
        transactionTime=min(pages, key=lambda page: page.moment).transactionTime,
        output=tuple(file for page in pages for file in page.files),
        requiresAccessToken=any(page.requiresAccessToken for page in pages),
        deleted=tuple(file for page in pages for file in page.deletions),
        error=tuple(file for page in pages for file in page.failures),
    )
