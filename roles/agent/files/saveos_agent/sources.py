# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""What a backup would take now: borgmatic's configuration, and Borg's own dry run with all that it says."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shlex
import tempfile
from dataclasses import dataclass
from typing import Any, Callable, Iterator

from saveos_agent.canary import canary_file
from saveos_agent.changes import Printed
from saveos_agent.errors import EXIT_FAILED, AgentError
from saveos_agent.output import Output, classify
from saveos_agent.processes import run_child
from saveos_agent.redaction import Redactor
from saveos_agent.settings import Repository, Settings
from saveos_agent.times import new_run_id

FLAGS = {
    "exclude_caches": "--exclude-caches",
    "keep_exclude_tags": "--keep-exclude-tags",
    "exclude_nodump": "--exclude-nodump",
    "one_file_system": "--one-file-system",
}
DIRECTORIES = {"borg_base_directory": "BORG_BASE_DIR", "borg_cache_directory": "BORG_CACHE_DIR"}
STYLES = ("", "fm", "sh", "re", "pp", "pf")  # of Borg's patterns


def inside(path: bytes, directory: bytes) -> bool:
    """Whether a path is a directory or below it; both without outer slashes, and b"" is the root."""
    return not directory or path == directory or path.startswith(directory + b"/")


def canary_directory(settings: Settings) -> bytes:
    """Where the canary is, without outer slashes: each backup changes it."""
    return os.fsencode(str(canary_file(settings).parent)).strip(b"/")


def configuration(settings: Settings, repository: Repository) -> dict[str, Any]:
    """The repository's configuration as borgmatic reads it; it may hold secrets. Raises AgentError."""
    collected = bytearray()
    output = Output(Redactor.for_host(settings))
    argv = [settings.borgmatic, "--config", str(repository.config), "--no-color", "config", "show", "--json"]
    try:
        status = run_child(argv, new_run_id(), output.line, on_bytes=collected.extend)
        found = json.loads(collected.decode()) if status == 0 else []
    except (OSError, ValueError):
        status, found = EXIT_FAILED, []
    if status != 0 or not found or not isinstance(found[0], dict):
        error = classify(output)
        raise AgentError(error["code"], error["message"], "Provision the host again.")
    return dict(found[0])


@dataclass(frozen=True)
class Sources:
    """What decides which paths a backup takes: Borg's flags, and its patterns as (type, style, path)."""

    flags: list[str]
    patterns: list[tuple[str, str, str]]
    directory: str  # that relative paths begin at; "" for the root
    environment: dict[str, str]

    @property
    def roots(self) -> list[str]:
        return [path for kind, _, path in self.patterns if kind == "R"]

    def places(self) -> Places:
        return Places([_place(root, self.directory) for root in self.roots])


class Places:
    """Where archived paths are on the host: elsewhere for relative sources and those with `/./` in them."""

    def __init__(self, roots: list[tuple[bytes, bytes]]) -> None:
        moved = any(base for base, _ in roots)
        self._roots = sorted(set(roots), key=lambda root: -len(root[1])) if moved else []

    def on_host(self, archived: bytes) -> bytes:
        """A path without its leading slash, as an archive has it, as the host has it."""
        return next((_joined(base, archived) for base, root in self._roots if inside(archived, root)), archived)

    def in_archive(self, path: bytes) -> bytes:
        """The opposite of `on_host`."""
        for base, root in self._roots:
            if inside(path, _joined(base, root)):
                return path[len(base) :].strip(b"/")
        return path


def sources_of(config: dict[str, Any]) -> Sources:
    """What a configuration has backed up, as borgmatic hands it to `borg create`. Raises AgentError."""
    directory = os.path.expanduser(config.get("working_directory") or "")
    tags = config.get("exclude_if_present") or []
    extra = (config.get("extra_borg_options") or {}).get("create") or ""
    return Sources(
        flags=[
            *(flag for option, flag in FLAGS.items() if config.get(option)),
            *(word for tag in tags for word in ("--exclude-if-present", str(tag))),
            *_without_filter(shlex.split(extra)),
        ],
        patterns=[
            (kind, style, each)
            for kind, style, path in _patterns(config)
            for each in (_expanded(path, directory) if kind == "R" else [os.path.expanduser(path)])
        ],
        directory=directory,
        environment={name: str(config[key]) for key, name in DIRECTORIES.items() if config.get(key)},
    )


