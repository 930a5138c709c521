# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checks of docker-compose and environment files below given directories; kind `compose`.

The files are read on the host and stay there: a finding names variables and lines, never a value. Links are not
followed, other file systems are not entered. Where Python has no YAML library, our own reader of plain YAML
does; of a file that it cannot read (anchors) only what lines tell is judged.
"""

from __future__ import annotations

import os
import re
import stat

from ansible_collections.saveos.fleet.plugins.module_utils import plain_yaml
from ansible_collections.saveos.fleet.plugins.module_utils.validation_core import Check, Finding

try:
    import yaml
except ImportError:
    yaml = None

FILES, DEPTH, LARGEST = 500, 8, 1024 * 1024
USUAL = ("/srv", "/var/www", "/opt")  # the default; a host need not have them all
PASSED_OVER = {".git", "node_modules", "__pycache__", ".venv", "vendor"}
COMPOSE = re.compile(r"(?:docker-)?compose(?:[.-][\w.-]+)?\.ya?ml", re.IGNORECASE)
BASE = re.compile(r"(?:docker-)?compose\.ya?ml", re.IGNORECASE)
ENVIRONMENT = re.compile(r"(?:\.env(?:\.[\w-]+)?|[\w.-]+\.env)")
EXAMPLE = re.compile(r"(example|sample|template|dist|tmpl)$", re.IGNORECASE)
SECRET = re.compile(
    r"(PASS(WORD|WD|PHRASE)?|SECRET|TOKEN|API_?KEY|PRIVATE_?KEY|CREDENTIALS?)(?:$|_(?!FILE))", re.IGNORECASE
)
VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_]\w*)(?:(:?[-?+])((?:[^{}]|\{[^{}]*\})*))?\}|([A-Za-z_]\w*))")
ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][\w.-]*)\s*=(.*)")
_DEFAULTS = """
    changeme change_me change-me changeit password passwd passw0rd pass p@ssw0rd admin administrator
    root toor secret supersecret mysecret mysecretpassword postgres mysql mariadb mongo redis rabbitmq
    guest user test example demo default qwerty letmein welcome 1234 12345 123456 12345678 123456789
    minio minioadmin grafana nextcloud wordpress your_password yourpassword your-password todo xxx
"""
DEFAULTS = frozenset(_DEFAULTS.split())
TOP = {"version", "name", "services", "networks", "volumes", "configs", "secrets", "include", "models"}
_SERVICE = """
    annotations attach build blkio_config cap_add cap_drop cgroup cgroup_parent command configs
    container_name cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares
    cpus cpuset credential_spec depends_on deploy develop device_cgroup_rules devices dns dns_opt
    dns_search domainname entrypoint env_file environment expose extends external_links extra_hosts gpus
    group_add healthcheck hostname image init ipc isolation label_file labels links logging mac_address
    mem_limit mem_reservation mem_swappiness memswap_limit models network_mode networks oom_kill_disable
    oom_score_adj pid pids_limit platform ports post_start pre_stop privileged profiles provider
    pull_policy read_only restart runtime scale secrets security_opt shm_size stdin_open
    stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits use_api_socket user userns_mode
    uts volumes volumes_from working_dir
