# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cleanup may remove: rules as data, where a rule may lie, and what is never touched. No I/O."""

from __future__ import annotations

import os
import re

KINDS = ("cache", "logs", "temp", "containers")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
FIELDS = {"name", "kind", "root", "patterns", "min_age_days", "directories"}
FLOOR_DAYS = 1  # of a rule of one's own

# Where a rule of one's own may lie; `~` is every home. The inventory may add to it (agent_cleanup_allowed).
ALLOWED = ("/tmp", "/var/tmp", "/var/cache", "/var/log", "/var/crash", "~/.cache")
# Never touched, whatever a rule says, nor what lies below.
PROTECTED = (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin",
    "/sys", "/usr", "/var/lib/dpkg", "/var/lib/rpm", "/var/lib/apt", "/var/log/wtmp", "/var/log/btmp",
    "/var/log/lastlog", "/var/cache/debconf", "/var/cache/apt/archives/lock", "/var/cache/private",
)  # fmt: skip


WHOLE = ("/home", "/root", "/var", "/opt", "/srv", "/mnt", "/media")  # too much at once


class RuleError(ValueError):
    """A rule that is not carried out; the sentence says why and how to mend it."""


class Rule:
    """Files below `root` that match `patterns` and are older than `min_age_days`.

    `floor_days` is how far a run may lower that age. `users`: the root is below every home. `trees`,
    `directories` and `by_access` are as cleanup_walk.Walk has them; `keep` names the option that says how many
    bytes may stay. `lock` is a file whose lock shows that somebody is at work there.
    """

    def __init__(self, name, kind, title, root, patterns, **more):
        self.name, self.kind, self.title, self.root, self.patterns = name, kind, title, root, patterns
        self.min_age_days = more.pop("min_age_days", 7)
        self.floor_days = more.pop("floor_days", 0)
        self.exclude = more.pop("exclude", ())
        self.directories = more.pop("directories", False)
        self.trees = more.pop("trees", False)
        self.by_access = more.pop("by_access", False)
        self.keep = more.pop("keep", "")
        self.users = root.startswith("~/")
        self.lock = more.pop("lock", "")
        self.custom = more.pop("custom", False)
        if more:
            raise TypeError(f"a rule has no {sorted(more)}")

    def roots(self, homes):
        """The directories it is about."""
        return [home + self.root[1:] for home in homes] if self.users else [self.root]


def _user(name, title, below, **more):
    return Rule(name, "cache", title, f"~/{below}", ["*"], **{"min_age_days": 30, "directories": True, **more})


def builtin(state):
    """The rules that every host has; `state` is the agent's state directory."""
    private = (
        "systemd-private-*",
        ".X11-unix",
        ".ICE-unix",
        ".font-unix",
        ".XIM-unix",
        ".Test-unix",
        "snap-private-tmp",
    )
    compressed = ["*.gz", "*.xz", "*.bz2", "*.zst", "*.old", "*.[0-9]", "*.[0-9][0-9]",
                  "*-[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]"]  # fmt: skip
    return [
        Rule("apt-archives", "cache", "package files of apt", "/var/cache/apt/archives", ["*.deb", "partial/*"],
             min_age_days=1, lock="/var/cache/apt/archives/lock"),
        Rule("dnf-cache", "cache", "caches of dnf", "/var/cache/dnf", ["*"], directories=True),
        Rule("dnf5-cache", "cache", "caches of dnf 5", "/var/cache/libdnf5", ["*"], directories=True),
        Rule("yum-cache", "cache", "caches of yum", "/var/cache/yum", ["*"], directories=True),
        Rule("man-cache", "cache", "formatted manual pages", "/var/cache/man", ["cat*/*"], min_age_days=30),
        _user("pip-cache", "caches of pip", ".cache/pip"),
        _user("uv-cache", "caches of uv", ".cache/uv"),
        _user("pipx-cache", "caches of pipx", ".cache/pipx"),
        _user("npm-cache", "caches of npm", ".npm/_cacache"),
        _user("npm-logs", "logs of npm", ".npm/_logs", min_age_days=7),
        _user("yarn-cache", "caches of yarn", ".cache/yarn"),
        _user("pnpm-cache", "caches of pnpm", ".cache/pnpm"),
        _user("go-build-cache", "compiler caches of Go", ".cache/go-build"),
        _user("go-download-cache", "downloads of Go", "go/pkg/mod/cache/download"),
        _user("cargo-cache", "downloads of cargo", ".cargo/registry/cache"),
        _user("composer-cache", "caches of composer", ".cache/composer"),
        _user("gradle-cache", "caches of gradle", ".gradle/caches"),
        _user("thumbnails", "preview pictures", ".cache/thumbnails"),
        Rule("borg-cache", "cache", "Borg caches of repositories that are not used any more",
             f"{state}/borg/.cache/borg", ["*"], trees=True, min_age_days=60, floor_days=14),
        Rule("borg-cache-users", "cache", "people's Borg caches that are not used any more", "~/.cache/borg",
             ["*"], trees=True, min_age_days=90, floor_days=14),
        Rule("saveos-leftovers", "cache", "leftovers of interrupted writes of the agent", state,
             [".*.tmp", ".hashes.*", "*/.*.tmp"], exclude=("restores", "borg"), min_age_days=7, floor_days=1),
        Rule("journal", "logs", "archived journal files", "/var/log/journal", ["*@*.journal", "*@*.journal~"],
             min_age_days=30, floor_days=1, keep="journal_bytes"),
        Rule("rotated-logs", "logs", "rotated logs", "/var/log", compressed,
             exclude=("journal", "wtmp*", "btmp*"), min_age_days=30, floor_days=1),
        Rule("core-dumps", "temp", "core dumps", "/var/lib/systemd/coredump", ["*"], min_age_days=14,
             floor_days=1),
        Rule("crash-reports", "temp", "crash reports", "/var/crash", ["*"], min_age_days=14, floor_days=1,
             directories=True),
        Rule("tmp", "temp", "temporary files", "/tmp", ["*"], exclude=private, min_age_days=10,
             floor_days=1, directories=True, by_access=True),
        Rule("var-tmp", "temp", "lasting temporary files", "/var/tmp", ["*"], exclude=private,
             min_age_days=30, floor_days=1, directories=True, by_access=True),
    ]  # fmt: skip


