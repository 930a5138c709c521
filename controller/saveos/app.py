"""The application: mounts every feature's routes, one error handler, probes and metrics."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from fastapi import Depends, FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from saveos import __version__, migrations
from saveos.accounts.access import current_actor, find_actor
from saveos.accounts.service import bootstrap
from saveos.core import docs, security, web
from saveos.core.database import Database
from saveos.core.feed import Feed
from saveos.core.settings import Settings, get_settings
from saveos.dashboard import api as dashboard
from saveos.jobs.dispatch import connect
from saveos.policies.service import ensure_default
from saveos.worker import Worker

log = logging.getLogger(__name__)

FEATURES = (
    "accounts",
    "hosts",
    "repositories",
    "policies",
    "archives",
    "checkins",
    "jobs",
    "restores",
    "maintenance",
)
PREFIX = "/api/v1"
DESCRIPTION = "Backs up and maintains a fleet of Linux servers. Errors are problem documents (RFC 9457)."


def create_app() -> FastAPI:
    """Make the application. It reads settings and opens the database only when it starts.

    `app.state.run_worker` (True) says whether the worker loops run in this process too.
    """
    app = FastAPI(
        title="SaveOS",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        responses=web.PROBLEMS,
        generate_unique_id_function=_operation_id,
    )
    app.state.run_worker = True
    web.install(app)
    _mount_probes(app)
    for feature in FEATURES:
        if find_spec(f"saveos.{feature}.api"):
            router = import_module(f"saveos.{feature}.api").router
            # Who asks is found before a route opens its session: noting a token's use writes in a
            # transaction of its own, and would wait for ever for the write lock of the very request.
            app.include_router(router, prefix=PREFIX, dependencies=[Depends(find_actor)])
    dashboard.install(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings = get_settings()
    state = await run_in_threadpool(open_state, settings)
    state.bell, listener = connect(state.database, state.feed)
    app.state.saveos = state
    worker = Worker(settings, state.database, state.bell) if app.state.run_worker else None
    if worker:
        worker.start()
    try:
        yield
    finally:
        if worker:
            await run_in_threadpool(worker.stop)
        if listener:
            await run_in_threadpool(listener.close)
        state.database.close()


def open_state(settings: Settings) -> web.State:
    """Make the home, load the KEK, migrate, do the first set-up. Raises ValueError on a bad KEK."""
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = Database(settings.sqlalchemy_url, security.load_kek(settings.home))
    migrations.upgrade(database)
    with database.session() as session:
        made = bootstrap(session)
        ensure_default(session, made.tenant_id)
        if made.password:
            _write_private(settings.home / "admin-password", made.password)
    return web.State(settings, database, Feed())


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{text}\n")


def _operation_id(route: APIRoute) -> str:
    return route.name


def _mount_probes(app: FastAPI) -> None:
    @app.get("/health", tags=["probes"])
    @app.get(f"{PREFIX}/health", tags=["probes"], name="api_health")
    def health() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "ok"}

    @app.get("/openapi.json", include_in_schema=False, dependencies=[Depends(current_actor)])
    def openapi() -> dict[str, object]:
        """Return the OpenAPI document."""
        return app.openapi()

    @app.get("/docs", include_in_schema=False, dependencies=[Depends(current_actor)])
    def reference(_request: Request) -> Response:
        """Show the API's reference."""
        return docs.page(app.openapi())
