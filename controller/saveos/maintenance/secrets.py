"""The secrets that hosts and the controller hold: kinds, ages, who uses them, never a value.

Hosts tell of theirs in the results of the operation `secrets` (plugins/modules/rotate.py). What a rotation
needs of the controller while it goes on, hosts ask by their token: that an escrow is kept, that a new token
counts.
"""

import base64
import hashlib
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.accounts.keys import ssh_key_made_at
from saveos.accounts.models import Tenant
from saveos.accounts.service import agent_token_beside
from saveos.core import tls
from saveos.core.clock import now
from saveos.core.database import touch
from saveos.core.errors import Invalid, NotFound
from saveos.core.inputs import RequestModel
from saveos.core.settings import Settings
from saveos.hosts.models import Host
from saveos.hosts.service import get_host
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import findings, rekey
from saveos.maintenance.results import host_of, parsed
from saveos.repositories.models import Repository
from saveos.repositories.service import of_hosts
from saveos.secrets.models import HeldSecret
from saveos.secrets.schemas import HostKeyLine, RepositoryUrl
from saveos.secrets.service import current_key, escrow_state, newest_escrows, store_escrow

Kind = Literal["passphrase", "escrow", "ssh-key", "agent-token"]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ROTATE_SSH_KEY = "saveos maintenance secrets rotate --all --kind controller-ssh-key"
USED_BY = {
    "passphrase": "backups, restores and drills of the host",
    "escrow": "whoever holds the recovery key",
    "ssh-key": "the host, at its storage servers",
    "agent-token": "the host, at the controller",
}


class ToldSecret(BaseModel):
    """A secret that a host holds, as it tells."""

    kind: Kind
    subject: Annotated[str, Field(max_length=64)] = ""
    made_at: datetime | None = None
    private: bool = True
    open: bool = False


class ToldKey(BaseModel):
    """The public half of the SSH key that is in force at a host."""

    public_key: Annotated[str, Field(max_length=1000)] = ""


class Told(BaseModel):
    """What a result of `secrets` says beside findings."""

    held: Annotated[list[ToldSecret], Field(max_length=200)] = []


class EscrowIn(RequestModel):
    """What a host sealed to the recovery key about one of its repositories."""

    repository_id: uuid.UUID
    recovery_key: Hash
    sealed: Annotated[str, Field(max_length=60_000)]
    url: RepositoryUrl = ""
    host_keys: Annotated[list[HostKeyLine], Field(max_length=20)] = Field([])


class EscrowKept(BaseModel):
    """That an escrow is kept: the SHA-256 of what was sealed."""

    digest: Hash


class TokenTold(RequestModel):
    """The SHA-256 of the token that a host made for itself."""

    token_sha256: Hash


class SecretOut(BaseModel):
    """A secret that a host holds; never its value."""

    id: uuid.UUID
    kind: Kind
    host: str
    host_id: uuid.UUID
    repository_id: str
    used_by: str
    made_at: datetime | None
    rotated_at: datetime | None
    told_at: datetime
    private: bool = Field(description="Only root can read it")
    open: bool = Field(description="A rotation was interrupted and waits to be finished")
    escrow: Literal["", "none", "fresh", "stale"] = Field("", description="Of a passphrase")
    escrow_at: datetime | None = None


class ControllerSecret(BaseModel):
    """A key of the controller itself; never its value."""

    kind: str
    fingerprint: str
    used_by: str
    made_at: datetime | None
    rotate: str = Field(description="How it is rotated")
    waiting: int = Field(0, description="Of a former key: hosts that may still need it")
    waiting_hosts: list[str] = Field([], description="Some of them, by name")


def told(session: Session, job: Job, row: JobHost) -> None:
    """Take over what a host told of its secrets, and its findings; telling twice changes nothing."""
    findings.record(session, job, row)
    host, result = host_of(session, row), row.result.get("secrets")
    if host is None or host.state == "decommissioned":
        return
    identity = row.result.get("identity")
    if isinstance(identity, dict) and job.mode != "check":
        host.agent_public_key = parsed(ToldKey, identity).public_key or host.agent_public_key
    if isinstance(result, dict):
        _keep(session, host, parsed(Told, result).held)


def _keep(session: Session, host: Host, held: Sequence[ToldSecret]) -> None:
    known = {
        (row.kind, row.subject): row
        for row in session.scalars(select(HeldSecret).where(HeldSecret.host_id == host.id))
    }
    for each in held:
        row = known.pop((each.kind, each.subject), None)
        if row is None:
            row = HeldSecret(tenant_id=host.tenant_id, host_id=host.id, kind=each.kind, subject=each.subject)
            session.add(row)
        elif each.made_at and row.made_at and each.made_at > row.made_at + timedelta(seconds=1):
            row.rotated_at = each.made_at
        row.made_at, row.private, row.open, row.told_at = each.made_at, each.private, each.open, now()
    for row in known.values():
        session.delete(row)
    session.flush()
    touch(session, host.tenant_id, "hosts")


