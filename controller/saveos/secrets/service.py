"""Verbs of recovery: the tenant's key, and what hosts sealed to it."""

import base64
import hashlib
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, aliased

from saveos.accounts.service import seal_for, unseal_for
from saveos.core import sealing
from saveos.core.clock import now
from saveos.core.database import touch
from saveos.core.errors import Conflict, Invalid, NotFound, TooMany
from saveos.secrets.models import Escrow, RecoveryKey

State = Literal["none", "fresh", "stale"]
A_DAY = 24  # escrows of a repository that are kept: a rotation makes two, and nobody fills the database


def init_recovery(
    session: Session,
    tenant_id: uuid.UUID,
    public_key: str,
    mode: Literal["offline", "managed"] = "offline",
    private_key: str | None = None,
    *,
    replace: bool = False,
) -> RecoveryKey:
    """Set the tenant's recovery key; the one before is retired, and what was sealed to it is kept.

    Raises Invalid for halves that are none or do not fit the mode, Conflict where there is a key already.
    """
    try:
        fingerprint = sealing.fingerprint(public_key)
        if (mode == "managed") != bool(private_key):
            raise Invalid(
                "the private half is sent in mode managed, and only then: leave it out, or choose managed",
                field="private_key",
            )
        if private_key and sealing.public_of(private_key) != public_key.strip():
            raise Invalid(
                "the two halves do not belong together: make the pair anew with saveos recovery init",
                field="private_key",
            )
    except sealing.WrongKey as error:
        raise Invalid(str(error), field="public_key") from error
    before = current_key(session, tenant_id)
    if before is not None:
        if before.fingerprint == fingerprint and before.mode == mode:
            return before
        if not replace:
            raise Conflict(
                f"there is a recovery key already, {before.fingerprint[:16]}: use it, or replace it "
                "(--replace) and provision the hosts, so that they seal anew"
            )
        before.retired_at = now()
        session.flush()
    key = RecoveryKey(tenant_id=tenant_id, public_key=public_key.strip(), fingerprint=fingerprint, mode=mode)
    session.add(key)
    session.flush()
    if private_key:
        key.private_key = seal_for(session, tenant_id, _place(key), private_key.strip().encode())
    touch(session, tenant_id, "hosts")
    return key


def current_key(session: Session, tenant_id: uuid.UUID) -> RecoveryKey | None:
    """Return the key that hosts seal to, if there is one."""
    return session.scalar(
        select(RecoveryKey).where(RecoveryKey.tenant_id == tenant_id, RecoveryKey.retired_at.is_(None))
    )


def retired_keys(session: Session, tenant_id: uuid.UUID) -> list[RecoveryKey]:
    """Return the keys before, newest first."""
    query = select(RecoveryKey).where(RecoveryKey.tenant_id == tenant_id, RecoveryKey.retired_at.is_not(None))
    return list(session.scalars(query.order_by(RecoveryKey.id.desc()).limit(100)))


def private_key(session: Session, tenant_id: uuid.UUID, fingerprint: str = "") -> tuple[RecoveryKey, str]:
    """Return a managed key (the current one, else by fingerprint) with its private half. Raises NotFound."""
    query = select(RecoveryKey).where(RecoveryKey.tenant_id == tenant_id)
    if fingerprint:
        query = query.where(RecoveryKey.fingerprint == fingerprint)
    else:
        query = query.where(RecoveryKey.retired_at.is_(None))
    key = session.scalar(query.order_by(RecoveryKey.id.desc()).limit(1))
    if key is None or key.private_key is None:
        raise NotFound(
            "the controller has no private half of this recovery key: "
            "use the file that `saveos recovery init` wrote"
        )
    return key, unseal_for(session, tenant_id, _place(key), key.private_key).decode()