def taken(
    settings: Settings, repository: Repository, sources: Sources, take: Callable[[bytes], Any], seconds: float
) -> None:
    """Show `take` each path on the host that a backup would take now, by Borg's own matching.

    The canary is none of them. Raises AgentError.
    """
    if not sources.roots:
        return
    settings.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=settings.run, encoding="utf-8", errors="surrogateescape") as file:
        for kind, style, path in sources.patterns:
            file.write(f"{kind} {style}{':' if style else ''}{path}\n")
        file.flush()
        left_out = (canary_directory(settings), os.fsencode(file.name).strip(b"/"))
        top, printed = os.fsencode(sources.directory or "/"), Printed()
        output = Output(Redactor.for_host(settings))

        def on_line(stream: str, text: str) -> None:
            said = _status(text)
            if said is None:
                output.line(stream, text)
                return
            path = os.path.join(top, os.fsencode(said["path"]))
            if said["status"] == "-" and not any(inside(path.strip(b"/"), each) for each in left_out):
                with contextlib.suppress(OSError):  # went meanwhile
                    for each in printed.paths(path):
                        take(each)

        # where the repository is on this host, Borg leaves it out
        where = repository.url if repository.kind == "local" else "/nowhere"
        argv = ["nice", settings.borg, "create", "--dry-run", "--list", "--log-json"]
        status = run_child(
            [*argv, "--patterns-from", file.name, *sources.flags, f"{where}::compare"],
            new_run_id(),
            on_line,
            cwd=sources.directory or "/",
            seconds=seconds,
            extra=sources.environment,
        )
    if status not in (0, 1):  # a source that is not there is a warning, and its files are removed ones
        said = output.redactor.clean(output.errors[-1])[:300] if output.errors else "It took too long."
        raise AgentError("compare_failed", f"The host's files could not be walked. {said}", "Name a directory.")


def _patterns(config: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for each in config.get("source_directories") or []:
        yield "R", "", str(each)
    for line in config.get("patterns") or []:
        yield from _parsed(str(line))
    for line in config.get("exclude_patterns") or []:
        yield from _parsed(f"! {str(line).strip()}", "fm")
    for line in _lines(config.get("patterns_from")):
        yield from _parsed(line)
    for line in _lines(config.get("exclude_from")):
        if line.strip() and not line.lstrip().startswith("#"):
            yield from _parsed(f"! {line.strip()}", "fm")


def _parsed(line: str, style: str = "") -> Iterator[tuple[str, str, str]]:
    line = line.strip()
    if not line or line.startswith("#"):
        return
    kind, _, rest = line.partition(" ")
    named, colon, path = rest.partition(":")
    yield (kind, named, path) if colon and named in STYLES else (kind, style, rest)


def _lines(names: Any) -> Iterator[str]:
    for name in names or []:
        for path in _expanded(str(name), ""):
            try:
                with open(os.path.join("/", path), encoding="utf-8", errors="surrogateescape") as file:
                    yield from file
            except OSError as error:
                raise AgentError(
                    "compare_failed",
                    f"{path} of patterns_from or exclude_from cannot be read: {error.strerror}.",
                    "Bring the file back, or correct agent_borgmatic_overrides.",
                ) from None


def _expanded(path: str, directory: str) -> list[str]:
    """Paths that a source with ~ and * stands for, as borgmatic finds them."""
    path = os.path.expanduser(path)
    whole = os.path.join(directory, path)
    found = glob.glob(whole)
    if not found or whole == path:
        return found or [path]
    return [each.removeprefix(os.path.join(directory, "")) for each in found]


def _place(root: str, directory: str) -> tuple[bytes, bytes]:
    """Below what on the host a source's archived paths are, and where they begin; without outer slashes."""
    cut = root.find("/./")
    base = root[:cut] if cut > 0 else ""
    above = os.path.join(directory, base) if base or not root.startswith("/") else ""
    inner = os.path.normpath((root[cut + 3 :] if cut > 0 else root).lstrip("/") or ".")
    return os.fsencode(os.path.normpath(f"/{above}")).strip(b"/"), b"" if inner == "." else os.fsencode(inner)


def _without_filter(words: list[str]) -> Iterator[str]:
    """Options for `borg create` without the filter of its list, of which nothing may be missing."""
    rest = iter(words)
    for word in rest:
        if word == "--filter":
            next(rest, None)
        elif not word.startswith("--filter="):
            yield word


def _status(text: str) -> Any:
    if not text.startswith('{"type": "file_status"'):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def _joined(base: bytes, path: bytes) -> bytes:
    return base + b"/" + path if base and path else base or path
