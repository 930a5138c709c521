"""The dashboard's routes, and what it adds to the application."""

from fastapi import APIRouter, Depends, FastAPI

from saveos.dashboard.rendering import localise, problem_page
from saveos.dashboard.views import (
    accounts,
    add_host,
    alerts,
    archives,
    bulk,
    enrol,
    feed,
    find,
    hosts,
    jobs,
    overview,
    policies,
    schedules,
)

router = APIRouter(dependencies=[Depends(localise)], include_in_schema=False)
PAGES = (overview, add_host, bulk, enrol, hosts, jobs, archives, alerts, policies, schedules, find, accounts)
for each in PAGES:
    router.include_router(each.router)
router.include_router(feed.router)


def install(app: FastAPI) -> None:
    """Mount the pages, and render problems as pages for people."""
    app.include_router(router)
    app.state.error_page = problem_page
