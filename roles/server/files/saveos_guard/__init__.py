# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The guard of a storage server: what a host marked deleted becomes final only when all was in order.

Run as root by a timer. For each repository it takes hard-link copies, keeps them, reads without any key what
Borg's own index and hints say, keeps a hash-chained ledger of the archives, judges, and is the only one that
compacts. It needs no controller; what it tells may lengthen a hold and lift a reason that was shown to a
person, and can shorten nothing. docs/decisions/0017-guard.md says why.

Standard library only, Python >= 3.9; packed into one executable file (plugins/module_utils/packed_program.py).
Modules import only downward, from `cli` at the top to `errors` at the bottom: `run` goes through a run's steps;
`word`, `gate`, `checking`, `compaction` and `undo` are the steps; `copies`, `objects` and `ledger` keep what
they need; `view`, `borg_files` and `hints` read what Borg wrote.

Times are seconds since 1970 inside, ISO 8601 in UTC outside; sizes are bytes.
"""