"""
SERVICE = frozenset(_SERVICE.split())


def checks(roots):
    """One check of everything below the directories; none where none is given."""
    return [Check("compose and environment files", lambda: below(roots), 120)] if roots else []


def reader():
    """What reads YAML on this host."""
    return "yaml" if yaml else "plain"


def below(roots):
    """All findings of the files below some directories."""
    seen = 0
    for root in roots:
        if root in USUAL and not os.path.lexists(root):
            continue
        if os.path.realpath(root) in ("/", "/proc", "/sys", "/dev") or not os.path.isdir(root):
            yield Finding(
                "compose-root",
                "warning",
                f"{root} is no directory to look for compose files in.",
                "Name the directory of your services, such as /srv/stacks.",
                root,
            )
            continue
        for path in files(root):
            seen += 1
            if seen > FILES:
                yield Finding(
                    "compose-too-many", "info", f"There are more than {FILES} compose and environment files.",
                    "Name directories that are further down.", root,
                )  # fmt: skip
                return
            name = os.path.basename(path)
            yield from compose(path) if COMPOSE.fullmatch(name) else environment(path)


def files(root):
    """Paths of compose and environment files, sorted; no link, no other file system."""
    device = os.stat(root).st_dev
    for directory, folders, names in os.walk(root):
        depth = directory[len(root) :].count("/")
        folders[:] = sorted(
            name
            for name in folders
            if name not in PASSED_OVER and depth < DEPTH and same_device(f"{directory}/{name}", device)
        )
        for name in sorted(names):
            path = f"{directory}/{name}"
            wanted = COMPOSE.fullmatch(name) or (ENVIRONMENT.fullmatch(name) and not EXAMPLE.search(name))
            if wanted and stat.S_ISREG(os.lstat(path).st_mode) and os.lstat(path).st_size <= LARGEST:
                yield path


def same_device(path, device):
    """A directory of this file system."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_dev == device


def text_of(path):
    """A file's text; a link in its place is not followed."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, encoding="utf-8", errors="surrogateescape") as file:
        return file.read(LARGEST)


# ---- environment files --------------------------------------------------------------------------------------


def assignments(text):
    """(number, name or None, value) of each line that says something."""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = ASSIGNMENT.fullmatch(line)
        if match:
            value = match[2].strip()
            closed = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            yield number, match[1], value[1:-1] if closed else re.sub(r"\s+#.*", "", value)
        else:
            yield number, (line if re.fullmatch(r"[A-Za-z_]\w*", line) else None), ""


def environment(path):
    """An environment file: every line an assignment, no name twice, no default password, not open to all."""
    broken, names, twice, secret = [], set(), [], False
    for number, name, value in assignments(text_of(path)):
        if name is None:
            broken.append(str(number))
            continue
        if name in names:
            twice.append(name)
        names.add(name)
        secret = secret or bool(SECRET.search(name) and value)
        if is_default(name, value):
            yield default_password(path, name, f"line {number}")
    if broken:
        yield Finding(
            "env-invalid", "warning", f"{path} has lines that are no assignment.",
            "Write NAME=value, or # before a note.", path, f"lines {', '.join(broken[:20])}",
        )  # fmt: skip
    if twice:
        yield Finding(
            "env-duplicate", "warning", f"{path} sets a variable twice; only the last counts.",
            "Remove one of the two.", path, ", ".join(dict.fromkeys(twice))[:500],
        )  # fmt: skip
    if secret:
        yield from readable(path)


def readable(path):
    """A file with a secret that everybody on the host can read."""
    found = os.lstat(path)
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o007:
        yield Finding(
            "env-permissions",
            "warning",
            f"{path} holds a secret and everybody on this host can read it.",
            f"chmod o= {path}, or let this operation fix it.",
            path,
            f"mode {mode:04o}",
            mend=lambda mender: mender.attributes(path, mode & ~0o007, found.st_uid, found.st_gid),
        )


def is_default(name, value):
    """Is it a secret whose value everybody knows?"""
    if name.upper() in (
        "MYSQL_ALLOW_EMPTY_PASSWORD",
        "MARIADB_ALLOW_EMPTY_ROOT_PASSWORD",
        "ALLOW_EMPTY_PASSWORD",
    ):
        return value.lower() in ("yes", "true", "1")
    if name.upper() == "POSTGRES_HOST_AUTH_METHOD":
        return value.lower() == "trust"
    return bool(SECRET.search(name)) and value.strip().lower() in DEFAULTS


def default_password(path, name, where):
    """The value itself is not told, although everybody knows it."""
    return Finding(
        "compose-password-default",
        "critical",
        f"{name} in {path} has a value that everybody tries first, or lets everybody in.",
        "Choose a long random one: openssl rand -base64 24",
        f"{path}: {name}",
        where,
    )


# ---- compose files ------------------------------------------------------------------------------------------


def compose(path):
    """A compose file: YAML, services as compose knows them, variables and files that are there."""
    text = text_of(path)
    yield from variables(path, text)
    try:
        data = yaml.safe_load(text) if yaml else plain_yaml.load(text)
    except plain_yaml.Unsupported:
        yield from by_line(path, text)
        return
    except plain_yaml.YamlError as error:
        yield invalid(path, str(error))
        return
    except Exception as error:  # PyYAML's own; its words may quote the text, so only the place is told
        if not yaml or not isinstance(error, yaml.YAMLError):
            raise
        mark = getattr(error, "problem_mark", None)
        yield invalid(path, f"line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else "no YAML")
        return
    faults = list(structure(data, BASE.fullmatch(os.path.basename(path)) is not None))
    if faults:
        yield invalid(path, "; ".join(faults))
    services = data.get("services") if isinstance(data, dict) else None
    if isinstance(services, dict):
        yield from missing_files(path, data, services)
        yield from ports(path, services)
        for service in services.values():
            yield from passwords(path, service)


def invalid(path, said):
    """One finding for all that is wrong with a file's form."""
    return Finding(
        "compose-invalid", "critical", f"{path} is broken: its services cannot be started again.",
        f"Correct it: docker compose -f {path} config says more.", path, said,
    )  # fmt: skip


