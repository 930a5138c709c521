"""Routes of trust: the controller's CA and certificate, the tenant's recovery key."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import PlainTextResponse

from saveos.accounts.access import Actor, describe, require
from saveos.core import tls
from saveos.core.errors import NotFound
from saveos.core.inputs import Text
from saveos.core.web import SessionDep, StateDep
from saveos.secrets import service
from saveos.secrets.schemas import PrivateKeyOut, RecoveryIn, RecoveryKeyOut, RecoveryOut

router = APIRouter(tags=["trust"])

SystemReader = Annotated[Actor, Depends(require("system:read", audit=False))]
Keeper = Annotated[Actor, Depends(require("secrets:write"))]


@router.get("/ca.pem", response_class=PlainTextResponse)
def get_ca(state: StateDep) -> PlainTextResponse:
    """Give the controller's own CA, to anyone: whoever takes it compares its SHA-256 with a known pin."""
    return PlainTextResponse(_identity(state).ca_pem)


@router.get("/system/tls")
def get_tls(state: StateDep, _actor: SystemReader) -> dict[str, Any]:
    """Show the pins by which hosts and people trust the controller, and when its certificate ends."""
    return _identity(state).as_dict()


@router.get("/recovery")
def get_recovery(session: SessionDep, actor: SystemReader) -> RecoveryOut:
    """Show the recovery key that hosts seal to, its mode, and how many repositories have an escrow."""
    key = service.current_key(session, actor.tenant_id)
    return RecoveryOut(
        key=RecoveryKeyOut.model_validate(key, from_attributes=True) if key else None,
        repositories=service.count_escrows(session, actor.tenant_id),
        retired=[
            RecoveryKeyOut.model_validate(each, from_attributes=True)
            for each in service.retired_keys(session, actor.tenant_id)
        ],
    )


@router.post("/recovery", status_code=201)
def init_recovery(session: SessionDep, actor: Keeper, body: RecoveryIn, response: Response) -> RecoveryKeyOut:
    """Set the recovery key: the public half of a pair made where it is kept. 200 when it is set already.

    Hosts seal to it at their next provisioning.
    """
    before = service.current_key(session, actor.tenant_id)
    key = service.init_recovery(
        session, actor.tenant_id, body.public_key, body.mode, body.private_key, replace=body.replace
    )
    describe(session, f"recovery-key:{key.fingerprint[:16]}", mode=key.mode, replaced=bool(before))
    if before is not None and before.id == key.id:
        response.status_code = 200
    return RecoveryKeyOut.model_validate(key, from_attributes=True)


@router.post("/recovery/private-key")
def reveal_private_key(session: SessionDep, actor: Keeper, fingerprint: Text = "") -> PrivateKeyOut:
    """Give the private half of a managed recovery key to an admin; the audit trail says so."""
    key, private = service.private_key(session, actor.tenant_id, fingerprint)
    describe(session, f"recovery-key:{key.fingerprint[:16]}", revealed=True)
    return PrivateKeyOut(fingerprint=key.fingerprint, private_key=private)


def _identity(state: StateDep) -> tls.Identity:
    found = tls.current(state.settings.home) if state.settings.serves_tls else None
    if found is None:
        raise NotFound("the controller speaks no HTTPS itself here, so it has no CA: see SAVEOS_TLS")
    return found
