# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters of the roles: a policy as borgmatic's configuration, cron as systemd's calendar, repositories as
data. No I/O."""

from __future__ import annotations

import re
import uuid

from ansible.errors import AnsibleFilterError
from ansible_collections.saveos.fleet.plugins.module_utils import policy as rendering
from ansible_collections.saveos.fleet.plugins.module_utils import tenancy
from ansible_collections.saveos.fleet.plugins.module_utils.ssh_keys import check_id

NAMESPACE = uuid.UUID("361e6d51-faec-444a-9079-341386da8e2e")  # the one of ansible.builtin.to_uuid
FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
NAMES = {
    "month": ("", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "weekday": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
SHORTHANDS = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}
WEEKDAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
# A storage server tells its user and directory, and every host hands them to ssh: they must be no options
USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
PLACE = re.compile(r"/[^\s\"'\\{}]*")


def _number(text, field, low, high):
    names = NAMES.get(field, ())
    value = names.index(text.lower()) if text.lower() in names and text else -1
    if text.isdigit():
        value = int(text)
    if not low <= value <= high:
        raise AnsibleFilterError(f"agent_schedule: {text!r} is no {field} of a cron line ({low} to {high})")
    return value


def _field(text, field, low, high):
    """One field of a cron line as the set of its values, or None for `*`."""
    if text == "*":
        return None
    values = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        if step and not (step.isdigit() and int(step)):
            raise AnsibleFilterError(f"agent_schedule: {part!r} has no whole number as its step")
        if span == "*":
            first, last = low, high
        else:
            begin, dash, end = span.partition("-")
            first = _number(begin, field, low, high)
            last = _number(end, field, low, high) if dash else high if step else first
        if last < first:
            raise AnsibleFilterError(f"agent_schedule: {part!r} runs backwards")
        values.update(range(first, last + 1, int(step or 1)))
    return values


def check_cron(line):
    """A cron schedule as five fields, with shorthands such as @daily replaced; fails with a sentence."""
    fields = SHORTHANDS.get(str(line).strip(), str(line)).split()
    if len(fields) != len(FIELDS):
        raise AnsibleFilterError(
            f"agent_schedule {line!r} must have five fields, such as '0 2 * * *' for every night at two"
        )
    for text, field in zip(fields, FIELDS, strict=True):
        _field(text, *field)
    return " ".join(fields)


def cron_to_calendar(line):
    """A cron schedule as systemd OnCalendar expressions: two where cron means `that day of the month or that
    weekday`."""
    parsed = [_field(text, *field) for text, field in zip(check_cron(line).split(), FIELDS, strict=True)]
    minute, hour, day, month, weekday = parsed

    def numbers(values):
        return "*" if values is None else ",".join(f"{value:02d}" for value in sorted(values))

    def expression(days, weekdays):
        names = [WEEKDAYS[value] for value in sorted({value % 7 for value in weekdays})] if weekdays else []
        prefix = f"{','.join(names)} " if names else ""
        return f"{prefix}*-{numbers(month)}-{numbers(days)} {numbers(hour)}:{numbers(minute)}:00"

    if day is not None and weekday is not None:
        return [expression(day, None), expression(None, weekday)]
    return [expression(day, weekday)]


def cron_in_any_zone(line):
    """The cron line of every moment that can be a schedule's in some time zone: zones differ by quarters of an
    hour."""
    minutes = _field(check_cron(line).split()[0], *FIELDS[0])
    quarters = {(minute + shift) % 60 for minute in minutes or () for shift in (0, 15, 30, 45)}
    every = range(60) if minutes is None else quarters
    return f"{','.join(str(minute) for minute in sorted(every))} * * * *"


def schedule_values(line, zone):
    """A schedule as the agent reads it: its time zone, and by field the values, null for all; Sunday is 0."""
    texts = check_cron(line).split()
    parsed = {field[0]: _field(text, *field) for text, field in zip(texts, FIELDS, strict=True)}
    if parsed["weekday"] is not None:
        parsed["weekday"] = {day % 7 for day in parsed["weekday"]}
    return {"zone": zone, **{name: None if each is None else sorted(each) for name, each in parsed.items()}}


def _address(server, variables):
    for name in ("server_address", "ansible_host", "ansible_ssh_host"):
        if variables.get(name):
            return str(variables[name])
    return server


def _registered(variables, name):
    """Result of a task of an earlier play, or an empty mapping."""
    return (variables.get(name) or {}) if name in variables else {}


def agent_repositories(entries, host, hostvars, groups):
    """A host's repositories, complete: address, user, path and url filled in from the storage server's
    variables and result.

    entries: agent_repositories as the operator wrote it; empty means one repository on the first storage
    server.
    """
    servers = list(groups.get("storage_servers") or [])
    if not entries:
        raise AnsibleFilterError(
            f"{host} has no repository: put a host in the group storage_servers, or set agent_repositories"
        )
    known, taken = [], set()
    for entry in entries:
        item = {"kind": "ssh", "server": "", "quota": "", "host_keys": [], "exists": None, **entry}
        try:
            item["id"] = check_id(str(item.get("id") or ""))
        except ValueError as error:
            raise AnsibleFilterError(f"agent_repositories of {host}: {error}") from error
        item["label"] = item.get("label") or item["id"]
        if item["kind"] == "local":
            if not str(item.get("path") or "").startswith("/"):
                raise AnsibleFilterError(
                    f"agent_repositories of {host}: the local repository {item['id']} needs an absolute path"
                )
            item["url"] = item["path"]
        elif item["kind"] == "ssh":
            _complete_ssh(item, host, hostvars, servers)
            place = (item["address"], item["port"], item["user"])
            if place in taken:
                raise AnsibleFilterError(
                    f"{host} has two repositories on the server {item['address']}: its one key opens one of "
                    "them; use another server"
                )
            taken.add(place)
        else:
            raise AnsibleFilterError(
                f"agent_repositories of {host}: kind {item['kind']!r} is neither ssh nor local"
            )
        known.append(item)
    return known


def _complete_ssh(item, host, hostvars, servers):
    server = item["server"] = item["server"] or ("" if item.get("address") else next(iter(servers), ""))
    variables = hostvars[server] if server and server in hostvars else {}
    if not server and not item.get("address"):
        raise AnsibleFilterError(
            f"{host} has no storage server: put a host in the group storage_servers, or give its repository an "
            "address"
        )
    result = (_registered(variables, "__server_storage").get("saveos") or {}).get("server") or {}
    exists = _registered(variables, "__server_repositories").get("repositories") or {}
    place = storage_place(variables)
    root = result.get("root") or place["root"]
    item["address"] = item.get("address") or _address(server, variables)
    item["port"] = int(
        item.get("port")
        or variables.get("server_port")
        or variables.get("ansible_port")
        or result.get("port")
        or 22
    )
    item["user"] = item.get("user") or result.get("user") or place["user"]
    item["path"] = item.get("path") or f"{root}/repositories/{item['id']}"
    if not USER.fullmatch(str(item["user"])) or not PLACE.fullmatch(str(item["path"])):
        raise AnsibleFilterError(
            f"agent_repositories of {host}: {item['user']!r} is no user, or {item['path']!r} no absolute path; "
            f"if nobody set them, the storage server {server} told them and may be in wrong hands"
        )
    item["host_keys"] = list(item["host_keys"] or result.get("host_keys") or [])
    item["exists"] = exists.get(item["id"])
    address = f"[{item['address']}]" if ":" in item["address"] else item["address"]
    item["url"] = f"ssh://{item['user']}@{address}:{item['port']}{item['path']}"


def storage_place(variables):
    """Where the role server keeps repositories: user, root, instance and tenant, from its variables."""
    try:
        return tenancy.storage_place(variables)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def default_repositories(host, groups):
    """What a host backs up to when nobody said: one repository on the first storage server, its id made from
    the name."""
    servers = list(groups.get("storage_servers") or [])
    return [{"id": str(uuid.uuid5(NAMESPACE, host)), "kind": "ssh", "server": servers[0]}] if servers else []


def server_repositories(server, hostvars, groups):
    """What the agents enrolled in this run keep on a storage server: id, public key and quota of each.

    Only the key is the host's own word. Ids and quotas come from the inventory, so that no host can claim
    another's repository.
    """
    wanted = []
    for host in groups.get("agents") or []:
        variables = hostvars[host]
        identity = (_registered(variables, "__agent_enrol").get("saveos") or {}).get("identity")
        if not identity:
            continue
        entries = variables.get("agent_repositories") or default_repositories(host, groups)
        for item in agent_repositories(entries, host, hostvars, groups):
            if item["kind"] == "ssh" and item["server"] == server:
                entry = {
                    "id": item["id"],
                    "public_key": identity["public_key"],
                    "quota": item["quota"],
                    "append_only": True,
                }
                if identity.get("next_public_key"):  # while the host changes its key
                    entry["next_public_key"] = identity["next_public_key"]
                wanted.append(entry)
    return wanted


def declared_repositories(server, hostvars, groups):
    """What the inventory says that hosts keep on a storage server, whether or not they enrolled in this run.

    A host's public key is known only where the inventory names it as `agent_public_key`.
    """
    servers = list(groups.get("storage_servers") or [])
    declared = []
    for host in groups.get("agents") or []:
        variables = hostvars[host]
        for item in variables.get("agent_repositories") or default_repositories(host, groups):
            place = item.get("server") or ("" if item.get("address") else next(iter(servers), ""))
            if item.get("kind", "ssh") == "ssh" and place == server and item.get("id"):
                declared.append(
                    {
                        "id": str(item["id"]),
                        "quota": str(item.get("quota") or ""),
                        "public_key": str(variables.get("agent_public_key") or ""),
                        "append_only": True,
                    }
                )
    return declared


def agent_entries(repositories, etc):
    """The repositories as saveos-agent reads them in agent.json."""
    return [
        {
            **{key: item[key] for key in ("id", "kind", "url", "label")},
            "config": f"{etc}/borgmatic/{item['id']}.yaml",
        }
        for item in repositories
    ]


def borgmatic_configs(repositories, policy):
    """By repository id, the text of its borgmatic configuration."""
    return _told(rendering.borgmatic_configs, repositories, policy)


def borgmatic_config(policy, repository):
    """One repository's borgmatic configuration, as a mapping."""
    return _told(rendering.borgmatic_config, policy, repository)


