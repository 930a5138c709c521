"""The play itself: `python -I -m saveos.runner.play DIRECTORY`, a child of the supervisor.

Calls ansible-runner, whose event handler only appends to the spool. Ends with Ansible's own code, or
with 250 when it could not even be started; then the spool says why.
"""

import json
import sys
from pathlib import Path
from typing import Any, TextIO

import ansible_runner

from saveos.runner.events import Mapper, note

COULD_NOT_START = 250


class Spool:
    """Appends lines for the worker to read; flushed at once, because a killed process flushes nothing."""

    def __init__(self, file: TextIO, mapper: Mapper) -> None:
        self._file = file
        self._mapper = mapper

    def handle(self, event: dict[str, Any]) -> bool:
        """Keep one event. Must not raise: ansible-runner would say `running` for ever."""
        try:
            for line in self._mapper.lines(event):
                self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
            self._file.flush()
        except Exception as error:  # noqa: BLE001 - see above
            sys.stderr.write(f"event dropped: {error!r}\n")
        return False  # no event files

    def note(self, text: str) -> None:
        """Say something that is not Ansible's."""
        self._mapper.number += 1
        self._file.write(json.dumps(note(text) | {"n": self._mapper.number}) + "\n")
        self._file.flush()


def main() -> int:
    """Run the play described in DIRECTORY/play.json; the vault password is the first line of standard input."""
    directory = Path(sys.argv[1])
    spec = json.loads((directory / "play.json").read_text())
    password = sys.stdin.readline().rstrip("\n")
    mapper = Mapper(spec["first_event"], verbose=bool(spec["verbosity"]))
    with Path(spec["spool"]).open("a", encoding="utf-8") as file:
        spool = Spool(file, mapper)
        try:
            run = ansible_runner.run(
                private_data_dir=str(directory),
                playbook=spec["playbook"],
                inventory=str(directory / "hosts.json"),
                cmdline=" ".join(spec["arguments"]),
                passwords={r"Vault password:\s*$": password},
                suppress_env_files=True,
                fact_cache_type="",
                quiet=True,
                verbosity=spec["verbosity"] or None,
                event_handler=spool.handle,
                cancel_callback=lambda: False,  # else run() replaces our signal handlers
            )
        except Exception as error:  # noqa: BLE001 - the worker must learn of it
            spool.note(f"Ansible could not be started: {error}")
            return COULD_NOT_START
    return int(run.rc if run.rc is not None else COULD_NOT_START)


if __name__ == "__main__":
    sys.exit(main())
