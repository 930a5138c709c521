"""A tenant's keys: its data key (wrapped by the KEK), values sealed with it, its SSH key pair."""

import uuid

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.orm import Session

from saveos.accounts.models import Tenant
from saveos.core import security
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


def ssh_public_key(session: Session, tenant_id: uuid.UUID) -> str:
    """Return the tenant's public SSH key, a line for authorized_keys. Raises NotFound."""
    tenant = session.get(Tenant, tenant_id)
    if tenant is None or not tenant.ssh_public_key:
        raise NotFound("the tenant has no SSH key")
    return tenant.ssh_public_key


def _key_place(tenant_id: uuid.UUID) -> bytes:
    return security.place(tenant_id, "tenants", tenant_id, "data_key")


def _ssh_key_pair(comment: str) -> tuple[bytes, str]:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, f"{public.decode()} {comment}"
