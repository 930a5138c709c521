# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Is a host well after an update, and what of it still runs the old code."""

from __future__ import annotations

import os
import re
import stat
import urllib.error
import urllib.request

from ansible_collections.saveos.fleet.plugins.module_utils.converge import init_system, read, run

CHECKS = "/etc/saveos/health.d"
CHECK_SECONDS = 60
REBOOT = ("/run/reboot-required", "/var/run/reboot-required")
LIBRARIES = ("/usr/", "/lib", "/bin/", "/sbin/", "/opt/")
MAPPED = re.compile(r"^[0-9a-f]+-[0-9a-f]+ ..x. \S+ \S+ [1-9]\d*\s+(/.*) \(deleted\)$")
AGENTS = ("/usr/local/bin/saveos-agent", "/opt/saveos/bin/saveos-agent")


def deleted_libraries(maps):
    """Programs and libraries that a process (/proc/PID/maps) runs though their files were replaced."""
    paths = {match.group(1) for line in maps.splitlines() if (match := MAPPED.match(line))}
    return sorted(path for path in paths if path.startswith(LIBRARIES))


def unit_of(cgroup):
    """The systemd service of a process (/proc/PID/cgroup), or an empty string."""
    for line in cgroup.splitlines():
        for part in reversed(line.rpartition(":")[2].split("/")):
            if part.endswith(".service") and not part.startswith("user@"):
                return part
    return ""


def outdated_processes(proc="/proc"):
    """What runs replaced code: {unit or program: [libraries]}."""
    found = {}
    for pid in os.listdir(proc):
        if not pid.isdigit():
            continue
        try:
            paths = deleted_libraries(read(f"{proc}/{pid}/maps") or "")
            if not paths:
                continue
            name = "init" if pid == "1" else unit_of(read(f"{proc}/{pid}/cgroup") or "")
            name = name or (read(f"{proc}/{pid}/comm") or pid).strip()
        except OSError:
            continue  # it ended meanwhile
        found[name] = sorted({*found.get(name, []), *paths})
    return found


def reboot_reason(kernel):
    """Why the host should be started anew, or an empty string; `kernel` is the newest installed release."""
    for path in REBOOT:
        if os.path.exists(path):
            names = (read(path + ".pkgs") or "").split()
            return "the system asks for it" + (
                f" because of {', '.join(sorted(set(names))[:20])}" if names else ""
            )
    running = os.uname().release
    if kernel and kernel != running and os.path.isdir(f"/lib/modules/{kernel}"):
        return f"the kernel {running} runs and {kernel} is installed"
    return ""


def failed_units():
    """Units of systemd that are failed; an empty set where there is no systemd."""
    if init_system() != "systemd":
        return set()
    told = run(["systemctl", "list-units", "--failed", "--plain", "--no-legend", "--full"], timeout=30).stdout
    return {line.split()[0] for line in told.splitlines() if line.split()}


def own_checks(directory=CHECKS):
    """The host's own checks: ([program], [why one is not run])."""
    good, refused = [], []
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return [], []
    for name in names:
        path = os.path.join(directory, name)
        told = os.lstat(path)
        if name.startswith(".") or not stat.S_ISREG(told.st_mode) or not told.st_mode & 0o100:
            continue
        if told.st_uid != 0 or told.st_mode & 0o022:
            refused.append(f"{path} is not run: it must belong to root, and nobody else may write to it")
        else:
            good.append(path)
    return good, refused


def examine(units, url, failed_before, directory=CHECKS):
    """Examine the host; returns [(subject, sentence, evidence)] of what is not well.

    `units` must be active, `url` must answer below 400, no unit may be failed that was not in
    `failed_before`, every program of the directory must end with 0, and the agent must answer.
    """
    found = []
    for unit in sorted(failed_units() - failed_before):
        found.append((unit, f"The unit {unit} failed.", _result(unit)))
    for unit in units:
        told = run(["systemctl", "is-active", "--", unit], timeout=30)
        if told.returncode:
            found.append((unit, f"The unit {unit} is not active.", told.stdout.strip() or told.stderr.strip()))
    if url and (why := _unanswered(url)):
        found.append((url, f"{url} does not answer well.", why))
    programs, refused = own_checks(directory)
    found += [(why.split()[0], "A health check cannot be trusted.", why) for why in refused]
    for program in programs:
        told = run([program], timeout=CHECK_SECONDS)
        if told.returncode:
            words = (told.stdout + told.stderr).strip()[-1000:]
            found.append((program, f"The health check {program} ended with {told.returncode}.", words))
    for agent in AGENTS:
        if os.path.exists(agent):
            told = run([agent, "--version"], timeout=30)
            if told.returncode:
                found.append((agent, "The agent does not start any more.", (told.stdout + told.stderr)[-1000:]))
            break
    return found


def _result(unit):
    told = run(["systemctl", "show", "-p", "Result,ExecMainStatus", "--", unit], timeout=30).stdout.split()
    return f"{' '.join(told)}; see: journalctl -u {unit}"  # the journal itself may hold secrets


def _unanswered(url):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"User-Agent": "saveos"}), timeout=20):
            return ""
    except (OSError, ValueError, urllib.error.URLError) as error:
        return str(error)
