"""The service: schedule, report page, health and metrics in one process. A first cut of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import Config
from io_fhir_adapter.errors import AdapterError
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.outbox import pending
from io_fhir_adapter.ledger.runs import last_run
from io_fhir_adapter.logs import log
from io_fhir_adapter.pipeline import Nightly
from io_fhir_adapter.serve.schedule import NIGHTLY, make_scheduler

__all__ = ["Metrics", "create_app", "serve_forever"]

_STOP_S = 20
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_NO_REPORT = "<!doctype html><title>io-fhir-adapter</title><p>No night has run yet; the report comes after the first."


class Metrics:
    """What /metrics shows; names are part of the manual."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.runs = Counter("io_fhir_adapter_runs", "Nightly runs by outcome", ["outcome"], registry=self.registry)
        self.counted = Gauge("io_fhir_adapter_counted", "Counted sessions of the reported year", registry=self.registry)
        self.quarantined = Gauge("io_fhir_adapter_quarantined", "Resources set aside", registry=self.registry)
        self.pending = Gauge("io_fhir_adapter_outbox_pending", "Submissions not ended", registry=self.registry)
        self.last_success = Gauge(
            "io_fhir_adapter_last_success_timestamp_seconds", "End of the last complete run", registry=self.registry
        )


def create_app(config: Config, ledger: Ledger, ruleset: Ruleset) -> FastAPI:
    """The service as an ASGI application; the schedule runs while it does."""
    metrics = Metrics()

    async def night() -> None:
        try:
            await run_night(config, ledger, ruleset, metrics)
        except AdapterError as exc:
            log.error("run failed", code=exc.code)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        scheduler = make_scheduler(config.schedule, config.facility.time_zone, night)
        scheduler.start()
        log.info("scheduled", next=str(scheduler.get_job(NIGHTLY).next_run_time))
        yield
        scheduler.shutdown(wait=False)

    app = FastAPI(title="io-fhir-adapter", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @app.get("/health/live")
    def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/health/ready")
    def ready() -> JSONResponse:
        try:
            with ledger.begin() as connection:
                run = last_run(connection)
        except AdapterError as exc:
            return JSONResponse({"status": "not ready", "code": exc.code}, status_code=503)
        last = {"state": run.state, "started": run.started, "finished": run.finished} if run is not None else None
        return JSONResponse({"status": "ready", "last_run": last})

    @app.get("/metrics")
    def show_metrics() -> Response:
        with ledger.begin() as connection:
            metrics.pending.set(len(pending(connection)))
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", response_class=HTMLResponse)
    def page() -> HTMLResponse:
        report = config.output.folder / "report.html"
        text = report.read_text(encoding="utf-8") if report.is_file() else _NO_REPORT
        return HTMLResponse(text, headers=_HEADERS)

    return app


async def run_night(config: Config, ledger: Ledger, ruleset: Ruleset, metrics: Metrics) -> None:
    """One night of the service: the job, its output, and what the metrics say of it.

    Raises:
        AdapterError: The job failed.
    """
    job = Nightly(config, ledger, ruleset)
    try:
        night = await job.run()
        files: list[Path] = await asyncio.to_thread(job.write_output, night, config.output.folder)
    except AdapterError:
        metrics.runs.labels("failed").inc()
        raise
    metrics.runs.labels("complete").inc()
    metrics.last_success.set(datetime.now(UTC).timestamp())
    if night.volume is not None:
        metrics.counted.set(night.volume.counted)
        metrics.quarantined.set(night.volume.seen.quarantined)
    log.info("run complete", run=night.run, files=len(files))


def serve_forever(config: Config, ledger: Ledger, ruleset: Ruleset, host: str, port: int) -> None:
    """Serves until the process is told to stop."""
    app = create_app(config, ledger, ruleset)
    uvicorn.run(app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=_STOP_S)
