# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whose the files of a repository are."""

from __future__ import annotations

import stat

GUARDED = 0o440  # and root's: what saveos-guard has copied, and Borg never writes again


def is_foreign(status, uid):
    """Whether a file or directory of a repository is neither its user's nor one that the guard took over."""
    guarded = status.st_uid == 0 and stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == GUARDED
    return status.st_uid != uid and not guarded
