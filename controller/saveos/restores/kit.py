"""The recovery kit of a host: what restores it when host and controller are gone, on paper and as files."""

import base64
import hashlib
import io
import uuid
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.core.clock import now
from saveos.core.errors import Conflict
from saveos.hosts.models import Host
from saveos.repositories import service as repositories
from saveos.repositories.models import Repository
from saveos.restores.schemas import EscrowOut, EscrowStateOut
from saveos.secrets import service as secrets

RESTORE = Path(__file__).with_name("restore.sh")
SCAN = 500  # repositories looked at with one query
FILE_MODE, PROGRAM_MODE = 0o600, 0o700


@dataclass(frozen=True)
class Item:
    """One repository of the host, with what the host sealed about it."""

    id: uuid.UUID
    url: str
    host_keys: tuple[str, ...]
    sealed: str
    recovery_key: str
    sealed_at: datetime

    def out(self) -> EscrowOut:
        """Return it as it travels."""
        return EscrowOut(
            repository_id=self.id,
            url=self.url,
            host_keys=list(self.host_keys),
            known_hosts=self.known_hosts,
            recovery_key=self.recovery_key,
            sealed=self.sealed,
            sealed_at=self.sealed_at,
        )

    @property
    def known_hosts(self) -> str:
        """The server's host keys in OpenSSH's form; "" for a repository on the host itself."""
        parts = urlsplit(self.url) if self.url.startswith("ssh://") else None
        if parts is None or not parts.hostname:
            return ""
        name = parts.hostname if parts.port in (None, 22) else f"[{parts.hostname}]:{parts.port}"
        return "".join(f"{name} {key}\n" for key in self.host_keys)


@dataclass(frozen=True)
class Kit:
    """Everything in a recovery kit."""

    host: str
    made_at: datetime
    items: tuple[Item, ...]


def collect(session: Session, host: Host, before: datetime | None = None) -> Kit:
    """Return the kit of a host, with `before` as it was then. Raises Conflict while nothing is in escrow.

    Whoever breaks into a host can seal what opens nothing; what it sealed earlier is never thrown away.
    """
    stores = repositories.of_hosts(session, host.tenant_id, [host.id]).get(host.id, [])
    newest = secrets.newest_escrows(session, host.tenant_id, [store.id for store in stores], before)
    items = [
        Item(
            id=store.id,
            url=row.url,
            host_keys=tuple(row.host_keys),
            sealed=secrets.sealed_text(row),
            recovery_key=secrets.fingerprint_of(session, row),
            sealed_at=row.created_at,
        )
        for store in stores
        if (row := newest.get(store.id)) is not None
    ]
    if not items:
        raise Conflict(
            f"nothing of {host.name} is in escrow: set a recovery key (saveos recovery init), then provision it"
        )
    return Kit(host.name, now(), tuple(items))


def list_escrows(
    session: Session, tenant_id: uuid.UUID, state: str | None, after: uuid.UUID | None, limit: int
) -> list[EscrowStateOut]:
    """Return up to `limit` repositories of hosts that are not taken out, with the state of their escrow."""
    found: list[EscrowStateOut] = []
    while True:
        query = (
            select(Repository, Host.name)
            .join(Host, Host.id == Repository.host_id)
            .where(Repository.tenant_id == tenant_id, Host.state != "decommissioned")
            .order_by(Repository.id)
            .limit(SCAN)
        )
        rows = session.execute(query.where(Repository.id > after) if after else query).all()
        ids = [row.id for row, _ in rows]
        states = secrets.escrow_state(session, tenant_id, ids)
        newest = secrets.newest_escrows(session, tenant_id, ids)
        found += [
            EscrowStateOut(
                repository_id=row.id,
                host_id=row.host_id,
                host=name,
                state=states[row.id],
                sealed_at=newest[row.id].created_at if row.id in newest else None,
            )
            for row, name in rows
            if state in (None, states[row.id])
        ]
        if len(found) >= limit or len(rows) < SCAN:
            return found[:limit]
        after = ids[-1]


def files(kit: Kit) -> dict[str, tuple[str, int]]:
    """Return the kit's files: path below the kit's directory → text and mode."""
    found = {
        "README.txt": (text(kit), FILE_MODE),
        "kit.html": (html(kit), FILE_MODE),
        "restore.sh": (RESTORE.read_text(), PROGRAM_MODE),
    }
    for item in kit.items:
        own = f"repositories/{item.id}"
        found[f"{own}/url"] = (f"{item.url}\n", FILE_MODE)
        found[f"{own}/known_hosts"] = (item.known_hosts, FILE_MODE)
        found[f"{own}/sealed"] = (f"{item.sealed}\n", FILE_MODE)
        found[f"{own}/recovery-key"] = (f"{item.recovery_key}\n", FILE_MODE)
    return found


