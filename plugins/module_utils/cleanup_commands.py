# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cleanup removes by asking its owner: old kernels, untagged container images.

Each plan is None where the host has no such thing; else it names items with the bytes that each would free, and
carries out exactly those.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import stat

from ansible_collections.saveos.fleet.plugins.module_utils.converge import run

KEPT_KERNELS = 2  # beside the running one
IMAGE_DAYS = 7
UNITS = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}


class Item:
    """One thing that can go: its name, the bytes it takes, and how to see that it is gone."""

    def __init__(self, name, size, files=()):
        self.name, self.bytes, self.files = name, size, files


class Plan:
    """Items and the command that removes them; `errors` say what cannot be removed, and why."""

    def __init__(self, items, remove, errors=()):
        self.items, self._remove, self.errors = items, remove, list(errors)

    def carry_out(self):
        """Remove the items; returns the bytes that each freed and what went wrong."""
        return self._remove(self.items)


def _installed_size(paths):
    """Bytes on disk of the plain files among paths, and those files."""
    total, files = 0, []
    for path in paths:
        try:
            info = os.lstat(path)
        except OSError:
            continue
        if stat.S_ISREG(info.st_mode) and info.st_nlink == 1:
            total += info.st_blocks * 512
            files.append(path)
    return total, files


def version_key(text):
    """A key that sorts kernel releases as people count: numbers by value."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|[a-z]+", text)]


def old_kernels(_now, release=None):
    """Kernels of dpkg beyond the running one and the newest two; None where dpkg has none."""
    if not shutil.which("dpkg-query"):
        return None
    release = release or os.uname().release
    told = run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}\n", "linux-image-[0-9]*"], timeout=60)
    releases = sorted(
        {
            words[0][len("linux-image-") :].replace("unsigned-", "")
            for words in (line.split() for line in told.stdout.splitlines())
            if len(words) == 2 and words[1].startswith("ii")
        },
        key=version_key,
    )
    kept = {release, *releases[-KEPT_KERNELS:]}
    old = [each for each in releases if each not in kept]
    if not old or release not in releases:
        return (
            None  # the running kernel comes from elsewhere (a container, a kernel of one's own): leave them all
        )
    packages = [f"linux-image-{each}" for each in old]
    quiet = ["-o", "Debug::NoLocking=1", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="]
    simulated = run(
        ["apt-get", "-s", *quiet, "remove", *packages], timeout=120
    )  # writes nothing, no cache either
    gone = {line.split()[1] for line in simulated.stdout.splitlines() if line.startswith("Remv ")}
    others = [each for each in gone if not any(each.endswith(release_) for release_ in old)]
    if simulated.returncode or others:
        why = (
            f"apt would remove {', '.join(sorted(others))}, too" if others else simulated.stderr.strip()[-300:]
        )
        return Plan([], None, [f"old kernels: {why}"])
    items = []
    for package, each in zip(packages, old):  # noqa: B905 - hosts may have Python 3.8
        listed = run(["dpkg", "-L", package], timeout=60).stdout.splitlines()
        total, files = _installed_size([*listed, f"/boot/initrd.img-{each}"])
        items.append(Item(package, total, files))
    return Plan(items, _remove_kernels)


def _remove_kernels(items):
    sizes = {
        path: os.lstat(path).st_blocks * 512 for item in items for path in item.files if os.path.lexists(path)
    }
    environment = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
    done = run(["apt-get", "-y", "remove", *(item.name for item in items)], env=environment, timeout=1800)
    errors = [f"apt-get remove: {done.stderr.strip()[-500:]}"] if done.returncode else []
    freed = []
    for item in items:
        gone = [path for path in item.files if not os.path.lexists(path)]
        if gone:
            freed.append(sum(sizes.get(path, 0) for path in gone))
    return freed, errors


def bytes_of(text):
    """Bytes of a size as docker says it (12.3MB), or of a number."""
    if isinstance(text, (int, float)):
        return int(text)
    match = re.fullmatch(r"\s*([0-9.]+)\s*([kKMGT]?i?B)\s*", str(text))
    if not match:
        return 0
    unit = match.group(2).upper().replace("IB", "B")
    return int(float(match.group(1)) * UNITS.get(unit, 1))


def moment(text):
    """Seconds since 1970 of a time as the engines say it; 0 where it cannot be read."""
    if isinstance(text, (int, float)):
        return float(text)
    match = re.match(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)", str(text))
    if not match:
        return 0.0
    return datetime.datetime.fromisoformat("T".join(match.groups()) + "+00:00").timestamp()


def _podman():
    """Untagged images of podman that no container uses: [(id, made, bytes)]. Raises ValueError."""
    if not os.path.isdir("/var/lib/containers/storage"):
        return []  # asking would make it
    told = run(["podman", "images", "--filter", "dangling=true", "--format", "json"], timeout=120)
    if told.returncode:
        raise ValueError(told.stderr.strip()[-300:])
    images = {str(each["Id"])[:12]: moment(each.get("Created", 0)) for each in json.loads(told.stdout or "[]")}
    if not images:
        return []
    table = run(
        ["podman", "system", "df", "-v"], timeout=300
    )  # the only place that tells what an image has alone
    row = re.compile(r"<none>\s+<none>\s+([0-9a-f]{12})\s.*\s(\S+B)\s+(\d+)\s*$")
    rows = [match.groups() for match in map(row.match, table.stdout.splitlines()) if match]
    return [
        (name, images[name], bytes_of(unique)) for name, unique, used in rows if name in images and used == "0"
    ]


def _docker():
    """Untagged images of docker that no container uses: [(id, made, bytes)]. Raises ValueError."""
    told = run(["docker", "system", "df", "-v", "--format", "{{json .Images}}"], timeout=300)
    if told.returncode:
        raise ValueError(told.stderr.strip()[-300:])
    found = []
    for image in json.loads(told.stdout or "[]") or []:
        if image["Tag"] == image["Repository"] == "<none>" and str(image["Containers"]) == "0":
            found.append((str(image["ID"]), moment(image["CreatedAt"]), bytes_of(image["UniqueSize"])))
    return found


ENGINES = {"podman": _podman, "docker": _docker}


def _images(engine, now):
    if not shutil.which(engine):
        return None
    try:
        found = ENGINES[engine]()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Plan([], None, [f"{engine} does not tell of its images: {error}"])
    good = [each for each in found if re.fullmatch(r"(sha256:)?[0-9a-f]{6,64}", each[0])]
    items = [Item(name, unique) for name, made, unique in good if made <= now - IMAGE_DAYS * 86_400]

    def remove(chosen):
        freed, errors = [], []
        for item in chosen:
            done = run([engine, "rmi", item.name], timeout=600)
            if done.returncode:
                errors.append(f"{engine} rmi {item.name}: {done.stderr.strip()[-200:]}")
            else:
                freed.append(item.bytes)
        return freed, errors

    return Plan(items, remove)


PLANS = {
    "old-kernels": old_kernels,
    "podman-images": lambda now: _images("podman", now),
    "docker-images": lambda now: _images("docker", now),
}
