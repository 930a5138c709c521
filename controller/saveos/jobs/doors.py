"""Which door a request came through; it becomes the job's trigger."""

from fastapi import Request

from saveos.accounts.access import Actor


def door(request: Request, actor: Actor) -> str:
    """Return dashboard, cli or api."""
    if actor.cookie:
        return "dashboard"
    return "cli" if request.headers.get("user-agent", "").startswith("saveos-cli") else "api"
