"""The service: schedule, report page, health and metrics in one process. A first cut of it."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime

import uvicorn
from fastapi import Depends, FastAPI, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import Config
from io_fhir_adapter.errors import AdapterError, UsageError
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.outbox import pending
from io_fhir_adapter.ledger.runs import last_run
from io_fhir_adapter.logs import log
from io_fhir_adapter.pipeline import Night
from io_fhir_adapter.serve.nights import Nights
from io_fhir_adapter.serve.pages import install_pages
from io_fhir_adapter.serve.schedule import NIGHTLY, make_scheduler, missed
from io_fhir_adapter.serve.web import Web

__all__ = ["Metrics", "create_app", "serve_forever"]

_STOP_S = 5
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


class Metrics:
    """What /metrics shows; names are part of the manual."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.runs = Counter("io_fhir_adapter_runs", "Nightly runs by outcome", ["outcome"], registry=self.registry)
        self.counted = Gauge("io_fhir_adapter_counted", "Counted sessions of the reported year", registry=self.registry)
        self.quarantined = Gauge("io_fhir_adapter_quarantined", "Procedures set aside", registry=self.registry)
        self.pending = Gauge("io_fhir_adapter_outbox_pending", "Submissions not ended", registry=self.registry)
        self.last_success = Gauge(
            "io_fhir_adapter_last_success_timestamp_seconds", "End of the last complete run", registry=self.registry
        )

    def see(self, night: Night | None) -> None:
        """Takes the numbers of a night."""
        done = night is not None and night.problem is None
        self.runs.labels("complete" if done else "failed").inc()
        if done:
            self.last_success.set(datetime.now(UTC).timestamp())
        if night is not None and night.volume is not None and night.complete:
            self.counted.set(night.volume.counted)
            self.quarantined.set(night.volume.seen.quarantined)

    def remember(self, ledger: Ledger) -> None:
        """Takes what the ledger still knows of the last run, so that a restart is no gap."""
        with ledger.read() as connection:
            run = last_run(connection)
        if run is not None and run.state == "complete" and run.finished:
            self.last_success.set(datetime.fromisoformat(run.finished).timestamp())
            self.counted.set(run.summary.get("counted", 0))


def create_app(
    config: Config, ledger: Ledger, ruleset: Ruleset, host: str = "127.0.0.1", *, as_of: date | None = None
) -> FastAPI:
    """The service as an ASGI application; the schedule runs while it does.

    Args:
        config: The facility's configuration.
        ledger: Its ledger.
        ruleset: What decides.
        host: The address that it listens on.
        as_of: The local date that the case pages work on; each day's own where omitted.
    """
    metrics = Metrics()
    nights = Nights(config, ledger, ruleset)

    async def night() -> None:
        metrics.see(await nights.run())

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        metrics.remember(ledger)
        scheduler = make_scheduler(config.schedule, config.facility.time_zone, night)
        with ledger.read() as connection:
            last = last_run(connection)
        late = missed(config.schedule, config.facility.time_zone, last, datetime.now(UTC))
        scheduler.start()
        if late:
            scheduler.modify_job(NIGHTLY, next_run_time=datetime.now(UTC))
        log.info("scheduled", next=str(scheduler.get_job(NIGHTLY).next_run_time), missed=late)
        yield
        nights.stop()
        scheduler.shutdown(wait=False)

    app = FastAPI(title="io-fhir-adapter", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

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
        with ledger.read() as connection:
            metrics.pending.set(len(pending(connection)))
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    web = Web(config, ledger, host=host) if config.sign_in is not None else None
    if web is not None:
        web.install(app)
        install_pages(app, web, ruleset, as_of)
    readers = [Depends(web.person())] if web is not None else []

    @app.get("/report" if web is not None else "/", response_class=HTMLResponse, dependencies=readers)
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
    app = create_app(config, ledger, ruleset, host)
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
        uvicorn.Server(settings).run(sockets=[listener])


def _end_quietly(_number: int, _frame: object) -> None:
    """Uvicorn ends at a signal and then sends it once more; by then everything is done."""
