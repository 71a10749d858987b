"""The service: schedule, pages, health and metrics in one process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date, datetime
from types import FrameType

import uvicorn
from fastapi import Depends, FastAPI, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import Config
from io_fhir_adapter.errors import AdapterError, UsageError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.runs import last_run
from io_fhir_adapter.logs import log
from io_fhir_adapter.serve.jobs import Jobs
from io_fhir_adapter.serve.metrics import Metrics
from io_fhir_adapter.serve.nights import jobs_of, window_of

__all__ = ["create_app", "serve_forever"]

_STOP_S = 3
_END_S = 18.0  # of the twenty seconds that whoever stops a service usually waits
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_NO_REPORT = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>io-fhir-adapter</title>'
    "<p>No night has run yet; the report comes after the first.</p></html>"
)


def create_app(
    config: Config,
    ledger: Ledger,
    ruleset: Ruleset,
    host: str = "127.0.0.1",
    *,
    as_of: date | None = None,
    aside: bool = False,
) -> FastAPI:
    """The service as an ASGI application; the schedule runs while it does.

    Args:
        config: The facility's configuration.
        ledger: Its ledger.
        ruleset: What decides.
        host: The address that it listens on.
        as_of: The local date that the case pages work on; each day's own where omitted.
        aside: Whether nights are done by a process of their own; see :func:`.jobs_of`.
    """
    metrics = Metrics()
    after_night: list[Callable[[], None]] = []

    def see(done: bool) -> None:
        metrics.see(done)
        try:
            for step in after_night:
                step()
        except AdapterError as exc:  # nothing is lost: the first who looks has it counted
            log.warning("not counted ahead", code=exc.code)

    jobs = Jobs(ledger, jobs_of(config, ledger, ruleset, see, aside=aside), window_of(config))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        due = jobs.settle()
        jobs.start()
        for name, moment in due.items():
            log.info("scheduled", job=name, due=moment.isoformat(timespec="seconds"))
        yield
        await jobs.stop()

    app = FastAPI(title="io-fhir-adapter", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.jobs = jobs

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/health/ready")
    def ready() -> JSONResponse:
        try:
            with ledger.read() as connection:
                run = last_run(connection)
        except AdapterError as exc:
            return JSONResponse({"status": "not ready", "code": exc.code}, status_code=503)
        last = {"state": run.state, "started": run.started, "finished": run.finished} if run is not None else None
        return JSONResponse({"status": "ready", "last_run": last})

    @app.get("/metrics")
    def show_metrics() -> Response:
        today = datetime.now(zone(config.facility.time_zone)).date()
        return Response(metrics.show(ledger, ruleset, today), media_type=CONTENT_TYPE_LATEST)

    readers = []
    if config.sign_in is not None:
        from io_fhir_adapter.serve.pages import install_pages  # noqa: PLC0415 - a third of the start, for who has pages
        from io_fhir_adapter.serve.web import Web  # noqa: PLC0415

        web = Web(config, ledger, host=host)
        web.install(app)
        after_night.append(install_pages(app, web, ruleset, as_of))
        readers = [Depends(web.person())]

    @app.get("/report" if readers else "/", response_class=HTMLResponse, dependencies=readers)
    async def page() -> HTMLResponse:
        report = config.output.folder / "report.html"
        try:
            text = await asyncio.to_thread(report.read_text, encoding="utf-8")
        except FileNotFoundError:
            text = _NO_REPORT
        return HTMLResponse(text, headers=_HEADERS)

    return app


def serve_forever(config: Config, ledger: Ledger, ruleset: Ruleset, host: str, port: int) -> None:
    """Serves until the process is told to stop.

    Raises:
        UsageError: The address cannot be listened on.
    """
    app = create_app(config, ledger, ruleset, host, aside=True)
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as exc:
        raise UsageError(
            f"the address cannot be listened on ({exc.strerror or type(exc).__name__})",
            where=f"{host}:{port}",
            do="choose another --host or --port, or stop what listens there",
            number=8,
        ) from exc
    with listener:
        log.info("listening", host=host, port=listener.getsockname()[1])
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end_quietly)
        settings = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=_STOP_S)
        _Server(settings, app.state.jobs.stop_soon).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends within twenty seconds of being told to, whatever is under way: what is cut off then is done again."""

    def __init__(self, settings: uvicorn.Config, stop_soon: Callable[[], None]) -> None:
        super().__init__(settings)
        self._stop_soon = stop_soon

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Takes a signal: jobs end while answers are still given."""
        self._stop_soon()
        end = threading.Timer(_END_S, os._exit, (1,))
        end.daemon = True
        end.start()
        super().handle_exit(sig, frame)


def _end_quietly(_number: int, _frame: object) -> None:
    """Uvicorn ends at a signal and then sends it once more; by then everything is done."""
