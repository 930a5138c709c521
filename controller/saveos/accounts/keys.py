"""A tenant's keys: its data key (wrapped by the KEK), values sealed with it, its SSH key pair."""

import uuid
from datetime import datetime

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.orm import Session

from saveos.accounts.models import Tenant
from saveos.core import security
from saveos.core.clock import now
from saveos.core.database import new_id
from saveos.core.errors import NotFound


def make_tenant(session: Session, name: str) -> Tenant:
    """Make a tenant with its data key and SSH key pair (ed25519, private part sealed)."""
    tenant_id = new_id()
    key = security.new_data_key()
    wrapped = security.seal(session.info["kek"], key, _key_place(tenant_id))
    private, public = _ssh_key_pair(f"saveos:{name}")
    tenant = Tenant(id=tenant_id, name=name, data_key=wrapped, ssh_public_key=public)
    session.add(tenant)
    session.flush()
    tenant.ssh_private_key = seal_for(session, tenant_id, ("tenants", tenant_id, "ssh_private_key"), private)
    return tenant


def data_key(session: Session, tenant_id: uuid.UUID) -> bytes:
    """Return a tenant's data key, opened; kept for the session. Raises NotFound for no such tenant."""
    keys: dict[uuid.UUID, bytes] = session.info.setdefault("data_keys", {})
    if tenant_id not in keys:
        tenant = session.get(Tenant, tenant_id)
        if tenant is None:
            raise NotFound("there is no such tenant")
        keys[tenant_id] = security.unseal(session.info["kek"], tenant.data_key, _key_place(tenant_id))
    return keys[tenant_id]


def seal_for(
    session: Session, tenant_id: uuid.UUID, where: tuple[str, uuid.UUID, str], plaintext: bytes
) -> bytes:
    """Seal a value for one place of a tenant: (table, row, column)."""
    return security.seal(data_key(session, tenant_id), plaintext, security.place(tenant_id, *where))


def unseal_for(
    session: Session, tenant_id: uuid.UUID, where: tuple[str, uuid.UUID, str], sealed: bytes
) -> bytes:
    """Open what `seal_for` sealed for the same place. Raises security.CannotOpen for another."""
    return security.unseal(data_key(session, tenant_id), sealed, security.place(tenant_id, *where))


def ssh_private_key(session: Session, tenant_id: uuid.UUID) -> bytes:
    """Return the tenant's private SSH key in OpenSSH form; it goes only to a job's 0600 file on tmpfs."""
    tenant = session.get(Tenant, tenant_id)
    if tenant is None or tenant.ssh_private_key is None:
        raise NotFound("the tenant has no SSH key")
    return unseal_for(session, tenant_id, ("tenants", tenant_id, "ssh_private_key"), tenant.ssh_private_key)


def former_ssh_private_key(session: Session, tenant_id: uuid.UUID) -> bytes:
    """Return the key before the present one while a rotation goes on, else nothing."""
    tenant = session.get_one(Tenant, tenant_id)
    if tenant.former_ssh_private_key is None:
        return b""
    return unseal_for(session, tenant_id, _former(tenant_id), tenant.former_ssh_private_key)


def begin_ssh_rotation(session: Session, tenant_id: uuid.UUID) -> bool:
    """Make a new SSH key and keep the present one as the former; return whether one was made.

    While a former key is kept no other is made: the rotation that goes on is finished first.
    """
    tenant = session.get_one(Tenant, tenant_id, with_for_update=True)
    if tenant.former_ssh_private_key is not None:
        return False
    before = ssh_private_key(session, tenant_id)
    private, public = _ssh_key_pair(f"saveos:{tenant.name}")
    tenant.former_ssh_private_key = seal_for(session, tenant_id, _former(tenant_id), before)
    tenant.former_ssh_public_key = tenant.ssh_public_key
    here = ("tenants", tenant_id, "ssh_private_key")
    tenant.ssh_private_key = seal_for(session, tenant_id, here, private)
    tenant.ssh_public_key, tenant.ssh_key_made_at = public, now()
    session.flush()
    return True


def end_ssh_rotation(session: Session, tenant_id: uuid.UUID) -> None:
    """Forget the former SSH key."""
    tenant = session.get_one(Tenant, tenant_id)
    tenant.former_ssh_private_key, tenant.former_ssh_public_key = None, ""
    session.flush()


def _former(tenant_id: uuid.UUID) -> tuple[str, uuid.UUID, str]:
    return "tenants", tenant_id, "former_ssh_private_key"


def ssh_public_key(session: Session, tenant_id: uuid.UUID) -> str:
    """Return the tenant's public SSH key, a line for authorized_keys. Raises NotFound."""
    tenant = session.get(Tenant, tenant_id)
    if tenant is None or not tenant.ssh_public_key:
        raise NotFound("the tenant has no SSH key")
    return tenant.ssh_public_key


def ssh_key_made_at(session: Session, tenant_id: uuid.UUID) -> datetime:
    """Return when the tenant's SSH key was made."""
    tenant = session.get_one(Tenant, tenant_id)
    return tenant.ssh_key_made_at or tenant.created_at


def _key_place(tenant_id: uuid.UUID) -> bytes:
    return security.place(tenant_id, "tenants", tenant_id, "data_key")


def _ssh_key_pair(comment: str) -> tuple[bytes, str]:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, f"{public.decode()} {comment}"
