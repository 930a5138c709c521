#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: agent
short_description: Run a verb of saveos-agent on a host
version_added: 0.1.0
author: The SaveOS contributors (@saveos)
description:
  - Starts or joins a run of the agent and returns its record, or returns what the agent knows.
  - Backups and restores run detached from the play (in the host's unit where it has systemd), so that a lost
    connection never breaks them. The same O(run_id) never runs twice.
options:
  verb:
    description: What to do.
    type: str
    required: true
    choices:
      [backup, restore, send, stop, browse, measure, snapshots, status, health, deliver, drill, receive, check,
       care, compare, database, diff, mend]
  config_dir:
    description: Directory of the agent's configuration.
    type: path
    default: /etc/saveos
  program:
    description: The agent; empty finds it where the role puts it.
    type: path
  run_id:
    description: Id of the run (UUID); empty lets the agent choose one, or stops the running backup.
    type: str
    default: ""
  job_id:
    description: The controller's job, for the record.
    type: str
    default: ""
  trigger:
    description: Who asked for the run, for the record.
    type: str
    choices: [timer, job, playbook, host]
    default: playbook
  timeout:
    description: Seconds to wait for a run; it goes on after that.
    type: int
    default: 86400
  repository:
    description: Id of the repository; empty is the only one.
    type: str
    default: ""
  archive:
    description: Name or id of the archive, or V(latest).
    type: str
    default: latest
  paths:
    description: Paths to restore; empty restores the whole archive.
    type: list
    elements: str
    default: []
  refs:
    description: More paths to restore, as URL-safe base64 of their bytes.
    type: list
    elements: str
    default: []
  restore_excludes:
    description: Paths that are not restored.
    type: list
    elements: str
    default: []
  exclude_refs:
    description: More paths that are not restored, as URL-safe base64 of their bytes.
    type: list
    elements: str
    default: []
  destination:
    description: Directory to restore into; empty makes one below the agent's state directory.
    type: str
    default: ""
  in_place:
    description: Put everything back to where it came from.
    type: bool
    default: false
  conflict:
    description: What happens to what is there; V(refuse) takes an absent or empty directory only.
    type: str
    choices: [refuse, skip, rename, overwrite, newer]
    default: refuse
  verify:
    description: Compare what was restored with the archive by hash.
    type: bool
    default: true
  owners:
    description: Restore owners and groups; else all belongs to root, and is setuid to nobody.
    type: bool
    default: true
  acls:
    description: Restore ACLs.
    type: bool
    default: true
  xattrs:
    description: Restore extended attributes, file capabilities with them.
    type: bool
    default: true
  transfer:
    description: Id of the controller's transfer that V(send) sends to, or that a restore's content comes by;
      with V(drill) what was restored goes there, to the host whose verb is V(receive).
    type: str
    default: ""
  staged:
    description: Whether V(send) sends to another host, and so all that belongs to each file.
    type: bool
    default: false
  action:
    description: What O(verb=care) does to an archive.
    type: str
    default: ""
  options:
    description: Options of V(care), V(compare), V(database), V(diff) and V(mend), as the agent's own command
      line has them; empty ones are left out.
    type: dict
    default: {}
  path:
    description: Directory to browse.
    type: str
    default: /
  sample:
    description: Files that a drill restores.
    type: int
    default: 20
  seed:
    description: Seed that chooses them; -1 takes another each time.
    type: int
    default: -1
  kind:
    description: How much a check reads, the lists of archives or all data.
    type: str
    choices: [archives, data]
    default: archives
  repositories:
    description: Ids of the repositories to check; empty is all of the host.
    type: list
    elements: str
    default: []
  sources:
    description: Paths to measure.
    type: list
    elements: str
    default: []
  excludes:
    description: Patterns of what to leave out when measuring.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: A backup or restore only says what it would do.
"""

EXAMPLES = r"""
- name: Back up now and wait for the result
  saveos.fleet.agent:
    verb: backup

- name: Bring one file back
  saveos.fleet.agent:
    verb: restore
    archive: latest
    paths: [/etc/hosts]
    destination: /root/restored
"""

RETURN = r"""
saveos:
  description:
    - C(run) is the record of a backup or restore, C(plan) what one would do in check mode; C(browse), C(check),
      C(measure), C(drill), C(receive), C(snapshots), C(status), C(health) and C(deliver) hold what the agent
      knows; C(care), C(compare), C(database) and C(undo) (of V(mend)) what was done or found.
  returned: always where the agent answered
  type: dict
  sample: {run: {run_id: 01a20611-671c-7657-aef0-7a01ac4f1901, state: succeeded}}
"""

PROGRAMS = ("/usr/local/bin/saveos-agent", "/opt/saveos/bin/saveos-agent")
RUNS = ("backup", "restore")
WITH_OPTIONS = ("care", "compare", "database", "diff", "mend")
READING = ("compare", "diff")  # know no check
LOG_CHARACTERS = 4000  # the whole log tail goes to the controller with the check-in, not through Ansible


def find_program(module):
    """Path of the agent; fails the module with the fix where there is none."""
    for path in [module.params["program"]] if module.params["program"] else PROGRAMS:
        if os.access(path, os.X_OK):
            return path
    module.fail_json(msg="saveos-agent is not installed on this host: provision it first (playbooks/site.yml)")


def arguments(params, check_mode):
    """The agent's command line for a verb."""
    verb = params["verb"]
    argv = ["--config", params["config_dir"], "--json"]
    if verb == "stop":
        return argv + (["stop", "--run-id", params["run_id"]] if params["run_id"] else ["backup", "--stop"])
    argv.append(verb)
    if verb in RUNS:
        argv += ["--check"] if check_mode else ["--wait"]
        argv += [f"--trigger={params['trigger']}", f"--timeout={params['timeout']}"]
        argv += [f"--run-id={params['run_id']}", f"--job-id={params['job_id']}"]
    if verb == "send":
        argv += [f"--{name.replace('_', '-')}={params[name]}" for name in ("timeout", "run_id", "job_id")]
        argv += ["--staged"] if params["staged"] else []
    if verb in ("send", "receive") or (verb in ("restore", "drill") and params["transfer"]):
        argv.append(f"--transfer={params['transfer']}")
    if verb in ("restore", "send", "browse", "snapshots"):
        argv.append(f"--repository={params['repository']}")
    if verb in ("restore", "send", "browse"):
        argv.append(f"--archive={params['archive']}")
    if verb == "browse":
        argv.append(f"--path={params['path']}")
    if verb == "drill":
        argv += [f"--sample={params['sample']}"] + ([f"--seed={params['seed']}"] if params["seed"] >= 0 else [])
    if verb == "check":
        argv += [f"--kind={params['kind']}"] + [f"--repository={each}" for each in params["repositories"]]
    argv += with_options(params, check_mode)
    if verb == "measure":
        argv += [f"--source={path}" for path in params["sources"]]
        argv += [f"--exclude={pattern}" for pattern in params["excludes"]]
    if verb in ("restore", "send"):
        argv += [f"--path={path}" for path in params["paths"]] + [f"--ref={ref}" for ref in params["refs"]]
        argv += [f"--exclude={path}" for path in params["restore_excludes"]]
        argv += [f"--exclude-ref={ref}" for ref in params["exclude_refs"]]
        argv += [f"--no-{name}" for name in ("owners", "acls", "xattrs") if not params[name]]
    if verb == "restore":
        argv += [f"--destination={params['destination']}", f"--conflict={params['conflict']}"]
        argv += ["--in-place"] if params["in_place"] else []
        argv += [] if params["verify"] else ["--no-verify"]
    return argv


def with_options(params, check_mode):
    """What follows a verb whose options are handed over as they are; nothing for another."""
    if params["verb"] not in WITH_OPTIONS:
        return []
    argv = [params["action"]] if params["action"] else []
    argv += [f"--{name}={value}" for name, value in params["options"].items() if value not in ("", None)]
    return argv + (["--check"] if check_mode and params["verb"] not in READING else [])


def run_agent(argv):
    """Run the agent and return its exit status, output and errors.

    Where nobody reads our own output any more (the play was canceled), end the waiting agent, not its run.
    """
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    ours = sys.stdout.fileno()
    streams = {process.stdout.fileno(): [], process.stderr.fileno(): []}
    poll = select.poll()
    poll.register(ours, 0)  # only hang-ups
    for handle in streams:
        poll.register(handle, select.POLLIN)
    waiting = set(streams)
    while waiting:
        for handle, events in poll.poll():
            if handle == ours:
                if events & (select.POLLERR | select.POLLHUP):
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    sys.exit(1)
                continue
            chunk = os.read(handle, 65536)
            streams[handle].append(chunk)
            if not chunk:
                poll.unregister(handle)
                waiting.discard(handle)
    output, errors = (b"".join(chunks).decode("utf-8", "replace") for chunks in streams.values())
    return process.wait(), output, errors


def trimmed(record):
    """The record with a short log, so that events stay small."""
    if isinstance(record, dict) and record.get("log_tail"):
        record = {**record, "log_tail": record["log_tail"][-LOG_CHARACTERS:]}
    return record


def sentence(record):
    """What failed and how to fix it, from a record's results."""
    errors = [result["error"] for result in record.get("results", ()) if result.get("error")]
    return (
        " ".join(f"{error['message']} {error['fix']}" for error in errors)
        or f"the run ended as {record.get('state')}"
    )


def answer(verb, data):
    """The module's result for what the agent printed: (saveos, changed, failure sentence or None)."""
    if "error" in data and "state" not in data:
        return {}, False, f"{data['error']['message']} {data['error']['fix']}".strip()
    if "plan" in data:
        return {"plan": data["plan"]}, True, None
    if verb == "stop":
        return {"run": trimmed(data.get("run")), "stopped": data["stopped"]}, data["stopped"], None
    if verb in RUNS:
        failed = data["state"] not in ("succeeded", "warning")
        return {"run": trimmed(data)}, not failed, sentence(data) if failed else None
    changed = bool(data.get("changed")) and verb in WITH_OPTIONS
    return {"undo" if verb == "mend" else verb: data}, changed, fault(verb, data)


def fault(verb, data):
    """What a drill or a check found; None where it found nothing wrong."""
    if verb == "drill" and data["state"] == "failed":
        return f"the newest archives cannot be restored as they are: {broken(data)}"
    if verb == "receive" and data["failed_total"]:
        told = "; ".join(f"{each['path']}: {each['message']}" for each in data["failed"])
        return f"{data['failed_total']} files of another host's drill did not arrive: {told}"[:2000]
    if verb == "check" and any(each["state"] != "ok" for each in data["repositories"]):
        told = [f"{each['repository_id']}: {each['detail']}" for each in data["repositories"] if each["detail"]]
        return f"a check found something: {'; '.join(told)}"[:2000]
    return None


def broken(drill):
    """What failed in a drill, by name, bounded."""
    told = []
    for repository in drill["repositories"]:
        if repository["error"]:
            told.append(f"{repository['error']['message']} {repository['error']['fix']}".strip())
        told += [f"{file['path']}: {file['reason']}" for file in repository["failed"]]
        failed = [base for base in repository["databases"] if base["state"] == "failed"]
        told += [f"{base['kind']} {base['name']}: {base['error']}" for base in failed]
    return "; ".join(told)[:2000] or "there is nothing to restore"


def main():
    module = AnsibleModule(
        argument_spec={
            "verb": {
                "required": True,
                "choices": [
                    *("backup", "restore", "send", "stop", "browse", "measure"),
                    *("snapshots", "status", "health", "deliver", "drill", "receive", "check", *WITH_OPTIONS),
                ],
            },
            "config_dir": {"type": "path", "default": "/etc/saveos"},
            "program": {"type": "path"},
            "run_id": {"default": ""},
            "job_id": {"default": ""},
            "trigger": {"choices": ["timer", "job", "playbook", "host"], "default": "playbook"},
            "timeout": {"type": "int", "default": 86400},
            "repository": {"default": ""},
            "archive": {"default": "latest"},
            "paths": {"type": "list", "elements": "str", "default": []},
            "refs": {"type": "list", "elements": "str", "default": []},
            "restore_excludes": {"type": "list", "elements": "str", "default": []},
            "exclude_refs": {"type": "list", "elements": "str", "default": []},
            "destination": {"default": ""},
            "in_place": {"type": "bool", "default": False},
            "conflict": {
                "choices": ["refuse", "skip", "rename", "overwrite", "newer"],
                "default": "refuse",
            },
            "verify": {"type": "bool", "default": True},
            **{name: {"type": "bool", "default": True} for name in ("owners", "acls", "xattrs")},
            "transfer": {"default": ""},
            "staged": {"type": "bool", "default": False},
            "action": {"default": ""},
            "options": {"type": "dict", "default": {}},
            "path": {"default": "/"},
            "kind": {"choices": ["archives", "data"], "default": "archives"},
            "repositories": {"type": "list", "elements": "str", "default": []},
            "sample": {"type": "int", "default": 20},
            "seed": {"type": "int", "default": -1},
            "sources": {"type": "list", "elements": "str", "default": []},
            "excludes": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    verb = module.params["verb"]
    if module.check_mode and verb in ("stop", "send", "deliver", "drill", "receive"):
        module.exit_json(changed=verb == "stop", saveos={})
    status, output, errors = run_agent([find_program(module), *arguments(module.params, module.check_mode)])
    try:
        data = json.loads(output)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        said = errors.strip()[-500:] or f"exit status {status}"
        module.fail_json(msg=f"saveos-agent gave no answer: {said}")
    saveos, changed, failure = answer(verb, data)
    if failure:
        module.fail_json(msg=failure, changed=changed, saveos=saveos)
    module.exit_json(changed=changed, saveos=saveos)


if __name__ == "__main__":
    main()