def structure(data, whole):
    """What compose would refuse; `whole` where the file must stand for itself (no override)."""
    if not isinstance(data, dict):
        yield "it is no mapping"
        return
    unknown = [str(key) for key in data if str(key) not in TOP and not str(key).startswith("x-")]
    if unknown:
        yield f"unknown at the top: {', '.join(unknown[:5])}"
    services = data.get("services")
    if not isinstance(services, dict) or not services:
        if "include" not in data:
            yield "it has no services"
        return
    for name, service in services.items():
        if not isinstance(service, dict):
            yield f"service {name} is no mapping"
            continue
        odd = [str(key) for key in service if str(key) not in SERVICE and not str(key).startswith("x-")]
        if odd:
            yield f"service {name} has unknown {', '.join(odd[:5])}"
        if whole and not service.keys() & {"image", "build", "extends", "provider"}:
            yield f"service {name} has neither image nor build"
        for key in ("ports", "volumes", "secrets", "configs", "devices", "cap_add"):
            if service.get(key) is not None and not isinstance(service[key], list):
                yield f"{key} of service {name} is no list"
        if whole and "include" not in data:
            yield from references(data, services, name, service)


def references(data, services, name, service):
    """Services, volumes and networks that a service names and the file does not."""
    for other in named(service.get("depends_on")):
        if other not in services:
            yield f"service {name} depends on {other}, which is not there"
    networks = data.get("networks") if isinstance(data.get("networks"), dict) else {}
    for network in named(service.get("networks")):
        if network != "default" and network not in networks:
            yield f"service {name} is in the network {network}, which is not declared"
    volumes = data.get("volumes") if isinstance(data.get("volumes"), dict) else {}
    for source in sources(service):
        if source and source[0] not in "/.~$" and source not in volumes:
            yield f"service {name} mounts the volume {source}, which is not declared"


def named(value):
    """Names of a list or a mapping."""
    return [str(each) for each in value] if isinstance(value, (list, dict)) else []


def sources(service):
    """What a service mounts: names of volumes, and paths."""
    for each in service.get("volumes") or () if isinstance(service.get("volumes"), list) else ():
        if isinstance(each, str) and ":" in each:
            yield re.split(r":(?![^${]*\})", each)[0]
        elif isinstance(each, dict) and each.get("type") != "tmpfs":
            yield str(each.get("source") or "")


