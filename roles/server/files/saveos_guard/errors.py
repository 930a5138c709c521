# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What can go wrong, as exceptions that hold a sentence."""

from __future__ import annotations


class Trouble(Exception):
    """What keeps the guard from its work; a sentence."""


class Damaged(Exception):
    """A repository's file that does not hold what it must; a sentence."""


class Busy(Exception):
    """A repository changed while it was being looked at."""
