"""Sending one message, by Apprise: mail, Teams, Slack, Matrix, webhooks and some hundred others.

Apprise is an extra, and imported when there is something to send. It makes its own requests, to the addresses of the
configuration alone.
"""

from __future__ import annotations

from typing import Any, Final

from io_fhir_adapter.config.notify import TargetConfig
from io_fhir_adapter.errors import ConfigError, TransportError

__all__ = ["FOOT", "send"]

FOOT: Final = "Sent by io-fhir-adapter. This message holds no patient data; the adapter's pages have the details."
_TIMEOUT_S: Final = 30


def send(target: TargetConfig, title: str, text: str, *, kind: str) -> None:
    """Sends a message.

    Args:
        target: Where to.
        title: One line.
        text: Plain text; a line that says who sends it is added.
        kind: How it is marked where the target can mark it: ``info``, ``success``, ``warning`` or ``failure``.

    Raises:
        ConfigError: Apprise is not installed, or the address is none that it knows.
        TransportError: It did not arrive.
    """
    where = f"notify target {target.name}"
    try:
        from apprise import Apprise, AppriseAsset, PersistentStoreMode  # noqa: PLC0415 - an extra
    except ImportError as exc:
        do = 'install it: pip install "io-fhir-adapter[notify]"'
        raise ConfigError("Apprise, which messages are sent with, is not installed", where=where, do=do,
                          number=60) from exc  # fmt: skip
    asset = AppriseAsset(app_id="io-fhir-adapter", app_desc="io-fhir-adapter", app_url="", async_mode=False,
                         storage_mode=PersistentStoreMode.MEMORY)  # fmt: skip
    service: Any = Apprise(asset=asset)
    if not service.add(target.url.read(where)):
        raise ConfigError("the address is none that Apprise knows", where=where, do="write it as Apprise's manual says",
                          number=61)  # fmt: skip
    if not service.notify(body=f"{text}\n\n{FOOT}", title=title, notify_type=kind, timeout=_TIMEOUT_S):
        raise TransportError("the message did not arrive", where=where, do="check its address with notify test",
                             number=60)  # fmt: skip
