"""Verbs of enrolment: tokens, hosts that ask to join, approval, and the way to their provisioning.

Nothing that a registering host says is trusted further than it can be checked: the controller goes to
it by SSH with the host key that it told, and takes its identity only from that session. What could
turn a registration against another host (its name, its key, its agent token) is refused here.
Changes are told to the topic `registrations`.
"""

import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from saveos.accounts.models import Tenant, Token
from saveos.accounts.service import record
from saveos.core import security
from saveos.core.clock import now
from saveos.core.database import apart, touch
from saveos.core.errors import Conflict, Forbidden, Invalid, NotFound, Problem, Unauthenticated
from saveos.enrolment.door import Door, token_text
from saveos.enrolment.models import EnrolmentToken, Registration
from saveos.enrolment.schemas import RegisterIn, RegistrationOut, RegistrationStatus, TokenIn, TokenOut
from saveos.hosts.groups import get_group
from saveos.hosts.models import Host
from saveos.hosts.schemas import HostIn
from saveos.hosts.ssh_keys import fingerprint, parse_host_keys
from saveos.jobs.models import FINAL, Job, JobHost
from saveos.maintenance import service as maintenance
from saveos.maintenance.schemas import Targets
from saveos.policies import fleet
from saveos.policies.service import get_policy

TOPIC = "registrations"
AGAIN = "make a new one with `saveos enrol tokens create`"


# ---- tokens


def create_token(
    session: Session, tenant_id: uuid.UUID, asked: TokenIn, *, created_by: str, place: Door
) -> tuple[EnrolmentToken, str]:
    """Make an enrolment token; return it with its text, which cannot be shown again.

    Raises Invalid on a policy or group that is not there, and where the text would travel in the clear.
    """
    if asked.policy:
        _require("policy", get_policy, session, tenant_id, asked.policy)
    for group in asked.groups:
        _require("groups", get_group, session, tenant_id, group)
    secret = security.new_token("saveos_enrol")
    row = EnrolmentToken(
        tenant_id=tenant_id,
        name=asked.name,
        hash=security.token_hash(secret),
        expires_at=now() + timedelta(minutes=asked.minutes),
        max_uses=asked.max_uses,
        groups=sorted(set(asked.groups)),
        policy=asked.policy or "",
        tags=sorted(set(asked.tags)),
        pre_approved=asked.pre_approved,
        created_by=created_by[:150],
    )
    session.add(row)
    session.flush()
    touch(session, tenant_id, TOPIC)
    return row, token_text(place, row.id, secret)


def list_tokens(
    session: Session, tenant_id: uuid.UUID, before: uuid.UUID | None, limit: int
) -> list[EnrolmentToken]:
    """Return up to `limit` tokens, newest first."""
    query = select(EnrolmentToken).where(EnrolmentToken.tenant_id == tenant_id)
    query = query.order_by(EnrolmentToken.id.desc()).limit(limit)
    return list(session.scalars(query.where(EnrolmentToken.id < before) if before else query))


def revoke_token(session: Session, tenant_id: uuid.UUID, token_id: uuid.UUID) -> EnrolmentToken:
    """End a token; hosts that used it already go on. Raises NotFound."""
    query = select(EnrolmentToken).where(EnrolmentToken.tenant_id == tenant_id, EnrolmentToken.id == token_id)
    token = session.scalar(query)
    if token is None:
        raise NotFound("there is no such enrolment token: see GET /api/v1/enrolment/tokens")
    token.revoked_at = token.revoked_at or now()
    touch(session, tenant_id, TOPIC)
    return token


def describe_token(token: EnrolmentToken) -> TokenOut:
    """Return a token as it travels."""
    columns = {name: getattr(token, name) for name in TokenOut.model_fields if name != "state"}
    return TokenOut(state=token_state(token), **columns)


def token_state(token: EnrolmentToken) -> str:
    """Return whether a token may still be used: active, expired, used or revoked."""
    if token.revoked_at is not None:
        return "revoked"
    if token.uses >= token.max_uses:
        return "used"
    return "expired" if token.expires_at <= now() else "active"


