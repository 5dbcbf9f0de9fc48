"""Health and metrics over HTTP: `/livez`, `/readyz`, `/metrics`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from etl.errors import ConfigurationError
from etl.pipeline.loading import LoadReport
from etl.pipeline.sweep import SweepReport


class Health:
    """Whether the service can do its work, and the figures of what it did."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._troubles: dict[str, str] = {}
        loaded = ("runs", "steps_inserted", "steps_updated", "steps_absent", "failed", "superseded", "set_aside")
        self._loaded = {
            name: Counter(f"orchestra_etl_{name}", LoadReport.__name__ + "." + name, registry=self.registry)
            for name in loaded
        }
        self._listed = Counter(
            "orchestra_etl_new_runs", "Runs found new by sweeps", ["workflow"], registry=self.registry
        )
        self._gaps = Counter(
            "orchestra_etl_gaps", "Possible gaps found by sweeps", ["workflow"], registry=self.registry
        )
        self._swept = Gauge(
            "orchestra_etl_last_sweep_timestamp_seconds",
            "When the last complete sweep ended",
            ["workflow"],
            registry=self.registry,
        )
        ready = Gauge("orchestra_etl_ready", "1 while nothing keeps the service from working", registry=self.registry)
        ready.set_function(lambda: 0 if self._troubles else 1)

    def trouble(self, part: str, problem: str) -> bool:
        """Note that a part cannot work; whether that is news."""
        news = self._troubles.get(part) != problem
        self._troubles[part] = problem
        return news

    def well(self, part: str) -> None:
        """Note that a part works."""
        self._troubles.pop(part, None)

    def count_load(self, report: LoadReport) -> None:
        """Add a pass of polls."""
        for name, counter in self._loaded.items():
            counter.inc(getattr(report, name))

    def count_sweep(self, report: SweepReport) -> None:
        """Add a sweep."""
        self._listed.labels(report.workflow_id).inc(report.new)
        self._gaps.labels(report.workflow_id).inc(report.gap is not None)
        if report.complete:
            self._swept.labels(report.workflow_id).set_to_current_time()

    @asynccontextmanager
    async def served(self, host: str, port: int) -> AsyncIterator[None]:
        """Serve until the block ends; port 0 serves nothing.

        Raises:
            ConfigurationError: the address cannot be used.
        """
        if port == 0:
            yield
            return
        application = web.Application()
        application.add_routes(
            [web.get("/livez", self._live), web.get("/readyz", self._ready), web.get("/metrics", self._metrics)]
        )
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, host, port).start()
            except OSError as error:
                raise ConfigurationError(
                    f"cannot listen on {host}:{port} ({error.strerror}): set service.port to a free port, or to 0 for none"
                ) from None
            yield
        finally:
            await runner.cleanup()

    async def _live(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:
        lines = [f"{part}: {problem}\n" for part, problem in sorted(self._troubles.items())]
        return web.Response(text="".join(lines) or "ok\n", status=503 if lines else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
