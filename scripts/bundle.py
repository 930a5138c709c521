#!/usr/bin/python3
"""Build the agent bundle: borg, borgmatic and saveos-seal for hosts that have nothing but /usr/bin/python3.

    scripts/bundle.py [--output DIR] [--check]

Prints the path of saveos-bundle-<arch>.tar.gz; its label (version, glibc it needs, arch, sha256, hash of the
inputs) lies
beside it as .json. Unchanged inputs build nothing. Standard library only: the tools come by hash from
requirements/bundle.txt into a private virtual environment. Build it on the oldest distribution of the fleet.

Exit codes: 0 ok, 1 the build failed or something is missing on this machine (said in one sentence), 2 usage,
3 with --check: there is no bundle, or it is out of date.
"""

from __future__ import annotations

import argparse
import fcntl
import gzip
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements" / "bundle.txt"
SEAL = ROOT / "roles" / "agent" / "files" / "saveos_seal.py"
PYTHON = Path("/usr/bin/python3")
SDIST = "borgbackup"  # the one package of the lock that is compiled here

HEADERS = {
    "Python.h": ("python3-dev", sysconfig.get_path("include")),
    "sys/acl.h": ("libacl1-dev", ""),
    "openssl/evp.h": ("libssl-dev", ""),
    "lz4.h": ("liblz4-dev", ""),
    "zstd.h": ("libzstd-dev", ""),
    "xxhash.h": ("libxxhash-dev", ""),
}
PROGRAMS = {"gcc": "gcc libc6-dev", "pkg-config": "pkg-config", "objdump": "binutils"}

SPEC = """
from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata
programs = {programs!r}
analyses = [
    (name, Analysis(
        [script],
        hiddenimports=[module for package in packages for module in collect_submodules(package)],
        datas=[entry for package in packages for entry in collect_data_files(package)]
        + [entry for package in metadata for entry in copy_metadata(package)],
        excludes=["tkinter", "pip", "setuptools", "Cython", "PyInstaller", "pytest", "curses", "lib2to3",
        "pydoc_data"],
    ))
    for name, (script, packages, metadata) in programs.items()
]
parts = []
for name, found in analyses:
    parts += [EXE(PYZ(found.pure), found.scripts, [], exclude_binaries=True, name=name, strip=True, upx=False),
              found.binaries, found.datas]
COLLECT(*parts, strip=True, upx=False, name="bundle")
"""

SCRIPTS = {
    "borg": "from borg.archiver import main\nmain()\n",
    "borgmatic": "from borgmatic.commands.borgmatic import main\nmain()\n",
}


class BundleError(Exception):
    """A sentence for the operator."""


def inputs_hash() -> str:
    """Hash of everything the bundle is made of, the builder's distribution included."""
    digest = hashlib.sha256()
    for file in (Path(__file__), LOCK, SEAL):
        digest.update(file.read_bytes())
    digest.update(repr((platform.machine(), platform.libc_ver(), platform.python_version())).encode())
    return digest.hexdigest()


def missing_packages() -> list[str]:
    """Debian packages this machine lacks to build the bundle."""
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    for header, (package, directory) in HEADERS.items():
        places = [directory] if directory else ["/usr/include", f"/usr/include/{multiarch}"]
        if not any((Path(place) / header).exists() for place in places):
            missing.append(package)
    try:
        import ensurepip  # noqa: F401  (Debian splits it off into python3-venv)
    except ImportError:
        missing.append("python3-venv")
    return missing