# Rules that are no files; the module knows how each is carried out.
COMMANDS = {
    "old-kernels": ("cache", "kernels that are older than the running and the two newest"),
    "podman-images": ("containers", "untagged images of podman"),
    "docker-images": ("containers", "untagged images of docker"),
}


def plain(path):
    """Whether a path is absolute (or below `~`), normal, and on one line."""
    whole = "/home" + path[1:] if path.startswith("~/") else path
    return (
        whole.startswith("/")
        and os.path.normpath(whole) == whole
        and not whole.startswith("//")
        and not re.search(r"[\x00-\x1f]", whole)
    )


def below(path, parent):
    """Whether a path is `parent` or lies below it."""
    return path == parent or path.startswith(parent.rstrip("/") + "/")


def custom(told, allowed=(), protected=(), taken=()):
    """A rule of one's own, checked. Raises RuleError."""
    if not isinstance(told, dict):
        raise RuleError("a rule is a mapping with name, root and patterns")
    unknown = sorted(set(told) - FIELDS)
    if unknown:
        raise RuleError(
            f"it has {', '.join(map(str, unknown))[:100]}, which no rule has: use {', '.join(sorted(FIELDS))}"
        )
    name = told.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise RuleError("its name must be lower-case letters, digits and dashes, 40 at most")
    if name in taken:
        raise RuleError("a rule of that name is there already: give it another name")
    kind = told.get("kind", "cache")
    if kind not in ("cache", "logs", "temp"):
        raise RuleError("its kind must be cache, logs or temp")
    root = told.get("root")
    _check_root(root, allowed, protected)
    return Rule(name, kind, f"what {name} is about", root, _patterns(told), min_age_days=_age(told),
                floor_days=FLOOR_DAYS, directories=bool(told.get("directories")), custom=True)  # fmt: skip


def _check_root(root, allowed, protected):
    if not isinstance(root, str) or not plain(root):
        raise RuleError(
            "its root must be a plain absolute path, such as /var/cache/app (or ~/.cache/app), without .."
        )
    if root in ("/", "~"):
        raise RuleError("its root is /, which would match everything: name the directory that you mean")
    for each in protected:
        if below(root, each) or (each in PROTECTED and below(each, root)):
            raise RuleError(
                f"its root {root[:200]} is, lies in or holds {each}, which is protected: name another one"
            )
    if not any(below(root, each) for each in allowed):
        places = ", ".join(allowed)
        raise RuleError(
            f"its root {root[:200]} lies outside what may be cleaned ({places}): name one inside, or add it to "
            "agent_cleanup_allowed in the inventory"
        )


def _patterns(told):
    patterns = told.get("patterns")
    if not isinstance(patterns, list) or not patterns or len(patterns) > 100:
        raise RuleError("it needs patterns, 100 at most, such as ['*.tmp']")
    for each in patterns:
        if not isinstance(each, str) or not each or len(each) > 500 or each.startswith("/") or "\0" in each:
            raise RuleError(
                f"the pattern {str(each)[:100]!r} cannot be used: it is matched below the root, such as *.tmp"
            )
        if ".." in each.split("/"):
            raise RuleError(f"the pattern {each[:100]!r} leads out of the root: leave out ..")
    return patterns


def _age(told):
    age = told.get("min_age_days", 30)
    if isinstance(age, bool) or not isinstance(age, (int, float)) or not FLOOR_DAYS <= age <= 36_500:
        raise RuleError(f"its min_age_days must be a number from {FLOOR_DAYS} to 36500")
    return age


def check_allowed(path):
    """Raise RuleError where a path may not be added to what may be cleaned."""
    if not isinstance(path, str) or not plain(path) or path in ("/", "~"):
        raise RuleError("it is no plain absolute path below /")
    for each in PROTECTED:
        if below(path, each) or below(each, path):
            raise RuleError(f"it is, lies in or holds {each}, which is protected")
    if path in WHOLE:
        raise RuleError("it holds more than what may be cleaned: name a directory below it")