def missing_files(path, data, services):
    """Files and directories beside the compose file that it names and that are not there."""
    folder = os.path.dirname(path)
    wanted = []
    for name, service in services.items():
        if not isinstance(service, dict):
            continue
        for each in listed(service.get("env_file")):
            if not (isinstance(each, dict) and str(each.get("required")).lower() == "false"):
                wanted.append((name, str(each.get("path") if isinstance(each, dict) else each), "critical"))
        build = service.get("build")
        context = build.get("context") if isinstance(build, dict) else build
        wanted += [(name, context, "warning")] if isinstance(context, str) and "://" not in context else []
        wanted += [(name, each, "warning") for each in sources(service) if each.startswith(("./", "../", "/"))]
    for kind in ("secrets", "configs"):
        for name, each in (data.get(kind) or {}).items() if isinstance(data.get(kind), dict) else ():
            wanted += (
                [(name, str(each["file"]), "critical")] if isinstance(each, dict) and each.get("file") else []
            )
    for name, each, severity in dict.fromkeys(wanted):
        if each and "$" not in each and not os.path.lexists(os.path.join(folder, each)):
            yield Finding(
                "compose-file-missing", severity, f"{name} in {path} needs {each}, which is not there.",
                "Put it there, or correct the path.", f"{path}: {each}",
            )  # fmt: skip


def listed(value):
    """A list, whether one was given or one thing."""
    return value if isinstance(value, list) else [value] if value else []


def ports(path, services):
    """Two services that want one port of the host."""
    taken = {}
    for name, service in services.items():
        for each in (
            service.get("ports") or ()
            if isinstance(service, dict) and isinstance(service.get("ports"), list)
            else ()
        ):
            host = published(each)
            if host and taken.setdefault(host, name) != name:
                yield Finding(
                    "compose-port-conflict", "warning",
                    f"{taken[host]} and {name} in {path} want the same port.",
                    "Give one of them another port of the host.", f"{path}: {host}",
                )  # fmt: skip


def published(port):
    """The host's side of a published port, as text; "" where it is chosen by docker or cannot be told."""
    if isinstance(port, dict):
        return f"{port['published']}/{port.get('protocol', 'tcp')}" if port.get("published") else ""
    text, _, protocol = str(port).partition("/")
    parts = text.rsplit(":", 2)
    return f"{':'.join(parts[:-1])}/{protocol or 'tcp'}" if len(parts) > 1 and "$" not in text else ""


def passwords(path, service):
    """Default passwords in a service's environment."""
    given = service.get("environment") if isinstance(service, dict) else None
    if isinstance(given, dict):
        pairs = [(str(name), "" if value is None else str(value)) for name, value in given.items()]
    else:
        pairs = [str(each).partition("=")[::2] for each in given or () if isinstance(given, list)]
    for name, given_value in pairs:
        fallback = VARIABLE.fullmatch(given_value)
        value = fallback[4] if fallback and (fallback[3] or "").endswith("-") else given_value
        if is_default(name, value):
            yield default_password(path, name, "environment of a service")


def by_line(path, text):
    """What can be told of a file that the reader does not know: default passwords."""
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r"\s*-?\s*['\"]?([A-Za-z_]\w*)['\"]?\s*[:=]\s*['\"]?([^'\"\s#]*)", line)
        if match and is_default(match[1], match[2]):
            yield default_password(path, match[1], f"line {number}")


def variables(path, text):
    """Variables without a default that neither .env nor an assignment gives."""
    folder = os.path.dirname(path)
    known = {}
    if os.path.isfile(f"{folder}/.env"):
        known = {name: value for _, name, value in assignments(text_of(f"{folder}/.env")) if name}
    used = {}
    for line in text.splitlines():
        for match in VARIABLE.finditer(plain_yaml.without_comment(line)):
            name, rule = match[2] or match[5], match[3] or ""
            if match[1] or not name or name in known or rule.endswith(("-", "+")):
                continue
            used[name] = used.get(name, False) or rule.endswith("?")
    for name, required in sorted(used.items()):
        yield Finding(
            "compose-variable-missing",
            "critical" if required else "warning",
            f"{path} uses the variable {name}, which no .env beside it sets.",
            f"Set it in {folder}/.env, or give it a default: ${{{name}:-…}}",
            f"{path}: {name}",
        )
