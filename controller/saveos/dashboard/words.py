"""How states are shown: a tone and a word for each. The words are translated where they are shown."""

from dataclasses import dataclass

from saveos.core.i18n import mark
from saveos.dashboard.acts import LABELS


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
rebuilds = {  # of hosts on another one, timed
    "running": Shown("busy", mark("Running")),
    "proven": Shown("good", mark("Proven")),
    "failed": Shown("bad", mark("Failed")),
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
    "incomplete": Shown("warn", mark("Incomplete")),  # of a host's last run
    "failed": Shown("bad", mark("Failed")),
    "canceled": Shown("idle", mark("Canceled")),
}
outcomes = {  # of a time at which a schedule was due
    "started": Shown("good", mark("Job started")),
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
    "incomplete": (
        mark("Backup incomplete"),
        mark("The last backup lacks something. The host's page says what."),
    ),
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
    "left_out": (mark("Repository left out"), ""),
    "policy_waits": (
        mark("Policy not in place"),
        mark("The host backs up by an earlier version of its policy. Provision it."),
    ),
    "paused_long": (
        mark("Paused and forgotten"),
        mark("The host is paused, so nobody watches it, and has no recent backup. Resume it, or take it out."),
    ),
    "quota_near": (mark("Quota filling up"), ""),
    "guard_held": (mark("Guard holds a repository"), ""),
    "guard_silent": (mark("Guard silent"), ""),
    "guard_refused": (mark("Guard refused a shorter hold"), ""),
    "check_failed": (mark("Check failed"), ""),
    "check_late": (mark("Check overdue"), ""),
    "drifted": (
        mark("Host drifted"),
        mark("The host differs from what provisioning would make of it. Its page shows the difference."),
    ),
    "certificate": (mark("Certificate near its end"), ""),
    "own_backup": (
        mark("Controller not backed up"),
        mark("The controller could not make its own backup. Its log says why."),
    ),
    "channel_failing": (mark("Channel does not deliver"), ""),
    "schedule_failed": (mark("Schedule did not start"), ""),
    "finding": (mark("Critical finding"), ""),
}
judged = {  # rule → when it holds
    "overdue": mark("The next backup is past its time, the spread and the grace of its policy."),
    "silent": mark("A backup is missing, and nothing was heard of the host since."),
    "failed": mark("The last run failed; each further failed run counts, without telling you again."),
    "incomplete": mark(
        "The last backup could not read some paths, holds no file, or less than a tenth of the one before."
    ),
    "never_enrolled": mark("A host is in the inventory for an hour and was never provisioned."),
    "never_backed_up": mark("A host is in care for a day, or past its first time, without any backup."),
    "disk_full": mark("Less than 5 percent of a file system that backups need is free."),
    "disk_low": mark("Less than 10 percent of a file system that backups need is free."),
    "drill_failed": mark("The last drill found something that cannot be restored; the alert names it."),
    "not_proven": mark("No drill has proven a host's archives for two weeks, or as long as its policy says."),
    "clock": mark("A host's clock is more than a minute off the controller's."),
    "quota": mark("A repository has used more than 90 percent of its quota."),
    "mismatch": mark("A host tells of a backup that its storage server does not have."),
    "left_out": mark("A host backs up, but one of its repositories got no archive for three days."),
    "policy_waits": mark("A policy changed more than a day ago, and a host backs up by the version before."),
    "paused_long": mark("A host is paused and has had no backup for 30 days."),
    "repository_damaged": mark("A storage server finds a repository not in order."),
    "quota_near": mark("A repository has used more than 75 percent of its quota."),
    "guard_held": mark("A guard frees nothing, because something looks as if backups were being destroyed."),
    "guard_silent": mark("A storage server's guard told nothing for two of its intervals, or never did."),
    "guard_refused": mark("Somebody asked a guard to keep its copies for less time, and it refused."),
    "check_failed": mark("A check found a repository or an archive damaged, or could not be done."),
    "check_late": mark("A repository was not checked for 15 days on its server, or 45 days with its data."),
    "drifted": mark("A look found a host other than provisioning would make it, and nobody converged it yet."),
    "certificate": mark("The controller's certificate or its CA ends soon and was not renewed."),
    "own_backup": mark("The controller could not make its own daily backup."),
    "channel_failing": mark("A channel took nothing for four hours, or its address is out of bounds."),
    "schedule_failed": mark("A schedule was due and could not start its operation."),
    "finding": mark("A maintenance operation found something critical on a host that is still open."),
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
    "reminder": mark("still open"),
    "test": mark("test"),
}
operations = {
    "backup": mark("Backup"),
    "restore": mark("Restore"),
    "provision": mark("Provisioning"),
    "browse": mark("Browsing"),
    "care": mark("Archive care"),
    "compare": mark("Comparison with the host"),
    "database": mark("Database restore"),
    "diff": mark("Text of a file"),
    "measure": mark("Measuring"),
    "transfer": mark("Transfer"),
    "drill": mark("Restore drill"),
    "health": mark("Health check"),
    "guard": mark("Guard"),
    "check": mark("Check"),
    "undo": mark("Undo"),
    "cleanup": mark("Cleanup"),
    "validation": mark("Validation"),
    "dependencies": mark("Dependencies"),
    "secrets": mark("Secrets"),
    "rekey": mark("New SSH key of the controller"),
    "drift": mark("Drift"),
}
maintenance = {  # what an operation is for, on its card
    "backup": mark("The newest archive of every host, and backing up now."),
    "health": mark("Units, disks, load, versions and reachability of hosts and storage servers."),
    "cleanup": mark("Caches, old logs and temporary files, by rules that never leave their directory."),
    "validation": mark("Are configuration, repositories, keys, timers and permissions as they must be?"),
    "dependencies": mark("Updates, known vulnerabilities and versions of what hosts depend on."),
    "secrets": mark("Ages of passphrases, keys and tokens, and their rotation."),
    "drift": mark("How hosts differ from what provisioning would make of them."),
    "drill": mark("Proof that the newest archives can be restored."),
}
maintenance_icons = {
    # icon="cloud-upload" icon="heartbeat" icon="eraser" icon="checklist" icon="packages" icon="key"
    # icon="git-compare" icon="shield-check" icon="tool"
    "backup": "cloud-upload",
    "health": "heartbeat",
    "cleanup": "eraser",
    "validation": "checklist",
    "dependencies": "packages",
    "secrets": "key",
    "drift": "git-compare",
    "drill": "shield-check",
}
severity_tones = {"critical": "bad", "warning": "warn", "info": "idle"}
stands = {  # how an operation's last result on a host is
    "ok": Shown("good", mark("In order")),
    "warning": Shown("warn", mark("Warnings")),
    "critical": Shown("bad", mark("Critical")),
}
parameters = {  # of operations, as forms name them
    "rule_kinds": mark("Kinds of rules"),
    "older_than": mark("Older than (days)"),
    "journal_mb": mark("Journal to keep (MB)"),
    "custom": mark("Rules of your own"),
    "kinds": mark("What to look at"),
    "apply": mark("Updates to install"),
    "batch": mark("Hosts at a time"),
    "refresh": mark("Fetch package lists first"),
    "online": mark("Ask advisory sources"),
    "roots": mark("Directories of projects"),
    "names": mark("Names that must resolve"),
    "certificates": mark("Certificates"),
    "health_units": mark("Units that must be active"),
    "health_url": mark("Address that must answer"),
    "rotate": mark("Rotate"),
    "repository_id": mark("Repository"),
    "older_than_days": mark("Only those older than (days)"),
    "settle": mark("Finish interrupted rotations"),
    "max_age_days": mark("Too old after (days)"),
}
hints = {  # of such parameters; one that says enough has none
    "rule_kinds": "",
    "older_than": mark("Instead of each rule's own age, as far as it lets that be lowered; -1 is theirs."),
    "journal_mb": mark("Archived journal files beyond that go, the oldest first."),
    "custom": mark("Each with name, root and patterns; perhaps kind, min_age_days and directories."),
    "kinds": "",
    "apply": "",
    "batch": mark("After the first one; each is examined before the next ones begin."),
    "refresh": "",
    "online": mark("They learn names and versions of libraries."),
    "roots": "",
    "names": mark("Beside those that the host needs anyway."),
    "certificates": mark("Files or directories of what must not end soon."),
    "health_units": "",
    "health_url": mark("After an update, asked from the host."),
    "rotate": "",
    "repository_id": mark("Empty is all of a host."),
    "older_than_days": "",
    "settle": "",
    "max_age_days": mark("0 is never."),
}
choices = {  # values of such parameters
    "cache": mark("caches"),
    "logs": mark("logs"),
    "temp": mark("temporary files"),
    "containers": mark("container images"),
    "none": mark("none"),
    "security": mark("security updates"),
    "all": mark("all"),
    "repair": mark("end an interrupted update"),
    "config": mark("configuration"),
    "setup": mark("set-up"),
    "compose": mark("compose files"),
    "passphrase": mark("passphrases"),
    "ssh-key": mark("SSH keys"),
    "agent-token": mark("agent tokens"),
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
    "active": Shown("good", mark("Valid")),
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
kept = {  # what belongs to files, and comes back with them
    "owners": mark("Owners and groups"),
    "acls": mark("ACLs"),
    "xattrs": mark("Extended attributes"),
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
secrets = {
    "passphrase": mark("Passphrase of a repository"),
    "escrow": mark("Sealed copy of a passphrase"),
    "ssh-key": mark("SSH key"),
    "agent-token": mark("Agent token"),
}
secret_users = {
    "passphrase": mark("used by the host's backups, restores and drills"),
    "escrow": mark("opened by whoever holds the recovery key"),
    "ssh-key": mark("used by the host at its storage servers"),
    "agent-token": mark("used by the host at the controller"),
}
controller_secrets = {
    "installation-key": mark("Installation key"),
    "controller-ssh-key": mark("SSH key of the controller"),
    "controller-ssh-key-former": mark("Former SSH key of the controller"),
    "recovery-key": mark("Recovery key"),
    "certificate-authority": mark("Certificate authority"),
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
acts = LABELS
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
guards = {  # what a guard says of a repository
    "held": Shown("bad", mark("Held")),
    "damaged": Shown("bad", mark("Damaged")),
    "missing": Shown("bad", mark("Missing")),
    "approved": Shown("warn", mark("Approved")),
    "ok": Shown("good", mark("In order")),
    "compacted": Shown("good", mark("Freed")),
    "new": Shown("idle", mark("New")),
    "": Shown("idle", mark("Not guarded")),
}
guard_reasons = {  # code → (title, what it means)
    "vanished": (
        mark("Archives vanished"),
        mark("Archives are gone that policy still keeps. Somebody may be deleting backups."),
    ),
    "shrunk": (
        mark("Archives became smaller"),
        mark("A new archive holds far fewer files than the ones before. Files may have been deleted."),
    ),
    "future": (
        mark("Archives from the future"),
        mark("Archives claim a time that has not come. Retention would drop the real ones for them."),
    ),
    "unexpected": (
        mark("Archives nobody told of"),
        mark("The repository holds archives, or an order of archives, that no run of the host explains."),
    ),
    "freeable": (
        mark("Unusually much would be freed"),
        mark("Far more of the repository is marked for deletion than ordinary retention leaves behind."),
    ),
    "tampered": (
        mark("Data of living archives is marked as deleted"),
        mark("Parts that archives still need were deleted behind Borg's back."),
    ),
    "key": (
        mark("The repository's key or configuration changed"),
        mark("The key may have a new passphrase that nobody knows. The copies still have the old one."),
    ),
    "clock": (
        mark("The server's clock is not in sync"),
        mark("Without a clock to trust, no archive counts as expired."),
    ),
    "alert": (
        mark("An alert is open for the host"),
        mark("Something is wrong with its backups. Nothing is freed before that is settled."),
    ),
    "copy": (mark("No copy could be taken"), mark("The guard frees nothing that it could not copy first.")),
    "space": (
        mark("Too little space in reserve"),
        mark("Freeing space needs some first. Give the server more, or ask what fills it."),
    ),
    "damaged": (
        mark("The repository is damaged"),
        mark("The guard's check found bytes that are not what was written. Undo can bring back a good copy."),
    ),
    "silent": (
        mark("No word from the controller"),
        mark("The guard does not know what policy keeps, and so frees nothing."),
    ),
    "ledger": (
        mark("The guard's own record was changed"),
        mark("The chain of what the guard saw is broken. Look at the storage server itself."),
    ),
    "quota": (mark("The quota is nearly used up"), mark("Backups fail when it is full. Raise it in time.")),
    "waiting": (mark("Waiting"), mark("Nothing is wrong; the guard waits for a later run.")),
}
keepers = {  # what keeps an archive from being pruned
    "within": mark("recent"),
    "hourly": mark("hourly"),
    "daily": mark("daily"),
    "weekly": mark("weekly"),
    "monthly": mark("monthly"),
    "yearly": mark("yearly"),
    "protected": mark("protected"),
}
facts = {  # of a result's summary; one that is not here is shown by its own name
    "planned_bytes": mark("To be freed"),
    "freed_bytes": mark("Freed"),
    "manager": mark("Package manager"),
    "planned": mark("Updates planned"),
    "updated": mark("Updates installed"),
    "pending": mark("Updates waiting"),
    "security": mark("Security updates"),
    "held": mark("Held back by hand"),
    "cves": mark("CVE identifiers"),
    "cve_source": mark("Source of CVEs"),
    "healthy": mark("In order afterwards"),
    "reboot": mark("Needs a restart"),
    "restarts": mark("Services to restart"),
    "projects": mark("Projects"),
    "vulnerable": mark("Vulnerable libraries"),
    "advisories": mark("Sources of advisories"),
    "changes": mark("Differences"),
    "waiting": mark("Waiting for"),
    "compose_reader": mark("Compose files read by"),
}
check_kinds = {
    "keyless": mark("On the server, without keys"),
    "archives": mark("Archives, by the host"),
    "data": mark("All data, by the host"),
}
checked = {
    "ok": Shown("good", mark("ok")),
    "damaged": Shown("bad", mark("damaged")),
    "failed": Shown("bad", mark("failed")),
    "": Shown("idle", mark("never")),
}
role_names = {"viewer": mark("viewer"), "operator": mark("operator"), "admin": mark("admin")}
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
