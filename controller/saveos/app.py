"""The application: mounts every feature's routes, one error handler, probes and metrics."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response
from fastapi.routing import APIRoute
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from saveos import __version__
from saveos.accounts import api as accounts
from saveos.accounts.access import Actor, current_actor, find_actor, require
from saveos.accounts.models import Tenant
from saveos.alerts import api as alerts
from saveos.alerts.service import count_alerts
from saveos.archives import api as archives
from saveos.checkins import api as checkins
from saveos.checkins.intake import Intake
from saveos.core import docs, web
from saveos.core.clock import now
from saveos.core.errors import Forbidden, Unauthenticated
from saveos.core.feed import Feed
from saveos.core.settings import get_settings
from saveos.core.web import SessionDep, State, StateDep
from saveos.dashboard import api as dashboard
from saveos.enrolment import api as enrolment
from saveos.hosts import api as hosts
from saveos.hosts.models import Host
from saveos.hosts.service import protection_sql
from saveos.jobs import api as jobs
from saveos.jobs.dispatch import connect
from saveos.jobs.models import Job
from saveos.maintenance import api as maintenance
from saveos.maintenance import system
from saveos.maintenance.system import SystemHealth
from saveos.policies import api as policies
from saveos.repositories import api as repositories
from saveos.repositories.metrics import figures as storage_figures
from saveos.restores import api as restores
from saveos.restores.transfers import Transfers
from saveos.schedules import api as schedules
from saveos.secrets import api as secrets
from saveos.upkeep.opening import open_database
from saveos.worker import Worker

FEATURES = (
    checkins,  # first, because a request is matched with one route after the other and agents ask most
    accounts,
    secrets,
    hosts,
    alerts,
    repositories,
    policies,
    archives,
    jobs,
    restores,
    maintenance,
    schedules,
    enrolment,
)
PREFIX = "/api/v1"
DESCRIPTION = "Backs up and maintains a fleet of Linux servers. Errors are problem documents (RFC 9457)."
LOOPBACK = ("127.0.0.1", "::1")


def create_app() -> FastAPI:
    """Make the application. It reads settings and opens the database only when it starts.

    `app.state.run_worker` (True) says whether the worker's loops run in this process too.
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
        app.include_router(feature.router, prefix=PREFIX)
    app.include_router(enrolment.files)
    dashboard.install(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings = get_settings()
    state = State(settings, await run_in_threadpool(open_database, settings), Feed())
    state.bell, listener = connect(state.database, state.feed)
    state.intake = Intake(state.database)
    state.transfers = Transfers()
    app.state.saveos = state
    worker = Worker(settings, state.database, state.bell) if app.state.run_worker else None
    if worker:
        worker.start()
    try:
        yield
    finally:
        await run_in_threadpool(state.intake.close)
        if worker:
            await run_in_threadpool(worker.stop)
        if listener:
            await run_in_threadpool(listener.close)
        state.database.close()


def _operation_id(route: APIRoute) -> str:
    return route.name


def _mount_probes(app: FastAPI) -> None:
    @app.get("/health", tags=["probes"])
    @app.get(f"{PREFIX}/health", tags=["probes"], name="api_health")
    def health() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "ok"}

    @app.get(f"{PREFIX}/system/health", tags=["probes"])
    def system_health(
        session: SessionDep, state: StateDep, _actor: Annotated[Actor, Depends(require("system:read"))]
    ) -> SystemHealth:
        """Say how the controller is: database, queue, workers, sweeps, certificates, disk, own backup."""
        return system.system_health(session, state.settings)

    @app.get("/metrics", tags=["probes"], response_class=Response)
    def metrics(
        request: Request,
        session: SessionDep,
        state: StateDep,
        actor: Annotated[Actor | None, Depends(find_actor)],
    ) -> Response:
        """Give metrics in Prometheus' form: to this machine, or to a token with the right system:read."""
        tenant_id = _metrics_tenant(request, actor)
        lines = [*_metrics(session, tenant_id), *_system_metrics(system.system_health(session, state.settings))]
        return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    @app.get("/openapi.json", include_in_schema=False, dependencies=[Depends(current_actor)])
    def openapi() -> dict[str, object]:
        """Return the OpenAPI document."""
        return app.openapi()

    @app.get("/docs", include_in_schema=False, dependencies=[Depends(current_actor)])
    def reference() -> Response:
        """Show the API's reference."""
        return docs.page(app.openapi())


