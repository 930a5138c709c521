# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""What goes wrong and how to fix it, and the exit codes."""

from __future__ import annotations

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED = 0, 1, 2, 5


class AgentError(Exception):
    """What went wrong and how to fix it, with a stable code."""

    def __init__(self, code: str, message: str, fix: str = "", exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.code, self.message, self.fix, self.exit_code = code, message, fix, exit_code

    def as_dict(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message, "fix": self.fix}


def usage(message: str, fix: str = "See saveos-agent --help.") -> AgentError:
    return AgentError("usage", message, fix, EXIT_USAGE)


def refused(message: str, fix: str) -> AgentError:
    return AgentError("refused", message, fix, EXIT_REFUSED)
