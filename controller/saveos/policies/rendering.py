"""What a host would get of its policy, rendered by the roles' own code."""

import importlib.util
import uuid
from functools import cache
from types import ModuleType
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.core.settings import CHECKOUT, PACKAGE
from saveos.hosts.models import Host
from saveos.repositories.models import Repository
from saveos.repositories.service import of_hosts, storage_tenant

FLEET = CHECKOUT if (CHECKOUT / "playbooks").is_dir() else PACKAGE / "_fleet"
# What the roles take where neither policy nor host says otherwise: roles/agent/defaults/main.yml
DEFAULTS: dict[str, Any] = {
    "agent_sources": ["/etc", "/home"],
    "agent_own_sources": [],
    "agent_excludes": [],
    "agent_exclude_caches": True,
    "agent_retention": {"keep_within": "7d", "keep_daily": 7, "keep_weekly": 4, "keep_monthly": 6},
    "agent_compression": "zstd,3",
    "agent_upload_rate_limit": 0,
    "agent_databases": [],
    "agent_borgmatic_overrides": {},
    "agent_home": "",
}


def render(
    session: Session, host: Host, variables: dict[str, Any], hooks: dict[str, list[str]]
) -> tuple[dict[str, str], str]:
    """Return borgmatic's configuration by repository id, or why there is none. It names files, no secret."""
    known = DEFAULTS | variables
    home = str(known["agent_home"])
    policy = {
        "host": host.name,
        "etc": f"{home}/etc" if home else "/etc/saveos",
        "state": f"{home}/state" if home else "/var/lib/saveos-agent",
        "hooks": hooks,
        "sources": [*known["agent_sources"], *known["agent_own_sources"]],
        **{name: known[f"agent_{name}"] for name in ("excludes", "exclude_caches", "retention")},
        **{name: known[f"agent_{name}"] for name in ("compression", "upload_rate_limit", "databases")},
        "overrides": known["agent_borgmatic_overrides"],
    }
    try:
        places = _places(session, host)
        if not places:
            return {}, f"{host.name} has no repository yet: give it one with saveos repositories add"
        texts: dict[str, str] = _roles_code("policy").borgmatic_configs(places, policy)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, str(error) if isinstance(error, ValueError) else "a variable of the host has a wrong form"
    return texts, ""


def _places(session: Session, host: Host) -> list[dict[str, Any]]:
    """Return the host's repositories as the roles complete them, from what is known of their servers."""
    stores = of_hosts(session, host.tenant_id, [host.id]).get(host.id, [])
    wanted = {store.server_id for store in stores if store.server_id}
    servers = {row.id: row for row in session.scalars(select(Host).where(Host.id.in_(wanted)))}
    return [_place(session, store, servers) for store in stores]


def _place(session: Session, store: Repository, servers: dict[uuid.UUID, Host]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": str(store.id),
        "label": str(store.id),
        "kind": store.kind,
        "path": store.path,
    }
    if store.kind == "local" or store.server_id is None:
        return found | {"url": store.path}
    server = servers[store.server_id]
    told = server.facts.get("server") or {}
    address = str(server.variables.get("server_address") or server.address)
    port = server.variables.get("server_port") or server.port
    known = {"server_tenant": storage_tenant(session, server)} | server.variables
    place = _roles_code("tenancy").storage_place(known)
    user, root = told.get("user") or place["user"], told.get("root") or place["root"]
    path = store.path or f"{root}/repositories/{store.id}"
    shown = f"[{address}]" if ":" in address else address
    return found | {"path": path, "url": f"ssh://{user}@{shown}:{port}{path}"}


@cache
def _roles_code(name: str) -> ModuleType:
    """Load a file of the roles' own: what is shown here is what provisioning writes."""
    file = FLEET / "plugins" / "module_utils" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"saveos_roles_{name}", file)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{file} cannot be loaded: install SaveOS again")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
