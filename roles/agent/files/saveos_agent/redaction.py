# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Secrets taken out of text before it reaches a record, a log or the controller."""

from __future__ import annotations

import contextlib
import re
from typing import Any, Iterable, Iterator

from saveos_agent.settings import Settings, load_token

SECRET_KEY = re.compile(
    r"^\s*-?\s*[\w.-]*(?:pass|token|secret|key|url|credential)[\w.-]*\s*:\s*(?P<value>\S.*?)\s*$",
    re.IGNORECASE,
)
USERINFO = re.compile(r"(?P<scheme>\w+://[^/\s:@]+):[^/\s@]+@")
WORD_BREAK = re.compile(r"""[\s'"=;|&<>()$`{},\\]+""")


class Redactor:
    """Takes secrets out of text before it reaches a record, a log or the controller.

    Known secrets: the token, the repositories' passphrases, the words of hook commands (they may hold
    passwords, and their output may repeat them), and values of borgmatic options with secret names.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = sorted({word for word in words if len(word) >= 6}, key=len, reverse=True)

    @classmethod
    def for_host(cls, settings: Settings) -> Redactor:
        words = [load_token(settings)]
        for repository in settings.repositories:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                words.append((settings.etc / "repositories" / repository.id / "passphrase").read_text().strip())
            with contextlib.suppress(OSError, UnicodeDecodeError):
                words.extend(config_secrets(repository.config.read_text()))
        for hook in (settings.etc / "hooks").glob("*"):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                words.extend(word for line in hook.read_text().splitlines() for word in hook_words(line))
        return cls(words)

    def clean(self, text: str) -> str:
        for word in self.words:
            text = text.replace(word, "***")
        return USERINFO.sub(r"\g<scheme>:***@", text)

    def clean_all(self, data: Any) -> Any:
        """The same structure with every string cleaned."""
        if isinstance(data, str):
            return self.clean(data)
        if isinstance(data, list):
            return [self.clean_all(item) for item in data]
        if isinstance(data, dict):
            return {key: self.clean_all(value) for key, value in data.items()}
        return data


def config_secrets(text: str) -> list[str]:
    """Words of a borgmatic config that may be secret. The standard library has no YAML, so: by line."""
    words: list[str] = []
    in_hooks = False
    for line in text.splitlines():
        if line[:1] not in (" ", "-", "#", ""):
            in_hooks = bool(re.match(r"""["']?(commands|before_|after_|on_error)""", line))
        if in_hooks:
            words.extend(hook_words(line))
        match = SECRET_KEY.match(line)
        if match and "{credential " not in line:
            words.append(match["value"].strip("'\""))
    return words


PLAIN_HOOK_WORDS = frozenset(
    {"before", "after", "states", "commands", "action", "everything", "repository", "configuration", "create"}
    | {"prune", "finish", "error", "systemctl", "service", "docker", "podman", "restart", "container", "start"}
)


def hook_words(line: str) -> Iterator[str]:
    """Words of one line of hooks, without paths, options and words everybody uses."""
    for word in WORD_BREAK.split(line):
        bare = re.sub(r"^-{1,2}(p(?=\S{6})|u(?=\S{6}))?", "", word).rstrip(":")
        if bare.startswith("/") or bare.lower() in PLAIN_HOOK_WORDS:
            continue
        yield bare
        yield from (part for part in re.split(r"[:/@?&]+", bare) if len(part) >= 8)
