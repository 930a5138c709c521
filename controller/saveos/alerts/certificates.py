"""Alerts about the controller's own certificates: they renew themselves, unless something hinders it."""

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.accounts.models import Tenant
from saveos.alerts.models import Alert
from saveos.alerts.service import open_alert, resolve_alert
from saveos.core.clock import now
from saveos.core.tls import Identity

RENEWED_BEFORE = timedelta(days=21)  # a certificate is renewed with 30 days left: now something hinders it
CA_BEFORE = timedelta(days=90)  # a new CA must be pinned on every host, which takes its time
RULE, OBJECT = "certificate", "controller"


def judge_certificates(session: Session, identity: Identity, at: datetime | None = None) -> None:
    """Tell every tenant once when the controller's certificate or its CA nears its end, and when it is well.

    The caller holds SQLite's write lock.
    """
    fault = _fault(identity, at or now())
    same = (Alert.rule == RULE, Alert.object == OBJECT, Alert.state != "resolved")
    told = set(session.scalars(select(Alert.tenant_id).where(*same)))
    for tenant_id in session.scalars(select(Tenant.id)).all():
        if fault and tenant_id not in told:
            open_alert(session, tenant_id, RULE, OBJECT, fault)
        elif not fault and tenant_id in told:
            ended = f"The controller's certificate is valid until {identity.not_after:%Y-%m-%d}."
            resolve_alert(session, tenant_id, RULE, OBJECT, ended)


def _fault(identity: Identity, at: datetime) -> str:
    """Return what is near its end and what to do; empty when nothing is. The CA's end is the graver one."""
    if identity.ca_not_after < at + CA_BEFORE:
        return (
            f"The controller's CA ends on {identity.ca_not_after:%Y-%m-%d}: hosts will not trust the "
            "controller then. Make a new one and pin it on every host."
        )
    if identity.not_after < at + RENEWED_BEFORE:
        return (
            f"The controller's certificate ends on {identity.not_after:%Y-%m-%d} and was not renewed: run "
            "saveos tls renew, and look into the log of saveos serve."
        )
    return ""
