"""Migrations and models say the same, on both databases."""

import threading

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from saveos import migrations
from saveos.core.database import Base, Database
from saveos.migrations import upgrade
from sqlalchemy import inspect


def test_there_is_one_head():
    assert len(ScriptDirectory.from_config(migrations.config(None)).get_heads()) == 1


def test_models_and_migrations_agree(empty_database_url):
    database = Database(empty_database_url, b"k" * 32)
    upgrade(database)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, Base.metadata)
    database.close()
    assert differences == []


def test_two_processes_that_start_at_once_migrate_once(empty_database_url):
    databases = [Database(empty_database_url, b"k" * 32) for _ in range(3)]
    errors: list[Exception] = []

    def start(database: Database) -> None:
        try:
            upgrade(database)
        except Exception as error:  # noqa: BLE001 - the test judges it
            errors.append(error)

    threads = [threading.Thread(target=start, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert "hosts" in inspect(databases[0].engine).get_table_names()
    for database in databases:
        database.close()