def list_secrets(
    session: Session,
    tenant_id: uuid.UUID,
    *,
    kind: str = "",
    host: str = "",
    older_than_days: int = 0,
    after: uuid.UUID | None = None,
    limit: int,
) -> list[SecretOut]:
    """Return up to `limit` secrets that hosts hold, by id. Raises NotFound for no such host."""
    query = select(HeldSecret, Host).join(Host, Host.id == HeldSecret.host_id)
    query = query.where(HeldSecret.tenant_id == tenant_id)
    if kind:
        query = query.where(HeldSecret.kind == kind)
    if host:
        query = query.where(HeldSecret.host_id == get_host(session, tenant_id, host).id)
    if older_than_days:
        query = query.where(HeldSecret.made_at < now() - timedelta(days=older_than_days))
    if after:
        query = query.where(HeldSecret.id > after)
    rows = session.execute(query.order_by(HeldSecret.id).limit(limit)).all()
    stores = [uuid.UUID(each.subject) for each, _ in rows if each.kind == "passphrase" and _is_id(each.subject)]
    states = escrow_state(session, tenant_id, stores)
    newest = newest_escrows(session, tenant_id, stores)
    return [_out(each, owner, states, newest) for each, owner in rows]


def _is_id(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _out(row: HeldSecret, host: Host, states: dict[uuid.UUID, Any], newest: dict[uuid.UUID, Any]) -> SecretOut:
    store = uuid.UUID(row.subject) if row.kind == "passphrase" and _is_id(row.subject) else None
    escrow = newest.get(store) if store else None
    return SecretOut(
        id=row.id,
        kind=row.kind,
        host=host.name,
        host_id=host.id,
        repository_id=row.subject,
        used_by=USED_BY[row.kind],
        made_at=row.made_at,
        rotated_at=row.rotated_at,
        told_at=row.told_at,
        private=row.private,
        open=row.open,
        escrow=states.get(store, "none") if store else "",
        escrow_at=escrow.created_at if escrow else None,
    )


def controller_secrets(session: Session, settings: Settings, tenant_id: uuid.UUID) -> list[ControllerSecret]:
    """Return the keys that the controller holds for this tenant and for itself."""
    tenant = session.get_one(Tenant, tenant_id)
    key = current_key(session, tenant_id)
    ours = tls.current(settings.home) if settings.serves_tls else None
    kek = settings.home / "kek"
    found = [
        ControllerSecret(
            kind="installation-key",
            fingerprint="",
            used_by="the controller: it opens everything that is sealed in the database",
            made_at=_made(kek),
            rotate="saveos controller rotate-key, while the controller is stopped",
        ),
        ControllerSecret(
            kind="controller-ssh-key",
            fingerprint=_public_fingerprint(tenant.ssh_public_key),
            used_by="jobs, on every host that is reached by SSH",
            made_at=ssh_key_made_at(session, tenant_id),
            rotate=ROTATE_SSH_KEY,
        ),
    ]
    if tenant.former_ssh_public_key:
        count, names = rekey.waiting(session, tenant_id)
        found.append(
            ControllerSecret(
                kind="controller-ssh-key-former",
                fingerprint=_public_fingerprint(tenant.former_ssh_public_key),
                used_by="hosts that do not let the new key in yet: it is tried second",
                made_at=None,
                rotate=f"{ROTATE_SSH_KEY}, once they can be reached; it is forgotten with the last one",
                waiting=count,
                waiting_hosts=names,
            )
        )
    if key:
        found.append(
            ControllerSecret(
                kind="recovery-key",
                fingerprint=key.fingerprint,
                used_by="hosts, which seal passphrases to its public half",
                made_at=key.created_at,
                rotate="saveos recovery init --replace, then saveos maintenance provision --all",
            )
        )
    if ours:
        found.append(
            ControllerSecret(
                kind="certificate-authority",
                fingerprint=ours.ca_pin,
                used_by="hosts and people, who trust the controller by it",
                made_at=_made(settings.home / "tls" / "ca.pem"),
                rotate="its certificates renew by themselves; see saveos tls show",
            )
        )
    return found


def _made(path: Path) -> datetime | None:
    try:
        seconds = path.stat().st_mtime
    except OSError:
        return None
    return datetime.fromtimestamp(seconds, tz=now().tzinfo)


def _public_fingerprint(line: str) -> str:
    words = line.split()
    if len(words) < 2:
        return ""
    digest = hashlib.sha256(base64.b64decode(words[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def keep_escrow(session: Session, host: Host, asked: EscrowIn) -> EscrowKept:
    """Keep what a host sealed about a repository of its own. Raises NotFound, Invalid."""
    own: list[Repository] = of_hosts(session, host.tenant_id, [host.id]).get(host.id, [])
    if asked.repository_id not in {each.id for each in own}:
        raise NotFound("this host has no such repository")
    try:
        sealed = base64.b64decode(asked.sealed, validate=True)
    except ValueError as error:
        raise Invalid("it is no base64", field="sealed") from error
    kept = store_escrow(
        session,
        host.tenant_id,
        host.id,
        asked.repository_id,
        fingerprint=asked.recovery_key,
        sealed=sealed,
        url=asked.url,
        host_keys=asked.host_keys,
    )
    if kept is None:
        raise Invalid(
            "it is sealed to a key that is not the tenant's: provision the host", field="recovery_key"
        )
    return EscrowKept(digest=kept.digest)


def take_token(session: Session, host: Host, current: str, asked: TokenTold) -> None:
    """Let a host's new token count beside the one that it came with; told by the new one, the others end."""
    agent_token_beside(session, host.tenant_id, host.id, host.name, current=current, hashed=asked.token_sha256)
