# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""borgmatic's output: log lines, the result, and what an error means."""

from __future__ import annotations

import collections
import json
import re
import subprocess
import urllib.parse
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Optional

from saveos_agent.errors import AgentError
from saveos_agent.redaction import Redactor
from saveos_agent.settings import Repository, Settings

LOG_BYTES, LINE_BYTES, WARNINGS_KEEP, FAILED_KEEP = 64 * 1024, 4 * 1024, 50, 200

UNREAD = "[Errno "  # in Borg's warnings of paths that it could not read
BANTER = re.compile(r"Remote:|Killed stale lock|Removed stale .* lock")  # ssh's words; healed locks


@dataclass
class Output:
    """What one borgmatic (or borg) command said."""

    redactor: Redactor
    log: collections.deque[str] = field(default_factory=collections.deque)
    log_size: int = 0
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failed_files: list[dict[str, str]] = field(default_factory=list)
    failed_total: int = 0
    failed_keep: int = FAILED_KEEP
    result: Optional[dict[str, Any]] = None
    statuses: list[int] = field(default_factory=list)
    in_summary: bool = False
    in_block: bool = False
    on_out: Optional[Callable[[str], None]] = None  # takes standard output where that is data, not a log
    on_progress: Optional[Callable[[dict[str, Any]], None]] = None  # takes Borg's archive_progress

    def add_log(self, text: str) -> None:
        text = self.redactor.clean(text)[:LINE_BYTES]
        self.log.append(text)
        self.log_size += len(text.encode("utf-8", "replace")) + 1
        while self.log_size > LOG_BYTES and self.log:
            self.log_size -= len(self.log.popleft().encode("utf-8", "replace")) + 1

    def line(self, stream: str, text: str) -> None:
        """Take one line of output: a result array, a JSON log message, or plain text."""
        if stream == "out" and self.on_out:
            self.on_out(text)
            return
        text = text.strip("\r")
        if stream == "out" and (text == "{" or self.in_block):  # Borg's own result, of a name to be changed yet
            self.in_block = text != "}"
            return
        if text.startswith("[{") and self._take_result(text):
            return
        message = json_object(text)
        if message is None:
            self._take_text(text)
        elif message.get("type") == "log_message":
            self._take_message(message)

    def _take_result(self, text: str) -> bool:
        """borgmatic's result: [{"archive": …}]. Log messages may follow it on the same line."""
        try:
            results, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            return False
        for result in results:
            if isinstance(result, dict) and isinstance(result.get("archive"), dict):
                self.result = result
        rest = text[end:].strip()
        if rest:
            self.line("out", rest)
        return True

    def _take_text(self, text: str) -> None:
        # The interpreter's complaint about a temporary file that is gone already; harmless noise.
        if not text.strip() or text.startswith(
            ("Exception ignored in", "Traceback", "  File ", "FileNotFound")
        ):
            return
        self.in_summary = self.in_summary or text == "summary:"
        if not self.in_summary:
            self.add_log(text)
        self.errors.append(text)

    def _take_message(self, message: dict[str, Any]) -> None:
        text = str(message.get("message") or "")
        inner = json_object(text)
        if inner is not None and str(inner.get("type", "")).startswith(("archive_progress", "progress_")):
            if self.on_progress and inner["type"] == "archive_progress":
                self.on_progress(inner)
            return  # borgmatic wraps Borg's progress as errors
        self._note_status(text)
        if self.in_summary or not text:
            self.errors.append(text)  # the summary repeats the log, but may be the only place of an error
            return
        if text == "summary:":
            self.in_summary = True
            return
        level, name = str(message.get("levelname") or ""), str(message.get("name") or "")
        self.add_log(f"{level.lower()}: {text}" if level in ("WARNING", "ERROR", "CRITICAL") else text)
        if level in ("ERROR", "CRITICAL"):
            self.errors.append(text)
        elif level == "WARNING":
            self._take_warning(text, name, str(message.get("msgid") or ""))

    def _take_warning(self, text: str, name: str, msgid: str) -> None:
        """Only Borg's own warnings about the data make a run one with warnings."""
        self.errors.append(text)
        if not (name == "borg" or name.startswith("borg.")) or BANTER.match(text):
            return
        self._keep_warning(self.redactor.clean(text)[:LINE_BYTES])
        self.failed_total += 1
        if len(self.failed_files) < self.failed_keep:
            path, _, reason = text.partition(": ")
            if msgid == "IncludePatternNeverMatchedWarning" or not reason:
                match = re.match(r"Include pattern '(?:pp:)?(.*)' never matched", text)
                path, reason = ("/" + match[1].lstrip("/"), "is not in the archive") if match else (text, "")
            self.failed_files.append(
                {"path": self.redactor.clean(path), "message": self.redactor.clean(reason)}
            )

    def _keep_warning(self, text: str) -> None:
        """Keep the first warnings; of more, one that says why a path could not be read counts before one that
        only says that a file changed meanwhile."""
        if len(self.warnings) < WARNINGS_KEEP:
            self.warnings.append(text)
        elif UNREAD in text:
            changed = (place for place, kept in enumerate(self.warnings) if UNREAD not in kept)
            place = next(changed, None)
            if place is not None:
                self.warnings[place] = text

    def _note_status(self, text: str) -> None:
        match = re.search(r"borg\S* .*returned non-zero exit status (\d+)", text) or re.search(
            r"Treating exit code (\d+)", text
        )
        if match:
            self.statuses.append(int(match[1]))


