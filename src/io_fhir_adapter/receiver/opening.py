"""Opening the receiver's database by what somebody typed."""

from __future__ import annotations

import sqlalchemy as sa

from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.receiver.store import ReceiverStore

__all__ = ["open_store"]


def open_store(place: str) -> ReceiverStore:
    """The store in a file, or at a SQLAlchemy URL; its tables are made where they are not there.

    Raises:
        ConfigError: It cannot be opened.
    """
    url = place if "://" in place else f"sqlite:///{place}"
    shown = place
    try:
        shown = sa.make_url(url).render_as_string(hide_password=True) if url == place else place
        return ReceiverStore(url)
    except (sa.exc.SQLAlchemyError, ImportError) as exc:  # no such kind of database, its driver, or nobody there
        raise ConfigError(
            f"the receiver's database cannot be opened ({type(exc).__name__})",
            where=shown,
            do="check the path or URL, and that the database is up and may be written to",
            number=46,
        ) from exc
