"""How states are shown: a tone and a word for each. The words are translated where they are shown."""

from dataclasses import dataclass

from saveos.core.i18n import mark


@dataclass(frozen=True)
class Shown:
    """A state's tone (good, bad, warn, busy or idle) and its English word."""

    tone: str
    label: str


protections = {
    "protected": Shown("good", mark("Protected")),
    "late": Shown("warn", mark("Late")),
    "failing": Shown("bad", mark("Failing")),
    "silent": Shown("bad", mark("Silent")),
    "never": Shown("idle", mark("Never backed up")),
    "none": Shown("idle", mark("No backups")),
}
proofs = {  # whether drills prove that a host's archives can be restored
    "failed": Shown("bad", mark("Drill failed")),
    "old": Shown("warn", mark("Proof too old")),
    "never": Shown("idle", mark("Never proven")),
    "proven": Shown("good", mark("Proven")),
    "none": Shown("idle", mark("No backups")),
}
drilled_databases = {
    "proven": Shown("good", mark("Loaded")),
    "failed": Shown("bad", mark("Broken")),
    "skipped": Shown("idle", mark("Not tried")),
}
hosts = {
    "pending": Shown("busy", mark("Not provisioned")),
    "enrolled": Shown("good", mark("Enrolled")),
    "paused": Shown("idle", mark("Paused")),
    "decommissioned": Shown("idle", mark("Taken out")),
}
jobs = {
    "queued": Shown("idle", mark("Queued")),
    "running": Shown("busy", mark("Running")),
    "canceling": Shown("warn", mark("Canceling")),
    "succeeded": Shown("good", mark("Succeeded")),
    "partial": Shown("warn", mark("Partly failed")),
    "failed": Shown("bad", mark("Failed")),
    "canceled": Shown("idle", mark("Canceled")),
    "timed_out": Shown("bad", mark("Timed out")),
    "lost": Shown("bad", mark("Lost")),
}
job_hosts = {
    "queued": Shown("idle", mark("waiting")),
    "running": Shown("busy", mark("running")),
    "ok": Shown("good", mark("ok")),
    "changed": Shown("good", mark("changed")),
    "failed": Shown("bad", mark("failed")),
    "unreachable": Shown("bad", mark("unreachable")),
    "skipped": Shown("idle", mark("skipped")),
    "ignored": Shown("warn", mark("failed, ignored")),
    "canceled": Shown("idle", mark("canceled")),
}
runs = {
    "succeeded": Shown("good", mark("Succeeded")),
    "warning": Shown("warn", mark("With warnings")),
    "failed": Shown("bad", mark("Failed")),
    "canceled": Shown("idle", mark("Canceled")),
}
outcomes = {  # of a time at which a schedule was due
    "started": Shown("good", mark("Started")),
    "skipped": Shown("warn", mark("Skipped")),
    "failed": Shown("bad", mark("Failed")),
}
switches = {"on": Shown("good", mark("On")), "off": Shown("idle", mark("Off"))}
alerts = {
    "open": Shown("bad", mark("Open")),
    "acknowledged": Shown("busy", mark("Acknowledged")),
    "muted": Shown("idle", mark("Muted")),
    "resolved": Shown("good", mark("Resolved")),
}
severities = {"critical": mark("critical"), "warning": mark("warning"), "info": mark("for information")}
rules = {  # rule → (title, sentence; empty where only the alert's own summary can tell)
    "overdue": (mark("Backup overdue"), mark("The next backup is past its time.")),
    "silent": (
        mark("Agent silent"),
        mark("A backup is missing, and nothing was heard of the host since. Is it running and connected?"),
    ),
    "failed": (mark("Backup failed"), mark("The last run failed. The host's page says why.")),
    "never_enrolled": (
        mark("Never provisioned"),
        mark("The host is in the inventory, but was never provisioned."),
    ),
    "never_backed_up": (mark("Never backed up"), mark("The host is in care and has no backup yet.")),
    "disk_full": (mark("Disk nearly full"), ""),
    "disk_low": (mark("Disk filling up"), ""),
    "clock": (mark("Clock is wrong"), ""),
    "drill_failed": (mark("Restore drill failed"), ""),
    "not_proven": (mark("Restore not proven"), ""),
    "quota": (mark("Quota nearly used up"), ""),
    "mismatch": (mark("Backup never reached its server"), ""),
    "repository_damaged": (mark("Repository not in order"), ""),
    "certificate": (mark("Certificate near its end"), ""),
    "channel_failing": (mark("Channel does not deliver"), ""),
    "schedule_failed": (mark("Schedule did not start"), ""),
}
judged = {  # rule → when it holds
    "overdue": mark("The next backup is past its time, the spread and the grace of its policy."),
    "silent": mark("A backup is missing, and nothing was heard of the host since."),
    "failed": mark("The last run failed; each further failed run counts, without telling you again."),
    "never_enrolled": mark("A host is in the inventory for an hour and was never provisioned."),
    "never_backed_up": mark("A host is in care for a day, or past its first time, without any backup."),
    "disk_full": mark("Less than 5 percent of a file system that backups need is free."),
    "disk_low": mark("Less than 10 percent of a file system that backups need is free."),
    "drill_failed": mark("The last drill found something that cannot be restored; the alert names it."),
    "not_proven": mark("No drill has proven for two weeks that a host's archives can be restored."),
    "clock": mark("A host's clock is more than a minute off the controller's."),
    "quota": mark("A repository has used more than 90 percent of its quota."),
    "mismatch": mark("A host tells of a backup that its storage server does not have."),
    "repository_damaged": mark("A storage server finds a repository not in order."),
    "certificate": mark("The controller's certificate or its CA ends soon and was not renewed."),
    "channel_failing": mark("A channel took nothing for four hours, or its address is out of bounds."),
    "schedule_failed": mark("A schedule was due and could not start its operation."),
}
deliveries = {
    "pending": Shown("busy", mark("Waiting")),
    "retrying": Shown("warn", mark("Retrying")),
    "delivered": Shown("good", mark("Delivered")),
    "failed": Shown("bad", mark("Not delivered")),
}
messages = {
    "opened": mark("opened"),
    "reopened": mark("opened again"),
    "resolved": mark("resolved"),
    "digest": mark("several at once"),
    "test": mark("test"),
}
operations = {
    "backup": mark("Backup"),
    "restore": mark("Restore"),
    "provision": mark("Provisioning"),
    "browse": mark("Browsing"),
    "measure": mark("Measuring"),
    "drill": mark("Restore drill"),
    "health": mark("Health check"),
}
triggers = {
    "api": mark("HTTP"),
    "cli": mark("command line"),
    "dashboard": mark("dashboard"),
    "schedule": mark("schedule"),
    "timer": mark("host's timer"),
    "enrolment": mark("enrolment"),
    "hand": mark("playbook by hand"),
    "host": mark("on the host"),
    "job": mark("job"),
    "playbook": mark("playbook"),
}
registrations = {
    "waiting": Shown("warn", mark("Waiting")),
    "approved": Shown("busy", mark("Approved")),
    "provisioning": Shown("busy", mark("Provisioning")),
    "done": Shown("good", mark("Enrolled")),
    "refused": Shown("idle", mark("Refused")),
    "failed": Shown("bad", mark("Failed")),
}
escrows = {
    "none": Shown("bad", mark("Not sealed")),
    "stale": Shown("warn", mark("Sealed to an earlier key")),
    "fresh": Shown("good", mark("Sealed")),
}
tokens = {
    "active": Shown("good", mark("Active")),
    "expired": Shown("idle", mark("Expired")),
    "used": Shown("idle", mark("Used up")),
    "revoked": Shown("idle", mark("Revoked")),
}
conflicts = {
    "refuse": mark("Refuse: only an absent or empty directory"),
    "skip": mark("Keep it, and skip what would replace it"),
    "rename": mark("Keep it, and put what is restored beside it"),
    "overwrite": mark("Replace it"),
    "newer": mark("Replace only what is older"),
}
restored = {  # what happens to a path
    "create": mark("created"),
    "overwrite": mark("overwritten"),
    "skip": mark("skipped"),
    "rename": mark("put beside"),
    "blocked": mark("cannot be: something is in its way"),
}
running = {"backup": mark("Backing up"), "restore": mark("Restoring")}  # a run that goes on
phases = {
    "start": mark("begins"),
    "create": mark("reads and sends"),
    "finish": mark("cleans up"),
    "extract": mark("writes files"),
}
bulk_operations = {
    "backup": mark("Back up"),
    "drill": mark("Drill"),
    "health": mark("Check health"),
    "provision": mark("Provision"),
}
bulk_actions = {
    "pause": mark("Pause"),
    "resume": mark("Resume"),
    "add_tags": mark("Add tags"),
    "remove_tags": mark("Remove tags"),
    "add_group": mark("Put into a group"),
    "remove_group": mark("Take out of a group"),
    "policy": mark("Give a policy"),
    "decommission": mark("Take out of care"),
}
filters = {
    "q": mark("Search"),
    "protection": mark("Protection"),
    "group": mark("Group"),
    "tag": mark("Tag"),
    "policy": mark("Policy"),
    "drift": mark("Drift"),
}
acts = {  # route's name, as the audit trail has it
    "add host": mark("Host added"),
    "change host": mark("Host changed"),
    "take out host": mark("Host taken out"),
    "approve registration": mark("Registration approved"),
    "assign policy": mark("Policy given"),
}
catalogues = {
    "none": mark("not yet indexed"),
    "wanted": mark("asked for anew"),
    "waiting": mark("being indexed"),
    "indexed": mark("indexed"),
    "failed": mark("could not be indexed"),
    "off": mark("not indexed"),
}
checks = {
    "never": mark("never"),
    "ok": mark("ok"),
    "failed": mark("failed"),
    "stale": mark("too long ago"),
}
roles = {
    "viewer": mark("viewer: sees everything, changes nothing"),
    "operator": mark("operator: starts backups and restores"),
    "admin": mark("admin: everything"),
}
problems = {  # status → (title, sentence)
    403: (mark("Not allowed"), mark("Your account may not do this. Ask an admin for the right, or go back.")),
    404: (mark("Nothing here"), mark("This page does not exist, or what it showed is gone.")),
    409: (mark("That does not fit"), mark("The state of things refuses it.")),
    422: (mark("That cannot be accepted"), mark("Something that was sent is not right.")),
    429: (mark("Too many requests"), mark("Wait a moment, then try again.")),
    500: (
        mark("Something broke"),
        mark("This is our mistake, not yours. Try again; if it stays, give the request id to who runs SaveOS."),
    ),
    503: (mark("Not available"), mark("A part that is needed does not answer. Try again in a moment.")),
}
ATTENTION = ("failing", "silent", "late")
CELL_MARKS = {
    "ok": "✓",
    "changed": "±",
    "failed": "✕",
    "unreachable": "✕",
    "skipped": "–",
    "ignored": "!",
    "running": "•",
}
