#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import fcntl
import os
import pwd
import stat
import struct
import sys
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saveos.fleet.plugins.module_utils import cleanup_commands as commands
from ansible_collections.saveos.fleet.plugins.module_utils import cleanup_rules as rules
from ansible_collections.saveos.fleet.plugins.module_utils import cleanup_walk as walk
from ansible_collections.saveos.fleet.plugins.module_utils.findings import Findings

DOCUMENTATION = r"""
module: cleanup
short_description: Remove caches, old logs and temporary files of a host
version_added: 0.2.0
author: The SaveOS contributors (@saveos)
description:
  - Removes what its rules name and nothing else. A rule has a root, patterns and a minimum age; it never leaves
    its root, never follows a symbolic link, never crosses a mount, and leaves files with several names
    and files that a process has open.
  - In check mode it says what it would free, by rule, and changes nothing. A run frees what the check said.
options:
  kinds:
    description: Kinds of rules to carry out.
    type: list
    elements: str
    choices: [cache, logs, temp, containers]
    default: [cache, logs, temp, containers]
  rules:
    description: Names of the only rules to carry out; empty are all of the kinds.
    type: list
    elements: str
    default: []
  older_than_days:
    description: Minimum age instead of the rules' own, as far as each lets it be lowered; -1 is theirs.
    type: float
    default: -1
  journal_bytes:
    description: Archived journal files beyond so many bytes go, the oldest first, even when they are not old.
    type: int
    default: 536870912
  custom:
    description:
      - Rules of one's own, with C(name), C(root), C(patterns), and C(kind), C(min_age_days), C(directories).
      - One that lies outside what may be cleaned is told as a finding and does nothing.
    type: list
    elements: raw
    default: []
  allowed:
    description: Directories in which rules of one's own may lie, beside those that always may.
    type: list
    elements: str
    default: []
  protected:
    description: Paths that are never touched, nor what lies below them.
    type: list
    elements: str
    default: []
  state_dir:
    description: The agent's state directory.
    type: path
    default: /var/lib/saveos-agent
  warn_bytes:
    description: A rule that could free as much is a warning; less is only told.
    type: int
    default: 5368709120
"""

EXAMPLES = r"""
- name: See what could be freed
  saveos.fleet.cleanup:
    kinds: [cache, logs]
  check_mode: true
"""

RETURN = r"""
saveos:
  description: The record under C(cleanup), with its summary by rule and its findings.
  returned: always
  type: dict
"""

GREATEST_UID = 65_000


