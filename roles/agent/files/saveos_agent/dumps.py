# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Database dumps: where the programs of their servers are, and what scratch servers are asked."""

from __future__ import annotations

import glob
import os
import pwd
import re
import shutil
from pathlib import Path

SERVER_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/usr/sbin",
    "/usr/libexec",
)


class DumpBroken(Exception):
    """A dump that cannot be loaded."""


class Untested(Exception):
    """A dump that could not be tried here."""


DRILL_USER = "saveos_drill"  # of scratch servers: a role that no dump makes anew, and a database of that name
OWNERLESS = ("--no-owner", "--no-privileges", "--exit-on-error")
COUNT_POSTGRESQL = b"""SELECT format('SELECT count(*) FROM %I.%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') \\gexec
"""
TABLES_MYSQL = b"""SELECT CONCAT('SELECT COUNT(*) FROM `', REPLACE(TABLE_SCHEMA, '`', '``'), '`.`',
REPLACE(TABLE_NAME, '`', '``'), '`;') FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE'
AND TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema');
"""


def without_values(text: str) -> str:
    """A database's complaint without what may be a row's content."""
    text = re.sub(r"'[^']*'?", "'…'", text)
    return re.sub(r'((?:near|syntax|value)[^"]*)"[^"]*"?', r'\1"…"', text)[:300]


def connection_word(name: str) -> str:
    """A value of a PostgreSQL connection string, quoted."""
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"


def last_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return file.read()


def give_to(path: Path, user: str) -> None:
    if user:
        entry = pwd.getpwnam(user)
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def server_programs(*names: str) -> str:
    """The directory that has all of some programs, the newest version's. Raises Untested."""
    found = [Path(each) for place in SERVER_PLACES for each in glob.glob(place)]
    found = [each for each in found if all((each / name).exists() for name in names)]
    if not found:
        raise Untested(f"this host has no {names[0]}")
    return str(max(found, key=lambda each: [int(part) for part in re.findall(r"\d+", str(each))]))


def which_server(*names: str) -> str:
    """The first of some programs that is there. Raises Untested."""
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/usr/libexec:/usr/bin"
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    raise Untested(f"this host has no {names[0]}")