# ---- what hosts ask


def register(session: Session, secret: str, asked: RegisterIn, *, peer: str) -> Registration:
    """Take a host's wish to join, and one use of the token, or return what the same host asked before.

    Raises Unauthenticated on an unknown secret, Forbidden on a token that is revoked, expired or used up,
    Conflict where name, host key or agent token belong to another host; nothing is used then.
    """
    check_secret(session, secret)
    # Locked, so that a host that asks twice at once is one host; SQLite has its write lock already.
    query = select(EnrolmentToken).where(EnrolmentToken.hash == security.token_hash(secret)).with_for_update()
    token = session.scalars(query).one()
    keys = parse_host_keys(asked.ssh_host_keys, {asked.name, asked.address or peer})
    known = _asked_before(session, token, asked, keys)
    if known is not None and not _asks_anew(session, known, token):
        return known
    enrolled = _enrolled(session, token.tenant_id, asked.agent_token_sha256)
    host = enrolled or _inventory(session, token.tenant_id, asked.name, keys)
    if host is None:
        _refuse_name_asked_for(session, token.tenant_id, asked)
    if enrolled is None:
        _use(session, token)
    row = known or Registration(tenant_id=token.tenant_id, agent_token_sha256=asked.agent_token_sha256)
    row.token_id, row.host_id, row.name = token.id, host.id if host else None, asked.name
    row.address, row.port, row.user = asked.address or peer or asked.name, asked.port, asked.user
    row.ssh_host_keys, row.agent_public_key = keys, asked.agent_public_key
    row.os, row.versions, row.peer = asked.os, asked.versions, peer[:64]
    row.state, row.reason, row.ready_at, row.job_id = "done" if enrolled else "waiting", "", None, None
    session.add(row)
    session.flush()
    record(
        session,
        token.tenant_id,
        f"enrolment token {token.name}",
        "register host",
        f"registration:{row.name}",
        address=peer,
    )
    touch(session, token.tenant_id, TOPIC)
    if token.pre_approved and row.state == "waiting" and (host is None or host.state == "pending"):
        _approve_by_itself(session, row, token)
    return row


def check_secret(session: Session, secret: str) -> None:
    """Raise Unauthenticated on a secret that is no enrolment token's."""
    if (
        session.scalar(select(EnrolmentToken.id).where(EnrolmentToken.hash == security.token_hash(secret)))
        is None
    ):
        raise Unauthenticated(
            "this enrolment token is not one of this controller's: was it made by another one, or cut off?",
            type_="enrolment-token-unknown",
        )


def check_own(session: Session, registration_id: uuid.UUID, agent_token: str) -> None:
    """Raise Unauthenticated unless the agent token is the one that this registration's host made."""
    query = select(Registration.agent_token_sha256).where(Registration.id == registration_id)
    if session.scalar(query) != security.token_hash(agent_token):
        raise Unauthenticated("this registration is another host's, or it is gone: register again")


def own(session: Session, registration_id: uuid.UUID) -> Registration:
    """Return a registration, locked, for its own host, as `check_own` found it."""
    return session.get_one(Registration, registration_id, with_for_update=True)


def ready(session: Session, row: Registration) -> None:
    """Note that a host lets the controller in: once it is approved, it is provisioned.

    A host whose provisioning failed asks for another attempt by this.
    """
    if row.state == "failed":
        row.state, row.job_id, row.reason = "approved", None, ""
    if row.state not in ("waiting", "approved"):
        return
    row.ready_at = now()
    touch(session, row.tenant_id, TOPIC)


def status(session: Session, row: Registration) -> RegistrationStatus:
    """Return what a host may know of its registration."""
    tenant = session.get_one(Tenant, row.tenant_id)
    return RegistrationStatus(
        registration_id=row.id,
        name=row.name,
        state=row.state,
        reason=row.reason,
        ready=row.ready_at is not None,
        controller_ssh_key=tenant.ssh_public_key,
    )


