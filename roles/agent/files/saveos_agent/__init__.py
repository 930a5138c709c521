# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""saveos-agent: backs up and restores this host with borgmatic, and keeps the record of every run.

Standard library only, Python >= 3.9; packed into one executable file (plugins/module_utils/packed_program.py).
It runs as root, from the host's backup unit (or cron), from a playbook, or by hand. What it guarantees:

* One run at a time: every run holds one flock, which the kernel frees when the process dies.
* One record per run id: a run that was killed is recorded as failed by whoever notices first.
* Nothing is lost: records are written atomically, kept in a spool, and posted until the controller has them.
* No secret leaves: passphrases, the token and the words of hooks are taken out of records and logs.

Modules import only downward, from `cli` and `verbs/` at the top to `errors` at the bottom. A new verb is a
module in `verbs/` and a line in the table of `cli`.
"""