def store_escrow(
    session: Session,
    tenant_id: uuid.UUID,
    host_id: uuid.UUID,
    repository_id: uuid.UUID,
    *,
    fingerprint: str,
    sealed: bytes,
    url: str = "",
    host_keys: Sequence[str] = (),
) -> Escrow | None:
    """Keep what a host sealed; the same again changes nothing. None for a key that is not the tenant's.

    Raises TooMany, since older ones are kept for ever, lest rubbish push a good one out.
    """
    key = session.scalar(
        select(RecoveryKey)
        .where(RecoveryKey.tenant_id == tenant_id, RecoveryKey.fingerprint == fingerprint)
        .order_by(RecoveryKey.id.desc())
        .limit(1)
    )
    if key is None:
        return None
    digest = hashlib.sha256(sealed).hexdigest()
    newest = newest_escrows(session, tenant_id, [repository_id]).get(repository_id)
    if newest is not None and (newest.digest, newest.url, newest.host_keys) == (digest, url, list(host_keys)):
        return newest
    lately = Escrow.repository_id == repository_id, Escrow.created_at > now() - timedelta(days=1)
    if (session.scalar(select(func.count()).select_from(Escrow).where(*lately)) or 0) >= A_DAY:
        raise TooMany(
            f"repository {repository_id} was sealed {A_DAY} times within a day: see on its host who does that, "
            "and provision it tomorrow"
        )
    row = Escrow(
        tenant_id=tenant_id,
        repository_id=repository_id,
        host_id=host_id,
        recovery_key_id=key.id,
        sealed=sealed,
        digest=digest,
        url=url,
        host_keys=list(host_keys),
    )
    session.add(row)
    session.flush()
    touch(session, tenant_id, "hosts")
    return row


def newest_escrows(
    session: Session, tenant_id: uuid.UUID, repository_ids: Sequence[uuid.UUID], before: datetime | None = None
) -> dict[uuid.UUID, Escrow]:
    """Return the newest escrow of each repository that has one; with `before` the newest that came before."""
    newer = aliased(Escrow)
    mine = [Escrow.tenant_id == tenant_id, Escrow.repository_id.in_(repository_ids)]
    later = [newer.repository_id == Escrow.repository_id, newer.id > Escrow.id]
    if before is not None:
        mine.append(Escrow.created_at < before)
        later.append(newer.created_at < before)
    rows = session.scalars(select(Escrow).where(*mine, ~exists().where(*later)))
    return {row.repository_id: row for row in rows}


def escrow_state(
    session: Session, tenant_id: uuid.UUID, repository_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, State]:
    """Return for each repository: none, fresh (the current key opens it) or stale (an earlier one does)."""
    key = current_key(session, tenant_id)
    newest = newest_escrows(session, tenant_id, repository_ids)
    states: dict[uuid.UUID, State] = {}
    for identity in repository_ids:
        row = newest.get(identity)
        if row is None:
            states[identity] = "none"
        else:
            states[identity] = "fresh" if key and row.recovery_key_id == key.id else "stale"
    return states


def count_escrows(session: Session, tenant_id: uuid.UUID) -> dict[State, int]:
    """Return how many repositories have an escrow that is fresh or stale, as `escrow_state` says."""
    key = current_key(session, tenant_id)
    newer = aliased(Escrow)
    rows = session.execute(
        select(Escrow.recovery_key_id, func.count())
        .where(
            Escrow.tenant_id == tenant_id,
            ~exists().where(newer.repository_id == Escrow.repository_id, newer.id > Escrow.id),
        )
        .group_by(Escrow.recovery_key_id)
    ).all()
    counts = dict(rows)
    fresh = counts.pop(key.id, 0) if key else 0
    return {"fresh": fresh, "stale": sum(counts.values())}


def fingerprint_of(session: Session, escrow: Escrow) -> str:
    """Return the fingerprint of the key that an escrow is sealed to."""
    return session.get_one(RecoveryKey, escrow.recovery_key_id).fingerprint


def sealed_text(escrow: Escrow) -> str:
    """Return an escrow as `saveos-seal open` reads it: one line of base64."""
    return base64.b64encode(escrow.sealed).decode()


def _place(key: RecoveryKey) -> tuple[str, uuid.UUID, str]:
    return "recovery_keys", key.id, "private_key"