# ---- what people decide


def list_registrations(
    session: Session, tenant_id: uuid.UUID, state: str, before: uuid.UUID | None, limit: int
) -> list[Registration]:
    """Return up to `limit` registrations, newest first; of one state, or of all with ""."""
    query = select(Registration).where(Registration.tenant_id == tenant_id)
    query = query.order_by(Registration.id.desc()).limit(limit)
    if state:
        query = query.where(Registration.state == state)
    return list(session.scalars(query.where(Registration.id < before) if before else query))


def get_registration(session: Session, tenant_id: uuid.UUID, ref: str) -> Registration:
    """Return a registration by id, or the newest by its host's name. Raises NotFound."""
    query = select(Registration).where(Registration.tenant_id == tenant_id)
    try:
        query = query.where(Registration.id == uuid.UUID(ref))
    except ValueError:
        query = query.where(Registration.name == ref.strip().lower().replace("\x00", ""))
    row = session.scalars(query.order_by(Registration.id.desc()).limit(1).with_for_update()).first()
    if row is None:
        raise NotFound(f"no host registered as {ref[:253]}: see GET /api/v1/enrolment/registrations")
    return row


def describe_registrations(session: Session, rows: Sequence[Registration]) -> list[RegistrationOut]:
    """Return registrations as they travel; one query whatever their number."""
    ids = {row.token_id for row in rows}
    tokens = {
        token.id: token for token in session.scalars(select(EnrolmentToken).where(EnrolmentToken.id.in_(ids)))
    }
    found = []
    for row in rows:
        token = tokens[row.token_id]
        columns = {name: getattr(row, name) for name in RegistrationOut.model_fields if hasattr(row, name)}
        found.append(
            RegistrationOut(
                **columns,
                fingerprints=[f"{key.split()[0]} {fingerprint(key)}" for key in row.ssh_host_keys],
                token_name=token.name,
                policy=token.policy,
                groups=token.groups,
            )
        )
    return found


def approve(session: Session, row: Registration, by: str) -> Host:
    """Let a host in: it becomes a host of the inventory, and is provisioned when it lets the controller in.

    One that was refused or failed may be approved, too. Raises Conflict, Invalid with nothing changed.
    """
    if row.state in ("approved", "provisioning", "done"):
        raise Conflict(f"{row.name} is {row.state} already")
    token = session.get_one(EnrolmentToken, row.token_id)
    host = session.get(Host, row.host_id) if row.host_id else None
    if host is None:
        host = _inventory(session, row.tenant_id, row.name, row.ssh_host_keys)
    if host is None or host.state == "decommissioned":
        host = fleet.add_host(
            session,
            row.tenant_id,
            HostIn(
                name=row.name,
                address=row.address,
                port=row.port,
                user=row.user,
                ssh_host_keys=list(row.ssh_host_keys),
                tags=token.tags,
                groups=token.groups,
                policy=token.policy or None,
            ),
        )
    row.host_id, row.job_id = host.id, None
    _decide(session, row, "approved", by, "")
    return host


def refuse(session: Session, row: Registration, by: str, reason: str) -> None:
    """Send a host away; it is told why. Raises Conflict when it is in already."""
    if row.state not in ("waiting", "refused", "failed"):
        raise Conflict(f"{row.name} is {row.state} already: take the host out instead")
    _decide(session, row, "refused", by, reason or "an admin refused it")


# ---- what the worker does


def advance(session: Session) -> int:
    """Start the provisioning of hosts that are approved and ready, and judge those that ended.

    Returns how many registrations changed. Rows decide, so whichever worker comes next goes on where a
    killed one was; each is taken by one worker.
    """
    query = select(Registration).where(Registration.state.in_(("approved", "provisioning")), _may_move())
    rows = session.scalars(query.order_by(Registration.id).limit(100).with_for_update(skip_locked=True)).all()
    for row in rows:
        step = _provision if row.state == "approved" else _judge
        if not apart(session, f"registration {row.id}", partial(step, session, row)):
            row.state, row.reason = "failed", "its provisioning stumbled, the controller's log says why"
        touch(session, row.tenant_id, TOPIC)
    return len(rows)