def json_object(text: str) -> Optional[dict[str, Any]]:
    if not text.startswith("{"):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


@dataclass(frozen=True)
class Rule:
    """One stable error code: Borg's exit statuses or a phrase that mean it, and what to tell the reader."""

    code: str
    statuses: frozenset[int]
    phrase: str
    message: str
    fix: str


RULES = (
    Rule(
        "hook_failed",
        frozenset(),
        r"Error running .*hook|hook.*(?:failed|returned non-zero)",
        "A hook command failed, so the run stopped.",
        "Run the hook by hand on the host and correct agent_hooks.",
    ),
    Rule(
        "source_missing",
        frozenset(),
        r"Source directories or root pattern paths do not exist: .*|is not in the archive",
        "A path to work on does not exist.",
        "Correct agent_sources, or create the path.",
    ),
    Rule(
        "repository_gone",
        frozenset({13, 15}),
        r"Repository .* does not exist|is not a valid repository",
        "The repository is gone from the storage server.",
        "Bring it back from a copy, or provision with a new repository id; it is never made anew silently.",
    ),
    Rule(
        "archive_missing",
        frozenset({31}),
        r"Archive .* does not exist",
        "The repository does not have this archive.",
        "List those that it has with: saveos-agent snapshots.",
    ),
    Rule(
        "passphrase_wrong",
        frozenset({52}),
        r"[Pp]assphrase supplied in .* is incorrect",
        "The repository's passphrase on this host does not open it.",
        "Put the right passphrase in place, or import the escrowed key export with borg key import.",
    ),
    Rule(
        "lock_timeout",
        frozenset({70, 73}),
        r"Failed to create/acquire the lock",
        "The repository is in use by another borg process.",
        "Wait for it to end; borg removes locks of dead processes of this host by itself.",
    ),
    Rule(
        "quota_exceeded",
        frozenset({20}),
        r"storage quota .* exceeded",
        "The repository's quota is used up.",
        "Raise the repository's quota, or back up less; earlier archives are intact.",
    ),
    Rule(
        "disk_full",
        frozenset({14}),
        r"No space left on device|Insufficient free space|Disk quota exceeded",
        "A disk is full (the storage server's, or this host's under the agent's state directory).",
        "Free space there and run again; earlier archives are intact.",
    ),
    Rule(
        "host_key_changed",
        frozenset(),
        r"Host key verification failed|HOST IDENTIFICATION HAS CHANGED",
        "The storage server shows another SSH host key than the pinned one.",
        "If the server was rebuilt on purpose, provision this host again; else treat it as an attack.",
    ),
    Rule(
        "permission_denied",
        frozenset({21, 83}),
        r"Permission denied|Repository path not allowed",
        "The storage server or a directory refused access.",
        "Provision server and host again, so that the host's key and path are allowed.",
    ),
    Rule(
        "server_unreachable",
        frozenset({80, 81, 82, 87}),
        r"Connection closed by remote host|Connection refused|[Tt]imed out|Could not resolve|No route to host",
        "The storage server could not be reached, or closed the connection.",
        "Check that the server is up, its sshd port is open to this host, and borg works there.",
    ),
)
CONNECTION_STATUSES = frozenset({80, 81, 82, 87})
CONNECTION_RULES = tuple(
    rule for rule in RULES if rule.code in ("host_key_changed", "permission_denied", "server_unreachable")
)
SKIPPED = AgentError(
    "hook_failed",
    "A hook skipped the backup (exit 75), so no archive was made.",
    "Correct the hook, or the condition that it checks.",
)


