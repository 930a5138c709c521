"""The one door to the database: engine, sessions, column types and the declarative base."""

import logging
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import uuid_utils.compat
from sqlalchemy import JSON, DateTime, Engine, MetaData, Select, Uuid, create_engine, event
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from sqlalchemy.types import TypeDecorator

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in, aware UTC out; refuses naive values, which SQLite would take silently."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store UTC."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without zone")
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Declarative base of every table; ids are UUIDv7, so keyset pages by id are pages by time."""

    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a plain dict
        datetime: UtcDateTime(),
        uuid.UUID: Uuid(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
    }


Row = TypeVar("Row")


def new_id() -> uuid.UUID:
    """Return a UUIDv7: unique, and sorted by time of creation."""
    return uuid_utils.compat.uuid7()


def as_id(ref: str | uuid.UUID) -> uuid.UUID | None:
    """Return the id that a person or program gave; None where it is a name."""
    if isinstance(ref, uuid.UUID):
        return ref
    try:
        return uuid.UUID(ref) if len(ref) in (32, 36) else None
    except ValueError:
        return None


def lookup(session: Session, query: Select[Row], model: Any, ref: str | uuid.UUID) -> Row | None:
    """Return the row of a query that `ref` names, by the model's id or else by its name."""
    found = None
    identity = as_id(ref)
    if identity is not None:
        found = session.scalar(query.where(model.id == identity))
    if found is None and isinstance(ref, str) and "\x00" not in ref:  # PostgreSQL's texts hold none
        found = session.scalar(query.where(model.name == ref))
    return found


class HasId:
    """Mixin: primary key `id`, a UUIDv7."""

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)


Topics = frozenset[tuple[uuid.UUID, str]]

log = logging.getLogger(__name__)


def apart(session: Session, what: str, step: Callable[[], object]) -> bool:
    """Do what concerns one row in a savepoint of its own; return whether it could be done.

    A fault is logged with `what` and undone, so that other rows go on. Raises OperationalError, which is the
    database's fault and no row's.
    """
    try:
        with session.begin_nested():
            step()
    except OperationalError:
        raise
    except Exception:
        log.exception("%s stumbled; others go on", what)
        return False
    return True


def touch(session: Session, tenant_id: uuid.UUID, topic: str) -> None:
    """Note that `topic` of a tenant changed; told to the change feed after the commit, once."""
    session.info.setdefault("topics", set()).add((tenant_id, topic))


class Database:
    """Engine and session factory of one database; made at start, closed at stop.

    After each commit of `session()` every function of `after_commit` gets the topics that the unit
    of work touched; they must not raise.
    """

    def __init__(self, url: str, kek: bytes) -> None:
        """Connect lazily to `url`; every session carries `kek` in its `info`, for sealed columns."""
        self.engine = _engine(url)
        self._writing = self.engine.execution_options(saveos_writes=True)
        self.sessions = sessionmaker(self.engine, expire_on_commit=False, info={"kek": kek})
        self.after_commit: list[Callable[[Topics], None]] = []

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is the embedded one."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def session(self, *, writes: bool = False) -> Iterator[Session]:
        """Open a session that commits at the end and rolls back on any error: one unit of work.

        With `writes` its first statement takes SQLite's write lock, as `write_lock` does.
        """
        with self.sessions(bind=self._writing if writes else self.engine) as session, session.begin():
            yield session
        topics: Topics = frozenset(session.info.pop("topics", ()))
        if topics:
            for tell in self.after_commit:
                tell(topics)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_size=10, max_overflow=20, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": 30, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, see below
        _use_wal(connection)
        for pragma in (
            "synchronous=FULL",  # an acknowledged check-in survives a power cut
            "foreign_keys=ON",
            "busy_timeout=30000",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # Deferred: a session that only reads takes no write lock. Writers that read first call
        # `write_lock`, or a concurrent writer would give them "database is locked" at once.
        writes = connection.get_execution_options().get("saveos_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _use_wal(connection: Any) -> None:
    """Switch to WAL. Where several processes make the database at once, SQLite refuses without waiting."""
    deadline = time.monotonic() + 30
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def write_lock(session: Session) -> None:
    """Take SQLite's write lock now, before the first read of a read-then-write unit of work.

    Without it SQLite refuses to upgrade a stale read snapshot (SQLITE_BUSY_SNAPSHOT), whatever
    the busy timeout. PostgreSQL needs nothing: rows are locked one by one.
    """
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
