# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where a tenant's repositories are on a storage server: its own Unix user, directory and guard. No I/O, and no
Ansible: the controller loads this file, too."""

from __future__ import annotations

import hashlib
import re

LONGEST = 32  # characters of a Unix user's name
DIGEST = 8
USER, ROOT = "saveos-borg", "/srv/saveos"


def tenant_label(user, tenant):
    """A tenant's name as a part of its user's name, at most so long that `<user>-<label>` is one.

    A name that is not fit for it, or could be taken for a digest, carries its digest, so that no two tenants
    have one label. ValueError when nothing fits behind the user.
    """
    room = LONGEST - len(user) - 1
    if room < DIGEST:
        raise ValueError(
            f"server_user {user} is too long for a tenant behind it: at most {LONGEST - DIGEST - 1} characters"
        )
    slug = re.sub(r"[^a-z0-9]+", "-", tenant.lower()).strip("-")
    if slug == tenant and len(slug) <= room and not re.search(rf"(^|-)[0-9a-f]{{{DIGEST}}}$", slug):
        return slug
    digest = hashlib.sha256(tenant.encode()).hexdigest()[:DIGEST]
    start = slug[: max(0, room - DIGEST - 1)].strip("-")
    return f"{start}-{digest}" if start else digest


def storage_place(variables):
    """A storage server's C(user), C(root), C(instance) and C(tenant), from the variables of the role server.

    Without `server_tenant` they are the shared ones, as ever; with it all three are the tenant's own.
    """
    user = str(variables.get("server_user") or USER)
    root = str(variables.get("server_root") or ROOT)
    instance = str(variables.get("server_instance") or "")
    tenant = str(variables.get("server_tenant") or "")
    if tenant:
        label = tenant_label(user, tenant)
        user, root = f"{user}-{label}", f"{root}/tenants/{label}"
        instance = f"{instance}-{label}" if instance else label
    return {"user": user, "root": root, "instance": instance, "tenant": tenant}
