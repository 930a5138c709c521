"""Owns the schema's history (Alembic). `upgrade` brings a database to the newest one, at each start."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from saveos.core.database import Database

LOCK = 0x5A7E05  # of PostgreSQL's advisory locks: ours


def config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration; it has no file of its own."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent))
    settings.attributes["connection"] = connection
    return settings


def upgrade(database: Database) -> None:
    """Bring the schema to the newest version, in one transaction; a second process waits for the first."""
    with database.engine.connect() as connection, connection.begin():
        if database.is_sqlite:
            connection.exec_driver_sql("ROLLBACK")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
        command.upgrade(config(connection), "head")