def hook_files(policy):
    """The files that hold the commands of a policy's hooks, {path: command}."""
    return _told(rendering.hook_files, policy)


def password_files(policy):
    """The files that hold the passwords of a policy's databases, {path: password or None to keep it}."""
    return _told(rendering.password_files, policy)


def _told(function, *arguments):
    try:
        return function(*arguments)
    except rendering.PolicyError as error:
        raise AnsibleFilterError(str(error)) from error


def agent_problems(entries, policy, schedule, hostvars, groups):
    """What is wrong with a host's variables, as sentences, before anything is changed. It never quotes a
    secret."""
    try:
        check_cron(schedule)
        borgmatic_configs(agent_repositories(entries, policy["host"], hostvars, groups), policy)
    except AnsibleFilterError as error:
        return [str(error)]
    return []


class FilterModule:
    """saveos.fleet.<name>"""

    def filters(self):
        return {
            "agent_entries": agent_entries,
            "agent_problems": agent_problems,
            "agent_repositories": agent_repositories,
            "borgmatic_configs": borgmatic_configs,
            "check_cron": check_cron,
            "cron_in_any_zone": cron_in_any_zone,
            "cron_to_calendar": cron_to_calendar,
            "declared_repositories": declared_repositories,
            "default_repositories": default_repositories,
            "hook_files": hook_files,
            "password_files": password_files,
            "schedule_values": schedule_values,
            "server_repositories": server_repositories,
            "storage_place": storage_place,
        }
