"""Ansible Vault files and values under a new password: all of them, or none."""

import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from saveos.cli.errors import CommandError

JOURNAL = ".saveos-rekey.json"
BLOCK = re.compile(
    r"^(?P<indent>[ \t]*)\$ANSIBLE_VAULT;[\d.]+;AES256(?:;(?P<label>[^\n;]*))?\n(?:[ \t]*[0-9a-f]+(?:\n|\Z))+",
    re.MULTILINE,
)


def rekey(files: Sequence[Path], old: str, new: str, *, check: bool = False) -> dict[str, int]:
    """Encrypt everything vaulted in the files anew; return how many values of each. Raises CommandError.

    Every file is written aside and opened with the new password before the first is replaced; a kill while
    they are replaced is finished by the next call.
    """
    files = [path.resolve() for path in files]
    settle(files)
    texts = {path: _rekeyed(path, old, new) for path in files}
    counts = {str(path): count for path, (_, count) in texts.items()}
    if check:
        return counts
    aside = {path: _write_aside(path, text) for path, (text, _) in texts.items()}
    journal = files[0].with_name(JOURNAL)
    _write(journal, json.dumps([[str(fresh), str(path)] for path, fresh in aside.items()]))
    _replace(journal)
    return counts


def settle(files: Sequence[Path]) -> bool:
    """Finish replacing what an interrupted call had written completely; return whether there was any."""
    journals = {path.with_name(JOURNAL) for path in files}
    found = [journal for journal in journals if journal.exists()]
    for journal in found:
        _replace(journal)
    return bool(found)


def _replace(journal: Path) -> None:
    for fresh, path in json.loads(journal.read_text()):
        if Path(fresh).exists():
            Path(fresh).replace(path)
            _sync(Path(path).parent)
    journal.unlink()


def _rekeyed(path: Path, old: str, new: str) -> tuple[str, int]:
    from ansible.errors import AnsibleError  # type: ignore[import-untyped]
    from ansible.parsing.vault import VaultLib, VaultSecret  # type: ignore[import-untyped]

    before, after = VaultSecret(old.encode()), VaultSecret(new.encode())
    opener, reader = VaultLib([("default", before)]), VaultLib([("default", after)])
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read: {error}") from None
    count = 0

    def again(found: re.Match[str]) -> str:
        nonlocal count
        count += 1
        sealed = re.sub(r"(?m)^[ \t]+", "", found.group())
        try:
            plain = opener.decrypt(sealed.encode())
            fresh = VaultLib().encrypt(plain, after, vault_id=found["label"] or None)
            if reader.decrypt(fresh) != plain:
                raise CommandError(f"{path}: a value does not open with the new password; nothing was changed.")
        except AnsibleError:
            raise CommandError(f"{path}: the old password does not open it; nothing was changed.") from None
        lines = fresh.decode().strip().splitlines()
        return "".join(f"{found['indent']}{line}\n" for line in lines)

    told = BLOCK.sub(again, text)
    if not count:
        raise CommandError(f"{path} holds nothing that is vaulted; nothing was changed.")
    return told, count


def _write_aside(path: Path, text: str) -> Path:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.saveos-")
    os.close(handle)
    fresh = Path(name)
    _write(fresh, text)
    status = path.stat()
    fresh.chmod(status.st_mode & 0o7777)
    if os.geteuid() == 0:
        os.chown(fresh, status.st_uid, status.st_gid)
    return fresh


def _write(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _sync(path.parent)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
