"""The first reading of a source into an empty ledger: the indexes of facts are made once, at its end.

Each fact belongs to a random page of each index, so that keeping the indexes up to date costs more than storing the
facts. That goes for their key, too: what such a reading meets twice is written twice, and the last one stays when the
key is made. Whoever opens the ledger makes what a reading that was cut off left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, select

from io_fhir_adapter.ledger.database import Ledger, make_indexes
from io_fhir_adapter.ledger.schema import facts

__all__ = ["first_load"]

_KEPT_KIB: Final = -4_096  # what is written is not looked at again; sorting may take as much beside it


@contextmanager
def first_load(ledger: Ledger) -> Iterator[bool]:
    """Puts off the indexes while the block fills a ledger without facts; does nothing for any other.

    The block is told whether it fills such a one.

    Every query works without them, if slowly, and who writes one by one makes the key before. In PostgreSQL, where
    others may look at the ledger meanwhile, they stay.

    Raises:
        LedgerError: The database refused.
    """
    with ledger.begin() as connection:
        put_off = _is_empty(connection)
        if put_off:
            for index in facts.indexes:
                index.drop(connection, checkfirst=True)
            _keep_little(connection)
    try:
        yield put_off
    finally:
        if put_off:
            try:
                with ledger.begin() as connection:
                    _keep_little(connection)  # it may be another one
                    connection.exec_driver_sql("PRAGMA threads=1")  # what is sorted is written by another thread
                    make_indexes(connection)
                ledger.shorten_log()  # the indexes alone fill it with a hundred MiB that would stay
            finally:
                ledger.close()  # connections that are opened anew have the usual settings


def _keep_little(connection: Connection) -> None:
    connection.exec_driver_sql(f"PRAGMA cache_size={_KEPT_KIB}")
    connection.exec_driver_sql("PRAGMA shrink_memory")


def _is_empty(connection: Connection) -> bool:
    if connection.dialect.name != "sqlite":
        return False
    file = connection.exec_driver_sql("SELECT file FROM pragma_database_list WHERE name = 'main'").scalar()
    if not file:  # in memory: it would end with its connections
        return False
    return connection.execute(select(facts.c.id).limit(1)).first() is None
