"""Routes of enrolment: tokens, what hosts ask, what people decide, and the script that a host runs."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import PlainTextResponse

from saveos.accounts.access import Actor, bearer_scheme, client_address, describe, require
from saveos.core.errors import Unauthenticated
from saveos.core.pagination import DEFAULT_LIMIT, Cursor, Limit, Page, decode_id, split
from saveos.core.web import SessionDep, StateDep
from saveos.enrolment import door, service
from saveos.enrolment.schemas import (
    RefuseIn,
    RegisterIn,
    RegistrationOut,
    RegistrationState,
    RegistrationStatus,
    TokenIn,
    TokenMade,
    TokenOut,
)

router = APIRouter(tags=["enrolment"])
files = APIRouter(tags=["enrolment"])  # mounted at the root, for anyone: nothing in them is secret

Reader = Annotated[Actor, Depends(require("hosts:read"))]
Writer = Annotated[Actor, Depends(require("hosts:write"))]
Ref = Annotated[str, Path(max_length=253, description="Id, or the host's name")]


def bearer(request: Request, _bearer: Annotated[object, Depends(bearer_scheme)] = None) -> str:
    """Return the bearer credential of a host that is not enrolled yet."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not value.strip():
        raise Unauthenticated("send the enrolment token's secret as: Authorization: Bearer SECRET")
    return value.strip()


def enrolment_secret(state: StateDep, value: Annotated[str, Depends(bearer)]) -> str:
    """Return an enrolment token's secret, known to be one: a stranger gets no further, and takes no lock."""
    with state.database.session() as session:
        service.check_secret(session, value)
    return value


def own_registration(
    state: StateDep, value: Annotated[str, Depends(bearer)], registration_id: uuid.UUID
) -> uuid.UUID:
    """Return the id of the registration whose host shows its agent token."""
    with state.database.session() as session:
        service.check_own(session, registration_id, value)
    return registration_id


Secret = Annotated[str, Depends(enrolment_secret)]
Own = Annotated[uuid.UUID, Depends(own_registration)]


@router.get("/enrolment/tokens")
def list_enrolment_tokens(
    session: SessionDep, actor: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[TokenOut]:
    """List enrolment tokens, newest first; never their secrets."""
    rows = service.list_tokens(session, actor.tenant_id, decode_id(cursor), limit + 1)
    tokens, following = split(rows, limit, lambda token: [str(token.id)])
    return Page(items=[service.describe_token(token) for token in tokens], next=following)


@router.post("/enrolment/tokens", status_code=201)
def create_enrolment_token(session: SessionDep, state: StateDep, actor: Writer, body: TokenIn) -> TokenMade:
    """Make a token that lets hosts ask to join. It and the line to paste on a host are shown this once."""
    place = door.door(state.settings)
    row, text = service.create_token(session, actor.tenant_id, body, created_by=actor.name, place=place)
    describe(session, f"enrolment token:{row.name}", max_uses=row.max_uses, pre_approved=row.pre_approved)
    told = service.describe_token(row).model_dump()
    return TokenMade(**told, token=text, command=door.one_line(place, text))


@router.delete("/enrolment/tokens/{enrolment_token}", status_code=204)
def revoke_enrolment_token(session: SessionDep, actor: Writer, enrolment_token: uuid.UUID) -> None:
    """End a token. Hosts that used it already go on."""
    row = service.revoke_token(session, actor.tenant_id, enrolment_token)
    describe(session, f"enrolment token:{row.name}")


@router.post("/agents/register", status_code=202)
def register_host(
    session: SessionDep, request: Request, secret: Secret, body: RegisterIn
) -> RegistrationStatus:
    """Ask to join, as a host, with an enrolment token's secret; asking twice changes nothing."""
    row = service.register(session, secret, body, peer=client_address(request))
    return service.status(session, row)


@router.get("/agents/register/{registration_id}")
def follow_registration(session: SessionDep, registration_id: Own) -> RegistrationStatus:
    """Tell a host, by the token that it made for itself, how its registration stands."""
    return service.status(session, service.own(session, registration_id))


@router.post("/agents/register/{registration_id}/ready")
def host_is_ready(session: SessionDep, registration_id: Own) -> RegistrationStatus:
    """Take a host's word that it lets the controller in by SSH: it is provisioned when it is approved."""
    row = service.own(session, registration_id)
    service.ready(session, row)
    return service.status(session, row)


@router.get("/enrolment/registrations")
def list_registrations(
    session: SessionDep,
    actor: Reader,
    state: RegistrationState | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[RegistrationOut]:
    """List hosts that asked to join, newest first."""
    rows = service.list_registrations(session, actor.tenant_id, state or "", decode_id(cursor), limit + 1)
    found, following = split(rows, limit, lambda row: [str(row.id)])
    return Page(items=service.describe_registrations(session, found), next=following)


@router.get("/enrolment/registrations/{registration}")
def get_registration(session: SessionDep, actor: Reader, registration: Ref) -> RegistrationOut:
    """Show a host that asked to join."""
    row = service.get_registration(session, actor.tenant_id, registration)
    return service.describe_registrations(session, [row])[0]


@router.post("/enrolment/registrations/{registration}/approve")
def approve_registration(session: SessionDep, actor: Writer, registration: Ref) -> RegistrationOut:
    """Let a host in. Compare its fingerprints with the host's own first. It is then provisioned by itself."""
    row = service.get_registration(session, actor.tenant_id, registration)
    service.approve(session, row, actor.name)
    describe(session, f"registration:{row.name}", address=row.address)
    return service.describe_registrations(session, [row])[0]


@router.post("/enrolment/registrations/{registration}/refuse")
def refuse_registration(
    session: SessionDep, actor: Writer, registration: Ref, body: RefuseIn
) -> RegistrationOut:
    """Send a host away, and tell it why. It may be approved later all the same."""
    row = service.get_registration(session, actor.tenant_id, registration)
    service.refuse(session, row, actor.name, body.reason)
    describe(session, f"registration:{row.name}", reason=row.reason)
    return service.describe_registrations(session, [row])[0]


@files.get("/enrol.sh", response_class=PlainTextResponse)
def enrol_script(state: StateDep) -> Response:
    """Give the script that enrols a host; it carries this controller's address and CA, and no secret."""
    return PlainTextResponse(door.script(state.settings), media_type="text/x-shellscript; charset=utf-8")


@files.get("/enrol/saveos-agent", response_class=Response)
def enrol_agent(state: StateDep) -> Response:
    """Give the agent, one file that Python runs, as the script fetches it."""
    return Response(door.agent_file(state.settings), media_type="application/octet-stream")
