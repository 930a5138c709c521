"""Databases of a real host, dumped as its policy says and restored as the how-to says: no row is missing."""

import random

import pytest
from fleet import at_rest
from support import on

pytestmark = pytest.mark.lab

CANARY = "CANARY-database-5521ab"
INSTALL = (
    "export DEBIAN_FRONTEND=noninteractive; apt-get -q update && apt-get -q install -y --no-install-recommends "
    "-o Dpkg::Options::=--force-unsafe-io postgresql mariadb-server sqlite3"
)
READY = (
    "for n in $(seq 120); do mariadb -e 'SELECT 1' && runuser -u postgres -- psql -c 'SELECT 1' && exit 0; "
    "sleep 1; done; systemctl status mariadb postgresql --no-pager; exit 1"
)
FILL = """set -e
runuser -u postgres -- psql -q -v ON_ERROR_STOP=1 <<SQL
CREATE ROLE shopper;
CREATE DATABASE shop OWNER shopper;
\\c shop
CREATE TABLE goods (id serial PRIMARY KEY, name text);
INSERT INTO goods (name) SELECT 'é' || n FROM generate_series(1, $1) n;
SQL
mariadb <<SQL
CREATE DATABASE wiki;
USE wiki;
CREATE TABLE pages (id int PRIMARY KEY AUTO_INCREMENT, title varchar(200));
INSERT INTO pages (title) SELECT CONCAT('é', seq) FROM seq_1_to_$2;
CREATE USER 'dumper'@'localhost' IDENTIFIED BY '$4';
GRANT ALL ON wiki.* TO 'dumper'@'localhost';
SQL
mkdir -p /srv/app
sqlite3 /srv/app/notes.db "CREATE TABLE notes (id integer PRIMARY KEY, text text);
WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < $3)
INSERT INTO notes (text) SELECT n FROM c;"
"""
COUNT = (
    "runuser -u postgres -- psql -Atc 'SELECT count(*) FROM goods' shop; "
    "mariadb -N -e 'SELECT count(*) FROM wiki.pages'; sqlite3 /srv/app/notes.db 'SELECT count(*) FROM notes'"
)
LOSE = (
    "runuser -u postgres -- psql -qc 'DROP DATABASE shop' -c 'DROP ROLE shopper' && "
    "mariadb -e 'DROP DATABASE wiki' && "
    "rm /srv/app/notes.db && sqlite3 /srv/app/notes.db 'CREATE TABLE notes (id)'"
)
RESTORE = "/opt/saveos/bin/borgmatic --config /etc/saveos/borgmatic/*.yaml restore --archive latest 2>&1"
POLICY = {
    "name": "databases",
    "sources": ["/srv/data"],
    "schedule": "*-*-01 03:00:00",
    "zone": "Europe/Paris",
    "databases": [
        {"kind": "postgresql"},
        {"kind": "mariadb", "name": "wiki", "hostname": "localhost", "username": "dumper", "password": CANARY},
        {"kind": "sqlite", "path": "/srv/app/notes.db"},
    ],
}


@pytest.fixture(scope="module")
def rows(fleet):
    """How many rows the three databases of `web` have, in their order; afterwards the host is as it was."""
    on(fleet.web, INSTALL, seconds=400)
    on(fleet.web, READY, seconds=300)
    wanted = [random.randint(500, 5000) for _ in range(3)]
    on(fleet.web, FILL, *map(str, wanted), CANARY)
    assert [int(line) for line in on(fleet.web, COUNT).split()] == wanted
    at_rest(fleet.web)
    fleet.controller.post("/policies", POLICY, 201)
    assert fleet.controller.http("PATCH", "/hosts/web", {"policy": "databases"}).is_success
    yield wanted
    assert fleet.controller.http("PATCH", "/hosts/web", {"policy": None}).is_success
    at_rest(fleet.web)
    fleet.controller.done("provision", "web")
    on(fleet.web, "systemctl stop postgresql mariadb")


