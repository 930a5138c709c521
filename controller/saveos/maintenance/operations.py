"""THE table of operations. Routes, commands, history and tests follow from it; a new operation is one entry.

An operation's playbook is `playbooks/<name>.yml` (provision: site.yml). Its typed parameters (parameters.py)
reach the play as `maintenance_<parameter>`.

An operation that tells findings returns from its module `saveos: {<name>: RESULT}`, with RESULT made by
`plugins/module_utils/findings.py`, in check mode as well as in a run. Its entry says `supports_check=True`,
`done_key=<name>`, `on_result=findings.record`, and `fix_parameter` where it can mend what it finds. Routes,
history, alert, dashboard page and `saveos maintenance results|findings|fix` follow from that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.orm import Session

from saveos.core.inputs import RequestModel
from saveos.jobs.models import Job, JobHost
from saveos.maintenance import care, drift, findings, guard, health, rekey, results, secrets
from saveos.maintenance.parameters import (
    BrowseParameters,
    CareParameters,
    CheckParameters,
    CleanupParameters,
    CompareParameters,
    DatabaseParameters,
    DependenciesParameters,
    DiffParameters,
    DrillParameters,
    GuardParameters,
    MeasureParameters,
    NoParameters,
    RekeyParameters,
    RestoreParameters,
    SecretsParameters,
    TransferParameters,
    UndoParameters,
    ValidationParameters,
)
from saveos.restores.service import TIMEOUT as RESTORE_TIMEOUT

OnResult = Callable[[Session, Job, JobHost], None]


@dataclass(frozen=True)
class Operation:
    """One thing that can be done to hosts.

    `needs` says what a target must be; `idempotent` whether a lost attempt is repeated by itself;
    `timeout` is in seconds; `stop_playbook` ends what goes on at a host after a cancel; `done_key` is
    the key of a host's result with which it is done. `servers` takes the targets' storage servers along.
    `exclusive` operations lease their hosts and repositories; the others only read and run beside any.
    One that `configures` takes hosts that are not provisioned yet, and gets the policy's secrets.
    `fix_parameter` names the parameter (a list of references, `Fixes`) with which a run mends findings:
    `id`, or `id:subject` where the finding has a subject. A Fix button runs the operation with it.
    `instead` says what to ask for where somebody waits for what the operation brings: nobody starts such a
    one by itself, or again.
    """

    name: str
    playbook: str
    summary: str
    parameters: type[RequestModel] = NoParameters
    right: str = "jobs:write"
    supports_check: bool = False
    idempotent: bool = True
    needs: Literal["agents", "servers", "both"] = "agents"
    servers: bool = False
    exclusive: bool = True
    configures: bool = False
    timeout: int = 86_400
    stop_playbook: str = ""
    done_key: str = ""
    on_result: OnResult | None = None
    fix_parameter: str = ""
    instead: str = ""

    @property
    def tells_findings(self) -> bool:
        """Whether its results are records with findings."""
        return self.on_result in (findings.record, secrets.told, drift.told, health.examined, rekey.moved)


OPERATIONS = {
    each.name: each
    for each in (
        Operation(
            "provision",
            "site.yml",
            "Make hosts what their policy and roles say",
            supports_check=True,
            needs="both",
            servers=True,
            configures=True,
            timeout=3_600,
            on_result=results.provisioned,
        ),
        Operation(
            "backup",
            "backup.yml",
            "Back hosts up now",
            stop_playbook="stop.yml",
            done_key="run",
            on_result=results.ran,
        ),
        Operation(
            "restore",
            "restore.yml",
            "Bring paths of an archive back",
            RestoreParameters,
            right="restores:write",
            supports_check=True,
            timeout=RESTORE_TIMEOUT,
            stop_playbook="stop.yml",
            done_key="run",
            on_result=results.restored,
        ),
        Operation(
            "transfer",
            "transfer.yml",
            "Bring paths of an archive to another host, or to who downloads them",
            TransferParameters,
            right="restores:write",
            idempotent=False,
            timeout=RESTORE_TIMEOUT,
            stop_playbook="stop.yml",
            on_result=results.transferred,
            instead="a transfer belongs to a restore: ask for that, with target_host or download",
        ),
        Operation(
            "browse",
            "browse.yml",
            "List a directory of an archive",
            BrowseParameters,
            timeout=900,
            done_key="browse",
        ),
        Operation(
            "care",
            "care.yml",
            "Protect, rename, delete or export an archive",
            CareParameters,
            right="archives:write",
            supports_check=True,
            done_key="care",
            on_result=care.recorded,
        ),
        Operation(
            "compare",
            "compare.yml",
            "Compare an archive with the host as it is",
            CompareParameters,
            timeout=7_200,
            done_key="compare",
        ),
        Operation(
            "diff",
            "diff.yml",
            "Send the text of a file, or how it differs, to who reads it",
            DiffParameters,
            right="restores:write",  # and download: see care.needed_rights
            idempotent=False,  # its reader is gone by then
            timeout=1_800,
            instead="a difference has a reader: ask for it with POST /api/v1/archives/{id}/diff",
        ),
        Operation(
            "database",
            "database.yml",
            "Bring a database back, as a copy or in place",
            DatabaseParameters,
            right="restores:write",
            supports_check=True,
            idempotent=False,  # a second copy needs another name, and a second replacement is a person's choice
            done_key="database",
        ),
        Operation(
            "measure",
            "measure.yml",
            "See how much a backup would hold",
            MeasureParameters,
            exclusive=False,  # asks no repository, and takes no lock
            timeout=2_400,
            done_key="measure",
        ),
        Operation(
            "drill",
            "drill.yml",
            "Prove that the newest archives can be restored",
            DrillParameters,
            exclusive=False,  # the host's own lock orders it with its runs; nothing else is held up meanwhile
            done_key="drill",
            on_result=results.drilled,
        ),
        Operation(
            "validation",
            "validation.yml",
            "See whether hosts are set up as they must be",
            ValidationParameters,
            supports_check=True,
            needs="both",
            exclusive=False,  # reads, and what it mends is replaced at once
            timeout=900,
            done_key="validation",
            on_result=findings.record,
            fix_parameter="fixes",
        ),
        Operation(
            "cleanup",
            "cleanup.yml",
            "Remove caches, old logs and temporary files",
            CleanupParameters,
            supports_check=True,
            needs="both",
            exclusive=False,  # a backup may run beside it: what is open is left alone
            timeout=7_200,
            done_key="cleanup",
            on_result=findings.record,
            fix_parameter="rules",
        ),
        Operation(
            "health",
            "health.yml",
            "Is each host well",
            needs="both",
            supports_check=True,
            exclusive=False,  # reads only, and takes no lock at a host or a repository
            timeout=600,
            done_key="health",
            on_result=health.examined,
        ),
        Operation(
            "drift",
            "drift.yml",
            "See how hosts differ from what provisioning would make of them",
            supports_check=True,
            needs="both",
            servers=True,
            exclusive=False,  # only looks: every play of it is in check mode
            configures=True,
            timeout=3_600,
            done_key="drift",
            on_result=drift.told,
        ),
        Operation(
            "secrets",
            "secrets.yml",
            "Examine and rotate passphrases, SSH keys and tokens of hosts",
            SecretsParameters,
            supports_check=True,
            servers=True,
            timeout=6 * 3_600,
            done_key="secrets",
            on_result=secrets.told,
            fix_parameter="fixes",
        ),
        Operation(
            "rekey",
            "rekey.yml",
            "Give hosts a new SSH key of the controller in place of the old one",
            RekeyParameters,
            supports_check=True,
            needs="both",
            timeout=3_600,
            done_key="rekey",
            on_result=rekey.moved,
        ),
        Operation(
            "guard",
            "guard.yml",
            "Have guards judge, copy and free what policy let go",
            GuardParameters,
            needs="servers",
            exclusive=False,  # the guard's own lock orders its runs
            done_key="guard",
            on_result=guard.guarded,
        ),
        Operation(
            "check",
            "check.yml",
            "Check repositories: keyless on their server, or with their data on the host",
            CheckParameters,
            servers=True,
            exclusive=False,  # Borg's and the guard's own locks order it; nothing else is held up meanwhile
            done_key="check",
            on_result=guard.checked,
        ),
        Operation(
            "undo",
            "undo.yml",
            "Roll a repository back to a copy that its guard kept, and mend the host",
            UndoParameters,
            right="repositories:undo",
            supports_check=True,
            servers=True,
            done_key="undo",
            on_result=guard.undone,
        ),
        Operation(
            "dependencies",
            "dependencies.yml",
            "Audit and update what hosts depend on",
            DependenciesParameters,
            supports_check=True,
            needs="both",
            done_key="dependencies",
            on_result=findings.record,
            fix_parameter="fixes",
        ),
    )
}