def archive(kit: Kit) -> bytes:
    """Return the kit as a ZIP archive, all below one directory."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, (content, mode) in files(kit).items():
            entry = zipfile.ZipInfo(f"{directory(kit)}/{name}", kit.made_at.timetuple()[:6])
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, content)
    return buffer.getvalue()


def directory(kit: Kit) -> str:
    """Return the name of the kit's directory, which is its files' name too."""
    return f"saveos-recovery-{kit.host}"


def host_key_print(key: str) -> str:
    """Return a host key's fingerprint as `ssh-keygen -l` shows it."""
    words = key.split()
    try:
        raw = base64.b64decode(words[1])
    except (IndexError, ValueError):
        return key
    return f"{words[0]} SHA256:{base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip('=')}"


STEPS = (
    (
        "Bring what you need together",
        "A Debian host with borg (apt-get install borgbackup) and ssh, these files, and the private half of "
        "the recovery key, which `saveos recovery init` wrote or showed when it was made. Without that private "
        "half nobody can open this kit.",
    ),
    (
        "Open the kit, if it is still sealed",
        "With the command saveos, on any machine, without any controller: "
        "saveos recovery open --kit DIRECTORY --key FILE. "
        "Or with the tool of the agent bundle, for each repository: "
        "saveos-seal open --key FILE <repositories/ID/sealed >opened.json, and add --opened opened.json to the "
        "next command. A line of sealed text in this document can be typed into such a file.",
    ),
    (
        "Get to the repository",
        "sh restore.sh ssh-key makes a key pair and shows the line that lets it in on the storage server, "
        "where root puts it. The server's SSH host key is checked against the kit. With a disk, mount or copy "
        "of the repository in hand this step falls away: add --repository PATH to the next commands.",
    ),
    (
        "Restore",
        "sh restore.sh list shows the archives. "
        "sh restore.sh restore --target /mnt/restored [--archive NAME] [PATH...] restores the newest, or the "
        "one that is named, whole or the paths that are named, to an empty directory. Run it as root to get "
        "owners and modes back.",
    ),
    (
        "Where borg says that the passphrase is wrong or the key is damaged",
        "sh restore.sh import-key puts the repository's key back as it was at the time of sealing.",
    ),
    (
        "Afterwards",
        "Remove the opened kit (it holds the passphrase in plain text) and take the line away from the storage "
        "server.",
    ),
)


def text(kit: Kit) -> str:
    """Return the kit's text, 78 columns wide where it can be."""
    lines = [f"Recovery kit of {kit.host}", "", f"Made {kit.made_at:%Y-%m-%d %H:%M} UTC by SaveOS.", ""]
    for number, (title, words) in enumerate(STEPS, 1):
        lines += [f"{number}. {title}", *_wrap(words, 75, "   "), ""]
    for item in kit.items:
        lines += [f"Repository {item.id}", f"  URL           {item.url}"]
        lines += [f"  Host key      {host_key_print(key)}" for key in item.host_keys]
        lines += [
            f"  Recovery key  {item.recovery_key}",
            f"  Sealed        {item.sealed_at:%Y-%m-%d %H:%M} UTC:",
        ]
        lines += [f"    {line}" for line in _chunks(item.sealed)] + [""]
    return "\n".join(lines)


def html(kit: Kit) -> str:
    """Return the kit as one printable page that needs nothing else."""
    steps = "".join(f"<li><b>{escape(title)}</b><br>{escape(words)}</li>" for title, words in STEPS)
    parts = []
    for item in kit.items:
        keys = "".join(f"<dt>Host key</dt><dd>{escape(host_key_print(key))}</dd>" for key in item.host_keys)
        parts.append(
            f"<h2>Repository {item.id}</h2><dl><dt>URL</dt><dd>{escape(item.url)}</dd>{keys}"
            f"<dt>Recovery key</dt><dd>{item.recovery_key}</dd>"
            f"<dt>Sealed</dt><dd>{item.sealed_at:%Y-%m-%d %H:%M} UTC</dd></dl>"
            f"<pre>{escape(chr(10).join(_chunks(item.sealed)))}</pre>"
        )
    title = f"Recovery kit of {escape(kit.host)}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>Made {kit.made_at:%Y-%m-%d %H:%M} UTC by SaveOS.</p><ol>{steps}</ol>"
        f"{''.join(parts)}</body></html>\n"
    )


STYLE = (
    "body{font:11pt/1.4 sans-serif;max-width:48em;margin:2em auto;padding:0 1em;color:#111;background:#fff}"
    "h1{font-size:16pt}h2{font-size:12pt;margin-top:1.5em}li{margin:.5em 0}"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:.2em 1em}dt{font-weight:bold}dd{margin:0;"
    "overflow-wrap:anywhere}pre{font:10pt/1.35 monospace;border:1px solid #999;padding:.6em;"
    "white-space:pre-wrap;overflow-wrap:anywhere}"
    "@media print{body{margin:0;max-width:none}h2,pre{break-inside:avoid}}"
)


def _chunks(sealed: str, width: int = 64) -> Sequence[str]:
    return [sealed[at : at + width] for at in range(0, len(sealed), width)]


def _wrap(words: str, width: int, indent: str) -> list[str]:
    import textwrap

    return textwrap.wrap(words, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