def any_to_advance(session: Session) -> bool:
    """Whether `advance` has something to do; takes no lock."""
    query = select(Registration.id).where(Registration.state.in_(("approved", "provisioning")), _may_move())
    return session.scalar(query.limit(1)) is not None


def _may_move() -> ColumnElement[bool]:
    ended = select(Job.id).where(Job.id == Registration.job_id, Job.state.in_(FINAL)).exists()
    gone = Registration.job_id.is_(None)
    starts = (Registration.state == "approved") & Registration.ready_at.is_not(None)
    return starts | ((Registration.state == "provisioning") & (ended | gone))


def _provision(session: Session, row: Registration) -> None:
    try:
        with session.begin_nested():
            job = maintenance.start(
                session,
                row.tenant_id,
                "provision",
                Targets(hosts=[str(row.host_id)]),
                requested_by=row.decided_by,
                trigger="enrolment",
            )
    except Problem as problem:
        row.state, row.reason = "failed", problem.detail
    else:
        row.state, row.job_id, row.reason = "provisioning", job.id, ""


def _judge(session: Session, row: Registration) -> None:
    host = session.get(Host, row.host_id) if row.host_id else None
    job = session.get(Job, row.job_id) if row.job_id else None
    if host is None or job is None:
        row.state, row.reason = "failed", "its host or job was removed meanwhile: approve it again"
        return
    told = session.scalar(select(JobHost).where(JobHost.job_id == job.id, JobHost.host_id == host.id))
    if told is not None and told.state in ("ok", "changed") and host.state == "enrolled":
        row.state, row.reason = "done", ""
        return
    said = (told.error if told else "") or job.error or f"its provisioning ended as {job.state}"
    row.state, row.reason = "failed", said


# ---- judging what a host says


def _asked_before(
    session: Session, token: EnrolmentToken, asked: RegisterIn, keys: list[str]
) -> Registration | None:
    """Return what the same host, by its agent token, asked before. Raises Conflict when it is another one."""
    query = select(Registration).where(Registration.agent_token_sha256 == asked.agent_token_sha256)
    known = session.scalar(query.with_for_update())
    if known is None:
        return None
    if known.tenant_id != token.tenant_id:
        raise _foreign()
    if not set(known.ssh_host_keys) & set(keys):
        raise Conflict(
            f"this machine shows the agent token of {known.name}, but other SSH host keys: was it cloned? "
            "Remove /etc/saveos on it and register again",
            type_="cloned",
        )
    return known


def _asks_anew(session: Session, known: Registration, token: EnrolmentToken) -> bool:
    """Whether a host that asked before starts over: taken out since, or refused and come with another token."""
    if known.state == "done":
        host = session.get(Host, known.host_id) if known.host_id else None
        return host is None or host.state == "decommissioned"
    return known.state == "refused" and known.token_id != token.id


def _enrolled(session: Session, tenant_id: uuid.UUID, hashed: str) -> Host | None:
    """Return the host that was provisioned with this agent token. Raises Conflict for another tenant's."""
    token = session.scalar(select(Token).where(Token.hash == hashed))
    if token is None:
        return None
    if token.tenant_id != tenant_id or token.host_id is None:
        raise _foreign()
    host = session.get(Host, token.host_id)
    return host if host is not None and host.state in ("enrolled", "paused") else None


def _inventory(session: Session, tenant_id: uuid.UUID, name: str, keys: Sequence[str]) -> Host | None:
    """Return the host of this name and with one of these keys. Raises Conflict where they mean two."""
    hosts = select(Host).where(Host.tenant_id == tenant_id)
    named = session.scalar(hosts.where(Host.name == name))
    if named is not None and not set(named.ssh_host_keys) & set(keys):
        raise Conflict(
            f"there is another host {name}, with other SSH host keys: choose another name with --name",
            field="name",
            type_="name-taken",
        )
    if named is None:
        _refuse_known_key(session, tenant_id, keys)
    return named


