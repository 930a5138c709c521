"""The application's routes, read from its own OpenAPI document, for tests that hold for all of them."""

import re
from dataclasses import dataclass
from typing import Any

import pytest

SOME_ID = "01890000-0000-7000-8000-000000000000"
OPEN = {
    ("GET", "/health"),
    ("GET", "/api/v1/health"),
    ("POST", "/api/v1/auth/login"),
    ("GET", "/api/v1/ca.pem"),
    ("GET", "/enrol.sh"),
    ("GET", "/enrol/saveos-agent"),
}
SELF = {
    ("GET", "/api/v1/auth/me"),
    ("POST", "/api/v1/auth/logout"),
    ("POST", "/api/v1/auth/password"),
    # A host that is not enrolled yet shows a credential of its own kind.
    ("POST", "/api/v1/agents/register"),
    ("GET", "/api/v1/agents/register/{registration_id}"),
    ("POST", "/api/v1/agents/register/{registration_id}/ready"),
}


@dataclass(frozen=True)
class Route:
    """One operation: `open` answers anyone, `own` needs a credential but no right."""

    method: str
    path: str
    has_body: bool

    @property
    def open(self) -> bool:
        return (self.method, self.path) in OPEN

    @property
    def own(self) -> bool:
        return (self.method, self.path) in SELF

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"{([^}]+)}", self.path)

    def url(self, ids: dict[str, str] | None = None) -> str:
        return re.sub(r"{([^}]+)}", lambda match: (ids or {}).get(match.group(1), SOME_ID), self.path)


@pytest.fixture(scope="session")
def routes(application: Any) -> list[Route]:
    """Every route in the OpenAPI document."""
    return [
        Route(method.upper(), path, "requestBody" in operation)
        for path, item in application.openapi()["paths"].items()
        for method, operation in item.items()
    ]