def classify(output: Output, probe: Optional[Callable[[], str]] = None) -> dict[str, str]:
    """The stable error of a failed command. probe() adds ssh's own words where the connection broke."""
    text = "\n".join(output.errors)
    if probe is not None and CONNECTION_STATUSES.intersection(output.statuses):
        rule = _match(f"{text}\n{probe()}", CONNECTION_RULES)
    else:
        rule = next((rule for rule in RULES if rule.statuses.intersection(output.statuses)), None)
        rule = rule or _match(text, RULES)
    detail = output.redactor.clean(_detail(output, rule))
    if rule is None:
        return AgentError(
            "unknown", f"borgmatic failed: {detail or 'it said nothing'}", "Read the log of the run."
        ).as_dict()
    return {
        "code": rule.code,
        "message": f"{rule.message} ({detail})" if detail else rule.message,
        "fix": rule.fix,
    }


def _match(text: str, rules: Iterable[Rule]) -> Optional[Rule]:
    return next((rule for rule in rules if re.search(rule.phrase, text)), None)


def _detail(output: Output, rule: Optional[Rule]) -> str:
    """The line that says most: one that the rule knows, else the first of Borg's own, bounded."""
    noise = (
        "Excluding special files",
        "Error running",
        "Command '",
        "An error occurred",
        "Need some help",
        "summary",
        "...",
    )
    lines = [line.strip().splitlines()[0] for line in output.errors if line.strip()]
    known = [line for line in lines if rule is not None and re.search(rule.phrase, line)]
    plain = [line for line in lines if not line.startswith(noise)]
    ended = [
        re.sub(r"^Command '(\S+/)?(\w+) .*' (died|returned)", r"\2 \3", line) for line in lines if "' " in line
    ]
    return (known or plain or [line for line in ended if not line.startswith("Command")] or lines or [""])[0][
        :300
    ]


def ssh_probe(settings: Settings, repository: Repository) -> Callable[[], str]:
    """Ask ssh why it fails: borg often closes before it has read ssh's words."""

    def probe() -> str:
        url = urllib.parse.urlsplit(repository.url)
        if url.scheme != "ssh" or not url.hostname:
            return ""
        ssh = settings.etc / "ssh"
        options = [f"UserKnownHostsFile={ssh / 'known_hosts'}", "StrictHostKeyChecking=yes", "BatchMode=yes"]
        options += ["ConnectTimeout=8", "IdentitiesOnly=yes"]
        argv = ["ssh", "-F", "none", "-T", "-i", str(ssh / "id_ed25519"), "-p", str(url.port or 22)]
        argv += [part for option in options for part in ("-o", option)]
        target = f"{url.username}@{url.hostname}" if url.username else url.hostname
        try:
            done = subprocess.run(
                [*argv, "--", target], stdin=subprocess.DEVNULL, capture_output=True, timeout=15, check=False
            )
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stderr.decode("utf-8", "replace")[-4000:] if done.returncode == 255 else ""

    return probe