def _refuse_name_asked_for(session: Session, tenant_id: uuid.UUID, asked: RegisterIn) -> None:
    query = select(Registration.id).where(
        Registration.tenant_id == tenant_id,
        Registration.name == asked.name,
        Registration.state == "waiting",
        Registration.agent_token_sha256 != asked.agent_token_sha256,
    )
    if session.scalar(query.limit(1)) is not None:
        raise Conflict(
            f"another machine asked to join as {asked.name} and waits: choose another name with --name",
            field="name",
            type_="name-taken",
        )


def _refuse_known_key(session: Session, tenant_id: uuid.UUID, keys: Sequence[str]) -> None:
    """Raise Conflict when another host has one of these keys: one machine would be provisioned as two."""
    query = select(Host.name, Host.ssh_host_keys).where(
        Host.tenant_id == tenant_id, Host.state != "decommissioned"
    )
    for name, known in session.execute(query):
        if set(known) & set(keys):
            raise Conflict(
                f"the host {name} has the same SSH host key: register as --name {name}, or give a cloned "
                "machine keys of its own (rm /etc/ssh/ssh_host_*; ssh-keygen -A)",
                field="ssh_host_keys",
                type_="host-key-known",
            )


def _use(session: Session, token: EnrolmentToken) -> None:
    """Take one use, in one statement: of many at once exactly `max_uses` succeed. Raises Forbidden."""
    moment = now()
    taken = session.execute(
        update(EnrolmentToken)
        .where(
            EnrolmentToken.id == token.id,
            EnrolmentToken.uses < EnrolmentToken.max_uses,
            EnrolmentToken.revoked_at.is_(None),
            EnrolmentToken.expires_at > moment,
        )
        .values(uses=EnrolmentToken.uses + 1)
        .returning(EnrolmentToken.id)
    ).scalar()
    if taken is not None:
        return
    session.refresh(token)
    if token.revoked_at is not None:
        raise Forbidden(f"this enrolment token was revoked: {AGAIN}", type_="enrolment-token-revoked")
    if token.expires_at <= moment:
        at = f"{token.expires_at:%Y-%m-%d %H:%M} UTC"
        raise Forbidden(f"this enrolment token expired at {at}: {AGAIN}", type_="enrolment-token-expired")
    uses = "once" if token.max_uses == 1 else f"{token.max_uses} times"
    raise Forbidden(
        f"this enrolment token is used up: it was good for {uses}; {AGAIN}", type_="enrolment-token-used"
    )


def _approve_by_itself(session: Session, row: Registration, token: EnrolmentToken) -> None:
    """Approve a host of a pre-approved token; where that cannot be, it waits for a person, with the reason."""
    try:
        with session.begin_nested():
            approve(session, row, f"enrolment token {token.name}")
    except Problem as problem:
        session.refresh(row)
        row.reason = problem.detail


def _decide(session: Session, row: Registration, state: str, by: str, reason: str) -> None:
    row.state, row.reason = state, reason
    row.decided_by, row.decided_at = by[:150], now()
    session.flush()
    touch(session, row.tenant_id, TOPIC)


def _foreign() -> Conflict:
    return Conflict(
        "this machine is enrolled with another owner (tenant), and this token is foreign to it: have it taken "
        "out there and remove /etc/saveos, or use a token of its owner",
        type_="enrolment-foreign",
    )


def _require(
    field: str,
    look: Callable[[Session, uuid.UUID, str], object],
    session: Session,
    tenant_id: uuid.UUID,
    ref: str,
) -> None:
    """Raise Invalid where `look` finds nothing."""
    try:
        look(session, tenant_id, ref)
    except NotFound as error:
        raise Invalid(error.detail, field=field) from error
