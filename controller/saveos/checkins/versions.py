"""Which versions of the agent's programs hosts have, and which this installation would provision."""

import json
import re
import uuid
from pathlib import Path

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from saveos.checkins.schemas import AgentVersions
from saveos.core.pagination import decode_text
from saveos.hosts.models import Host

PROGRAMS = ("agent", "borg", "borgmatic")
AGENT_SETTINGS = Path("roles/agent/files/saveos_agent/settings.py")


def offered(fleet_dir: Path) -> dict[str, str]:
    """Return the versions that provisioning would install, by program; what is not known is left out.

    borg's and borgmatic's are those of the agent bundle, once one was built. The action plugin
    `dependencies` reads the same on the way to hosts.
    """
    found = {}
    try:
        told = (fleet_dir / AGENT_SETTINGS).read_text(encoding="utf-8")
    except OSError:
        told = ""
    if match := re.search(r'^VERSION = "([^"]+)"', told, re.MULTILINE):
        found["agent"] = match.group(1)
    for label in sorted((fleet_dir / ".build" / "bundle").glob("*.json")):
        try:
            bundle = json.loads(label.read_text())
            found |= {name: str(bundle[name]) for name in ("borg", "borgmatic")}
        except (OSError, ValueError, KeyError):
            continue
        break
    return found


def list_versions(
    session: Session,
    tenant_id: uuid.UUID,
    wanted: dict[str, str],
    *,
    outdated: bool = False,
    cursor: str | None = None,
    limit: int,
) -> list[AgentVersions]:
    """Return up to `limit` agents by name, with `outdated` only those that have other versions than `wanted`.

    A version that a host never told is not counted as outdated.
    """
    query = select(Host).where(
        Host.tenant_id == tenant_id, Host.is_agent.is_(True), Host.state != "decommissioned"
    )
    if outdated:
        query = query.where(or_(False, *(Host.versions[name].as_string() != wanted[name] for name in wanted)))
    if after := decode_text(cursor):
        query = query.where(Host.name > after)
    return [_versions(host, wanted) for host in session.scalars(query.order_by(Host.name).limit(limit))]


def _versions(host: Host, wanted: dict[str, str]) -> AgentVersions:
    own = {name: str(host.versions.get(name) or "") for name in PROGRAMS}
    return AgentVersions(
        host_id=host.id,
        host=host.name,
        **own,
        offered=wanted,
        outdated=[name for name in PROGRAMS if own[name] and wanted.get(name, own[name]) != own[name]],
    )
