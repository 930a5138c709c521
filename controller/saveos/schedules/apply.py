"""Schedules as a file says them: made, changed or left, all or none; a second time changes nothing."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator
from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.accounts.access import Actor
from saveos.core.errors import Invalid
from saveos.core.inputs import RequestModel
from saveos.schedules import service
from saveos.schedules.models import Schedule
from saveos.schedules.schemas import ScheduleIn, SchedulePatch

MOST = 500


class ApplyIn(RequestModel):
    """All of what each schedule is to be: what is left out is as in a new one. `prune` deletes the others."""

    schedules: Annotated[list[ScheduleIn], Field(max_length=MOST)]
    prune: bool = Field(False, description="Delete schedules that are not named; SaveOS's own always stay")
    dry_run: bool = False

    @field_validator("schedules")
    @classmethod
    def _once(cls, value: list[ScheduleIn]) -> list[ScheduleIn]:
        names = [each.name for each in value]
        if double := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the schedule {double} is named twice: name each once")
        return value


class AppliedOut(BaseModel):
    """What became, or with dry_run would become, of a schedule; `changed` names the fields."""

    name: str
    outcome: Literal["created", "updated", "unchanged", "removed"]
    changed: list[str] = []


def apply(session: Session, actor: Actor, asked: ApplyIn) -> list[AppliedOut]:
    """Make the schedules of `asked` so, and with `prune` delete the others but SaveOS's own.

    Raises Invalid on what could not run, and Forbidden as the operations themselves would; nothing is changed
    then, nor with `dry_run`.
    """
    own = select(Schedule).where(Schedule.tenant_id == actor.tenant_id)
    known = {each.name: each for each in session.scalars(own)}
    told = []
    for number, wanted in enumerate(asked.schedules):
        before = known.pop(wanted.name, None)
        try:
            fresh = service.drafted(session, actor, wanted)
        except Invalid as error:
            place = f"schedules.{number}.{error.field}" if error.field else f"schedules.{number}"
            raise Invalid(f"{wanted.name}: {error.detail}", field=place) from error
        if before is None:
            outcome: Literal["created", "updated", "unchanged"] = "created"
            changed: list[str] = []
        else:
            changed = [
                name for name in SchedulePatch.model_fields if getattr(fresh, name) != getattr(before, name)
            ]
            outcome = "updated" if changed else "unchanged"
        told.append(AppliedOut(name=wanted.name, outcome=outcome, changed=changed))
        if asked.dry_run:
            continue
        if before is None:
            service.create_schedule(session, actor, wanted)
        elif changed:
            given: dict[str, Any] = {name: getattr(wanted, name) for name in changed}
            service.change_schedule(session, actor, before, SchedulePatch(**given))
    for left in known.values() if asked.prune else ():
        if not left.built_in:
            told.append(AppliedOut(name=left.name, outcome="removed"))
            if not asked.dry_run:
                service.delete_schedule(session, left)
    return told