def test_what_the_host_would_get_is_what_it_gets(fleet, rows):
    planned = fleet.controller.get("/hosts/web/policy")
    assert (planned["policy"], planned["source"], planned["drift"]) == ("databases", "host", True)
    job = fleet.controller.done("provision", "web")
    after = fleet.controller.get("/hosts/web/policy")
    assert (after["drift"], after["applied_version"], after["version"]) == (False, 1, 1)
    ((name, text),) = planned["rendered"].items()
    assert on(fleet.web, f"cat /etc/saveos/borgmatic/{name}.yaml").strip() == text.strip()
    assert on(fleet.web, "stat -c '%a %U' /etc/saveos/databases/2") == "600 root"
    told = [str(planned), str(after), fleet.controller.http("GET", f"/jobs/{job['id']}/log?format=text").text]
    told += [fleet.controller.http("GET", path).text for path in ("/policies", "/inventory", "/audit")]
    assert not any(CANARY in text for text in told)
    assert on(fleet.web, "cat /etc/systemd/system/saveos-backup.timer").count("Europe/Paris") == 1


def test_dumps_restore_every_row(fleet, rows):
    job = fleet.controller.ended(fleet.controller.ask("backup", "web"))
    run = fleet.controller.get(f"/runs/{fleet.controller.items('/runs?host=web')[0]['id']}")
    assert job["state"] == "succeeded", run["error"] + run["log"]
    assert CANARY not in str(run)
    assert CANARY not in fleet.controller.http("GET", f"/jobs/{job['id']}/log?format=text").text
    at_rest(fleet.web)
    assert [int(line) for line in on(fleet.web, COUNT).split()] == rows
    on(fleet.web, LOSE)
    on(fleet.web, RESTORE, seconds=300)
    assert [int(line) for line in on(fleet.web, COUNT).split()] == rows
    assert on(fleet.web, f"journalctl --no-pager | grep -c {CANARY} || true").strip() == "0"


COPIES = (
    "runuser -u postgres -- psql -Atc 'SELECT count(*) FROM goods' shop_old; "
    "mariadb -N -e 'SELECT count(*) FROM wiki_old.pages'; sqlite3 /srv/app/old.db 'SELECT count(*) FROM notes'"
)
SPOIL = (
    "runuser -u postgres -- psql -qc 'DELETE FROM goods WHERE id > 5' shop && "
    "mariadb -e 'DELETE FROM wiki.pages WHERE id > 6' && "
    "sqlite3 /srv/app/notes.db 'DELETE FROM notes WHERE id > 7'"
)
OWNER = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'shop'"


def test_databases_come_back_as_copies_and_in_place_and_are_put_back(fleet, rows):
    """The dump of PostgreSQL holds all databases, MariaDB's its own CREATE DATABASE: both stay apart."""
    names = {"shop": "shop_old", "wiki": "wiki_old", "notes.db": "/srv/app/old.db"}
    for name, copy in names.items():
        fleet.controller.done("database", "web", database=name, copy_name=copy)
    assert [int(line) for line in on(fleet.web, COPIES).split()] == rows
    assert (
        fleet.controller.ended(fleet.controller.ask("database", "web", database="shop", copy_name="shop_old"))[
            "state"
        ]
        == "failed"
    )
    on(fleet.web, SPOIL)
    safety = []
    for name in names:
        job = fleet.controller.done("database", "web", database=name, database_as="replace")
        told = fleet.controller.items(f"/jobs/{job['id']}/hosts")[0]["result"]["database"]
        assert (told["as"], told["rows"] > 400) == ("replace", True)
        safety.append(told["safety"])
    assert [int(line) for line in on(fleet.web, COUNT).split()] == rows
    assert on(fleet.web, f'runuser -u postgres -- psql -Atc "{OWNER}"').strip() == "shopper"
    assert on(fleet.web, f"stat -c %a {' '.join(safety)}").split() == ["600"] * 3
    for path in safety:
        on(fleet.web, f"saveos-agent database --undo {path}")
    assert [int(line) for line in on(fleet.web, COUNT).split()] == [5, 6, 7]
    assert on(fleet.web, "ls -d /var/tmp/saveos-drill-* 2>/dev/null || true").strip() == ""
    leftover = "SELECT count(*) FROM pg_database WHERE datname LIKE '%saveos%' OR datname LIKE '%former%'"
    assert on(fleet.web, f'runuser -u postgres -- psql -Atc "{leftover}"').strip() == "0"
    on(
        fleet.web,
        "runuser -u postgres -- dropdb shop_old && mariadb -e 'DROP DATABASE wiki_old' && rm /srv/app/old.db",
    )
