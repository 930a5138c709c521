"""The dashboard's routes, and what it adds to the application."""

from fastapi import APIRouter, Depends, FastAPI

from saveos.dashboard.rendering import localise, problem_page
from saveos.dashboard.views import (
    accounts,
    add_host,
    alerts,
    archives,
    audit,
    bulk,
    channels,
    drills,
    enrol,
    feed,
    files,
    find,
    hosts,
    jobs,
    maintenance,
    measure,
    overview,
    policies,
    restores,
    schedules,
    secrets,
    storage,
    team,
)

router = APIRouter(dependencies=[Depends(localise)], include_in_schema=False)
HOSTS = (overview, add_host, bulk, enrol, hosts, jobs, archives, files, restores)
CARE = (drills, maintenance, measure, secrets, storage)
for each in (*HOSTS, *CARE, channels, alerts, policies, schedules, find, accounts, team, audit):
    router.include_router(each.router)
router.include_router(feed.router)


def install(app: FastAPI) -> None:
    """Mount the pages, and render problems as pages for people."""
    app.include_router(router)
    app.state.error_page = problem_page