def size(number):
    """Bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return ""


def own_files():
    """Where this very module runs from: its files look old where the clock has jumped."""
    archives = [path for path in sys.path if path.endswith(".zip") and path.startswith("/")]
    return [os.path.dirname(path) for path in archives if os.path.dirname(path).count("/") >= 2]


def homes():
    """Home directories of people and root, that are plain directories of their owner."""
    found = []
    for each in pwd.getpwall():
        if each.pw_uid != 0 and not 1000 <= each.pw_uid <= GREATEST_UID:
            continue
        home = each.pw_dir
        if home in ("/", "") or not rules.plain(home) or home in found:
            continue
        try:
            info = os.lstat(home)
        except OSError:
            continue
        if stat.S_ISDIR(info.st_mode) and info.st_uid == each.pw_uid:
            found.append(home)
    return sorted(found)


def is_locked(path):
    """Whether a package manager is at work: another process holds a record lock on this file.

    Only asks (F_GETLK), with the file open to read: that leaves no trace on any file system.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        return struct.unpack("hhqqi", fcntl.fcntl(handle, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK
    except OSError:
        return True  # it cannot be told: leave that cache for another time
    finally:
        os.close(handle)


class Cleanup:
    """One run of the rules on this host."""

    def __init__(self, options, check_mode, now=None):
        self.options = options
        self.check_mode = check_mode
        self.now = time.time() if now is None else now
        self.findings = Findings()
        self.summary = {}
        self.planned = self.freed = self.files = 0
        self.changed = False
        self.refused = False
        self._open = None
        self._mounts = None

    def run(self):
        """Carry the rules out; returns the record."""
        self.protected = [*rules.PROTECTED, *own_files(), *self._protected()]
        self.homes = homes()
        for rule in self._rules():
            if self._is_wanted(rule.name, rule.kind):
                self._carry_out(rule)
        for name, (kind, title) in rules.COMMANDS.items():
            if self._is_wanted(name, kind):
                self._command(name, title)
        self._unknown()
        judged = None if self._is_whole else self.judged
        totals = {"planned_bytes": self.planned, "freed_bytes": self.freed, "files": self.files}
        return self.findings.result({**totals, **self.summary}, judged)

    @property
    def _is_whole(self):
        return not self.options["rules"] and set(self.options["kinds"]) == set(rules.KINDS)

    def _protected(self):
        found = []
        for each in self.options["protected"]:
            if rules.plain(each):
                found.append(each)
            else:
                self._refuse("protected-path", each, "is no plain absolute path, so it protects nothing",
                             "Write it without .. and without a slash at its end.")  # fmt: skip
        return found

    def _allowed(self):
        found = list(rules.ALLOWED)
        for each in self.options["allowed"]:
            try:
                rules.check_allowed(each)
                found.append(each)
            except rules.RuleError as error:
                self._refuse(
                    "allowed-path", each, f"may not be cleaned: {error}", "Change agent_cleanup_allowed."
                )
        return found

    def _refuse(self, kind, subject, why, fix):
        self.refused = True
        self.findings.add(kind, "warning", f"{str(subject)[:200]} {why}.", subject=str(subject)[:200], fix=fix)

    def _rules(self):
        """The rules, those of one's own last; what is wrong with one of these is a finding."""
        found = rules.builtin(self.options["state_dir"])
        self.judged = ["rule-refused", "protected-path", "allowed-path", "unknown-rule"]
        allowed = self._allowed()
        names = [rule.name for rule in found] + list(rules.COMMANDS)
        for told in self.options["custom"]:
            try:
                rule = rules.custom(told, allowed, self.protected, names)
            except rules.RuleError as error:
                name = str(told.get("name") if isinstance(told, dict) else told)[:100]
                self.findings.add(
                    "rule-refused", "warning", f"The cleanup rule {name} is not carried out: {error}.",
                    subject=name,
                    fix="Mend it where it was given: parameter custom, or agent_cleanup_rules.",
                )  # fmt: skip
                continue
            names.append(rule.name)
            found.append(rule)
        self.names = names
        return found

    def _unknown(self):
        for name in self.options["rules"]:
            if name not in self.names:
                self.findings.add(
                    "unknown-rule", "warning", f"There is no cleanup rule {name[:100]}.", subject=name[:100],
                    fix=f"Name one of {', '.join(self.names)}.",
                )  # fmt: skip

    def _is_wanted(self, name, kind):
        return name in self.options["rules"] if self.options["rules"] else kind in self.options["kinds"]

    def _age(self, rule):
        """The rule's minimum age in days; a run may change it, but not below the rule's floor."""
        asked = self.options["older_than_days"]
        return rule.min_age_days if asked < 0 else max(asked, rule.floor_days)

    def _walk_options(self, rule):
        if self._open is None:
            self._open, self._mounts = walk.open_files(), walk.mount_points()
        keep = self.options[rule.keep] if rule.keep else None
        return {
            "exclude": rule.exclude,
            "directories": rule.directories,
            "trees": rule.trees,
            "by_access": rule.by_access,
            "keep_bytes": keep,
            "protected": self.protected,
            "open": self._open,
            "mounts": self._mounts,
            "remove": not self.check_mode,
        }

    def _carry_out(self, rule):
        self.judged.append(rule.name)
        if rule.lock and is_locked(rule.lock):
            self._not_cleaned(rule.name, rule.title, [f"{rule.lock} is locked: a package manager is at work"])
            return
        total = walk.Tally()
        before = self.now - self._age(rule) * walk.DAY
        for root in rule.roots(self.homes):
            try:
                if rule.custom:
                    self._check_mounts(root)
                total.add(walk.Walk(root, rule.patterns, before, **self._walk_options(rule)).run())
            except walk.Refused as error:
                self._root_refused(rule, root, error)
            except OSError as error:
                total.errors.append(f"{root}: {error.strerror}")
        self._tell(rule.name, rule.title, total, rule)

    def _check_mounts(self, root):
        """A rule of one's own must not lead over a mount inside of what may be cleaned. Raises Refused."""
        mounts = walk.mount_points()
        base = max((each for each in self._bases() if rules.below(root, each)), key=len, default="/")
        way = root
        while way not in (base, "/"):
            if way in mounts:
                raise walk.Refused(f"{way} is a mount point")
            way = os.path.dirname(way)

    def _bases(self):
        plain = [each for each in (*rules.ALLOWED, *self.options["allowed"]) if not each.startswith("~/")]
        return plain + [
            home + each[1:] for each in rules.ALLOWED if each.startswith("~/") for home in self.homes
        ]

    def _root_refused(self, rule, root, error):
        if rule.users and not rule.custom:
            return  # people link their caches elsewhere: their choice, and nothing to mend
        self.findings.add(
            "root-refused", "info", f"{rule.name} leaves {root} alone: {error}.", subject=f"{rule.name} {root}",
            fix="Nothing, if that is meant; else name the real directory in a rule of your own.",
        )  # fmt: skip
        self.judged.append("root-refused")

    def _tell(self, name, title, total, rule=None):
        """Note what a rule came to: a finding where there was something, and its part of the summary."""
        if total.errors:
            self._not_cleaned(name, title, total.errors)
        if not (total.files or total.directories):
            return
        done = not self.check_mode
        freed = total.freed_bytes if done else 0
        self.planned += total.bytes
        self.freed += freed
        self.files += total.freed_files if done else total.files
        self.changed = self.changed or total.freed_files > 0 or total.directories > 0 or self.check_mode
        self.summary[f"{name}_bytes"] = freed if done else total.bytes
        left = total.bytes - total.freed_bytes if done else total.bytes
        verb = "were removed" if done else "can be removed"
        count = total.freed_files if done else total.files
        parts = [
            f"{count} files and {total.directories} directories" if total.directories else f"{count} files"
        ]
        if rule:
            parts.append(f"older than {self._age(rule):g} days")
        lines = [f"{' '.join(parts)}, {size(freed if done else total.bytes)} on disk."]
        if total.skipped:
            kept = ", ".join(
                f"{count} {walk.TRAPS.get(why, why)}" for why, count in sorted(total.skipped.items())
            )
            lines.append(f"Left alone: {kept}.")
        lines += total.paths[:10]
        self.findings.add(
            name,
            "warning" if left >= self.options["warn_bytes"] else "info",
            f"{title[:1].upper()}{title[1:]}: {size(freed if done else total.bytes)} {verb}.",
            evidence="\n".join(lines),
            fix=f"saveos maintenance cleanup run HOST --rule {name} --wait",
            fixable=True,
            fixed=not total.errors,
        )

    def _not_cleaned(self, name, title, errors):
        self.judged.append("not-cleaned")
        failed = "looked at" if self.check_mode else "removed"
        self.findings.add(
            "not-cleaned",
            "warning",
            f"{title[:1].upper()}{title[1:]} could not all be {failed}.",
            subject=name,
            evidence="\n".join(errors),
            fix="Mend what is said there, then run cleanup again.",
        )

    def _command(self, name, title):
        self.judged.append(name)
        plan = commands.PLANS[name](self.now)
        if plan is None:
            return
        total = walk.Tally()
        for each in plan.items:
            total.matched(each.name, each.bytes)
        total.errors += plan.errors
        if not self.check_mode and plan.items:
            freed, errors = plan.carry_out()
            for each in freed:
                total.freed(each)
            total.errors += errors
        self._tell(name, title, total)


def main():
    module = AnsibleModule(
        argument_spec={
            "kinds": {
                "type": "list",
                "elements": "str",
                "choices": list(rules.KINDS),
                "default": list(rules.KINDS),
            },
            "rules": {"type": "list", "elements": "str", "default": []},
            "older_than_days": {"type": "float", "default": -1},
            "journal_bytes": {"type": "int", "default": 512 * 1024 * 1024},
            "custom": {"type": "list", "elements": "raw", "default": []},
            "allowed": {"type": "list", "elements": "str", "default": []},
            "protected": {"type": "list", "elements": "str", "default": []},
            "state_dir": {"type": "path", "default": "/var/lib/saveos-agent"},
            "warn_bytes": {"type": "int", "default": 5 * 1024**3},
        },
        supports_check_mode=True,
    )
    cleanup = Cleanup(module.params, module.check_mode)
    result = cleanup.run()
    module.exit_json(changed=cleanup.changed, saveos={"cleanup": result})


if __name__ == "__main__":
    main()
