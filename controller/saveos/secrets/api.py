"""Routes of trust: the controller's CA and certificate."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse

from saveos.accounts.access import Actor, require
from saveos.core import tls
from saveos.core.errors import NotFound
from saveos.core.web import StateDep

router = APIRouter(tags=["trust"])

SystemReader = Annotated[Actor, Depends(require("system:read", audit=False))]


@router.get("/ca.pem", response_class=PlainTextResponse)
def get_ca(state: StateDep) -> PlainTextResponse:
    """Give the controller's own CA, to anyone: whoever takes it compares its SHA-256 with a known pin."""
    return PlainTextResponse(_identity(state).ca_pem)


@router.get("/system/tls")
def get_tls(state: StateDep, _actor: SystemReader) -> dict[str, Any]:
    """Show the pins by which hosts and people trust the controller, and when its certificate ends."""
    return _identity(state).as_dict()


def _identity(state: StateDep) -> tls.Identity:
    found = tls.current(state.settings.home) if state.settings.serves_tls else None
    if found is None:
        raise NotFound("the controller speaks no HTTPS itself here, so it has no CA: see SAVEOS_TLS")
    return found