def _metrics_tenant(request: Request, actor: Actor | None) -> uuid.UUID | None:
    """Return the tenant that the asker sees, None for all. Raises Unauthenticated, Forbidden."""
    if actor is not None:
        if not actor.may("system:read"):
            raise Forbidden("metrics need the right system:read")
        return actor.tenant_id
    near = request.client is not None and request.client.host in LOOPBACK
    if not near or {"forwarded", "x-forwarded-for"} & set(request.headers):
        raise Unauthenticated("metrics are for this machine; elsewhere send a token with the right system:read")
    return None


def _metrics(session: Session, tenant_id: uuid.UUID | None) -> Iterator[str]:
    yield from _head("saveos_build_info", "The controller's version.")
    yield f'saveos_build_info{{version="{__version__}"}} 1'
    columns = (Tenant.name, Host.name, Host.last_backup_at, Host.last_proven_at, protection_sql(now()))
    fleet = select(*columns).join(Tenant, Tenant.id == Host.tenant_id)
    queue = select(Tenant.name, Job.state, func.count()).join(Tenant, Tenant.id == Job.tenant_id)
    queue = queue.group_by(Tenant.name, Job.state)
    if tenant_id:
        fleet, queue = fleet.where(Host.tenant_id == tenant_id), queue.where(Job.tenant_id == tenant_id)
    rows = session.execute(fleet.where(Host.state != "decommissioned").order_by(Host.name)).all()
    yield from _head("saveos_hosts", "Hosts by protection.")
    counts: dict[tuple[str, str], int] = {}
    for tenant, *_, protection in rows:
        counts[tenant, protection] = counts.get((tenant, protection), 0) + 1
    for (tenant, protection), count in sorted(counts.items()):
        yield f'saveos_hosts{{tenant="{_label(tenant)}",protection="{protection}"}} {count}'
    yield from _head("saveos_host_last_backup_age_seconds", "Age of each host's last backup.")
    at = now()
    for tenant, host, last_backup_at, *_ in rows:
        if last_backup_at:
            age = round((at - last_backup_at).total_seconds())
            yield f'saveos_host_last_backup_age_seconds{{tenant="{_label(tenant)}",host="{host}"}} {age}'
    yield from _head("saveos_last_proven_timestamp", "When a drill last restored each host's newest archives.")
    for tenant, host, _, proven, _ in rows:
        if proven:
            moment = round(proven.timestamp())
            yield f'saveos_last_proven_timestamp{{tenant="{_label(tenant)}",host="{host}"}} {moment}'
    for figure, about, values in storage_figures(session, tenant_id):
        yield from _head(figure, about)
        for named, value in values:
            shown = ",".join(f'{key}="{_label(text)}"' for key, text in named.items())
            yield f"{figure}{{{shown}}} {value}"
    yield from _head("saveos_jobs", "Jobs by state.")
    for tenant, state, count in session.execute(queue.order_by(Tenant.name, Job.state)):
        yield f'saveos_jobs{{tenant="{_label(tenant)}",state="{state}"}} {count}'
    yield from _head("saveos_alerts", "Alerts that are not resolved.")
    for tenant, rule, severity, state, count in count_alerts(session, tenant_id):
        labels = f'tenant="{_label(tenant)}",rule="{rule}",severity="{severity}",state="{state}"'
        yield f"saveos_alerts{{{labels}}} {count}"


def _system_metrics(found: SystemHealth) -> Iterator[str]:
    """Yield how the controller itself is; the same for every tenant."""
    yield from _head("saveos_system_state", "How the controller is: 0 ok, 1 warning, 2 critical.")
    yield f"saveos_system_state {('ok', 'warning', 'critical').index(found.status)}"
    yield from _head("saveos_workers", "Workers that are alive.")
    yield f"saveos_workers {len(found.workers)}"
    yield from _head("saveos_queue_oldest_seconds", "How long the oldest queued job has waited.")
    yield f"saveos_queue_oldest_seconds {found.queue.oldest_seconds}"
    yield from _head("saveos_database_seconds", "What the database takes for nothing.")
    yield f"saveos_database_seconds {found.database.milliseconds / 1000:.4f}"
    yield from _head("saveos_disk_free_bytes", "Free bytes where the controller's home is.")
    yield f"saveos_disk_free_bytes {found.disk.free}"
    for each in found.certificates[:1]:
        yield from _head("saveos_certificate_end_timestamp", "When the controller's certificate ends.")
        yield f"saveos_certificate_end_timestamp {round(each.ends_at.timestamp())}"


def _head(name: str, about: str) -> tuple[str, str]:
    return f"# HELP {name} {about}", f"# TYPE {name} gauge"


def _label(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
