"""Alembic's environment: runs the migrations on the connection that `saveos.migrations.upgrade` gives."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext

from saveos.accounts import models as _accounts
from saveos.alerts import models as _alerts
from saveos.archives import models as _archives
from saveos.checkins import models as _checkins
from saveos.core.database import Base, UtcDateTime
from saveos.enrolment import models as _enrolment
from saveos.hosts import models as _hosts
from saveos.jobs import models as _jobs
from saveos.policies import models as _policies
from saveos.repositories import models as _repositories
from saveos.restores import models as _restores
from saveos.secrets import models as _secrets

FEATURES = (
    _accounts,
    _alerts,
    _archives,
    _checkins,
    _enrolment,
    _hosts,
    _jobs,
    _policies,
    _repositories,
    _restores,
    _secrets,
)


def render(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Write our column type as SQLAlchemy's own, so that a migration does not move with our code."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_item=render,
    transactional_ddl=True,
    compare_server_default=True,
)
context.run_migrations()