def run(command: list[str], log: Path, cwd: Path) -> None:
    """Run a build step; its output goes to the log, whose end is shown when it fails."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    with log.open("ab") as sink:
        result = subprocess.run(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, check=False
        )
    if result.returncode:
        tail = log.read_text(errors="replace").splitlines()[-15:]
        raise BundleError(
            f"building the agent bundle failed at `{' '.join(command[:5])}`; see {log}:\n" + "\n".join(tail)
        )


def locked_without(name: str) -> str:
    """The lock less one package, so that what builds it can be installed first."""
    blocks = re.split(r"^(?=\S)", LOCK.read_text(), flags=re.MULTILINE)
    return "".join(block for block in blocks if not block.startswith(f"{name}=="))


def make_venv(work: Path, log: Path) -> Path:
    """A private environment with exactly what the lock names; the sdist is built without fetching anything
    unlocked."""
    venv = work / "venv"
    run([str(PYTHON), "-m", "venv", str(venv)], log, work)
    pip = [
        str(venv / "bin" / "python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--no-deps",
        "--require-hashes",
    ]
    tools = work / "tools.txt"
    tools.write_text(locked_without(SDIST))
    run([*pip, "--only-binary", ":all:", "-r", str(tools)], log, work)
    run([*pip, "--no-build-isolation", "-r", str(LOCK)], log, work)
    return venv


def pack(work: Path, venv: Path, log: Path) -> Path:
    """Freeze the three programs into one directory that they share."""
    for name, text in SCRIPTS.items():
        (work / f"{name}_main.py").write_text(text)
    programs = {
        "borg": (str(work / "borg_main.py"), ["borg"], ["borgbackup"]),
        "borgmatic": (str(work / "borgmatic_main.py"), ["borgmatic"], ["borgmatic"]),
        "saveos-seal": (str(SEAL), [], []),
    }
    spec = work / "bundle.spec"
    spec.write_text(SPEC.format(programs=programs))
    command = [str(venv / "bin" / "python"), "-m", "PyInstaller", "--log-level", "WARN", "--noconfirm"]
    run([*command, "--distpath", str(work / "dist"), "--workpath", str(work / "build"), str(spec)], log, work)
    return work / "dist" / "bundle"


def glibc_needed(tree: Path) -> str:
    """The newest glibc symbol version that a file of the bundle refers to, such as 2.36."""
    newest = (2, 17)
    for file in tree.rglob("*"):
        if file.is_file() and not file.is_symlink() and file.open("rb").read(4) == b"\x7fELF":
            for major, minor in re.findall(rb"GLIBC_(\d+)\.(\d+)", file.read_bytes()):
                newest = max(newest, (int(major), int(minor)))
    return "{}.{}".format(*newest)


def label_of(tree: Path) -> dict[str, str]:
    """What the bundle says about itself; the programs are started once, so a broken build is never
    published."""

    def version(program: str) -> str:
        answer = subprocess.run([tree / program, "--version"], capture_output=True, text=True, check=False)
        if answer.returncode:
            raise BundleError(f"the bundle's {program} does not start: {answer.stderr.strip()[-300:]}")
        return answer.stdout.split()[-1]

    borg, borgmatic = version("borg"), version("borgmatic")
    version("saveos-seal")
    return {
        "version": f"borg {borg}, borgmatic {borgmatic}",
        "borg": borg,
        "borgmatic": borgmatic,
        "glibc": glibc_needed(tree),
        "arch": platform.machine(),
    }


def archive(tree: Path, target: Path) -> str:
    """Write the tree as a reproducible tar.gz and return its SHA-256."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mtime = 0
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, 0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(tree.iterdir()):
            tar.add(path, arcname=path.name, filter=plain)
    return hashlib.sha256(target.read_bytes()).hexdigest()


def is_current(tarball: Path, label: Path) -> bool:
    """Is there a bundle made of exactly these inputs?"""
    try:
        return tarball.exists() and json.loads(label.read_text())["inputs"] == inputs_hash()
    except (OSError, ValueError, KeyError):
        return False


def build(output: Path) -> Path:
    """Build what is not there yet; safe to be called by several processes at once."""
    tarball = output / f"saveos-bundle-{platform.machine()}.tar.gz"
    label = tarball.with_name(tarball.name.removesuffix(".tar.gz") + ".json")
    if is_current(tarball, label):
        return tarball
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_current(tarball, label):
            return tarball
        if missing := missing_packages():
            raise BundleError(
                f"the agent bundle cannot be built here yet; run: apt-get install -y {' '.join(missing)}"
            )
        print("Building the agent bundle once (about two minutes)", file=sys.stderr, flush=True)
        log = output / "build.log"
        log.write_bytes(b"")
        with tempfile.TemporaryDirectory(dir=output, prefix=".work-") as name:
            work = Path(name)
            tree = pack(work, make_venv(work, log), log)
            about = label_of(tree)
            (tree / "bundle.json").write_text(json.dumps(about, indent=1, sort_keys=True))
            fresh = work / tarball.name
            about["sha256"] = archive(tree, fresh)
            about["inputs"] = inputs_hash()
            label.unlink(missing_ok=True)
            fresh.replace(tarball)
            label.write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
    return tarball


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=ROOT / ".build" / "bundle", help="directory of bundle and label"
    )
    parser.add_argument(
        "--check", action="store_true", help="build nothing; exit 3 when the bundle is missing or old"
    )
    options = parser.parse_args()
    tarball = options.output / f"saveos-bundle-{platform.machine()}.tar.gz"
    if options.check:
        return (
            0 if is_current(tarball, tarball.with_name(tarball.name.removesuffix(".tar.gz") + ".json")) else 3
        )
    try:
        print(build(options.output.resolve()))
    except BundleError as error:
        print(f"bundle.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if (
        sys.base_prefix != "/usr" and PYTHON.exists()
    ):  # one builder, whoever calls: another Python would be another bundle
        os.execv(PYTHON, [str(PYTHON), *sys.argv])
    sys.exit(main())
