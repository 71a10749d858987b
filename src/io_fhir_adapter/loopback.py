"""Run an ASGI application over real HTTP on a loopback port, for the demo and for tests."""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType
from typing import Any, Self

import uvicorn

from io_fhir_adapter.errors import AdapterError

__all__ = ["LoopbackServer", "until_stopped"]

_START_TIMEOUT_S = 20.0
_LOOK_S = 3600.0


class LoopbackServer:
    """A context manager that serves ``app``, usually on ``127.0.0.1``, from a thread of its own.

    Args:
        app: Any ASGI application.
        port: The port, 0 for any free one.
        host: Another address of this machine, for what stands behind a reverse proxy.
    """

    def __init__(self, app: Any, port: int = 0, host: str = "127.0.0.1") -> None:
        # with the protocol named, asyncio sets TCP_NODELAY; without it every answer waits 40 ms
        self._host = f"[{host}]" if ":" in host else host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as exc:
            self._socket.close()
            raise AdapterError(
                "the port is in use", where=f"{self._host}:{port}", do="choose another one or stop what listens there"
            ) from exc
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="loopback-server", daemon=True)

    @property
    def base_url(self) -> str:
        """The origin, such as ``http://127.0.0.1:41237``."""
        return f"http://{self._host}:{self._socket.getsockname()[1]}"

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def __enter__(self) -> Self:
        self._socket.listen(128)
        self._thread.start()
        waited = threading.Event()
        for _ in range(int(_START_TIMEOUT_S / 0.01)):
            if self._server.started:
                return self
            if not self._thread.is_alive():
                break
            waited.wait(0.01)
        raise AdapterError("the embedded server did not start", where=self.base_url)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket.close()


def until_stopped() -> None:
    """Waits until somebody presses Ctrl+C."""
    try:
        while True:
            time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        return
