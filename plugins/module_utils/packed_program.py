# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent, or the guard, as one executable file: its package, packed into a zip archive that Python runs.

Used where a program is sent from: by action plugins, by the controller for hosts that enrol, and by tests.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

START = b"#!/usr/bin/python3\n"
MAIN = "import sys\n\nfrom {name}.cli import main\n\nsys.exit(main(sys.argv[1:]))\n"


def pack(package):
    """Bytes of the program made of the package in this directory; the same for the same sources everywhere.

    Stored and not deflated: libraries deflate differently, and the file's hash says whether a host has it.
    """
    base = Path(package)
    names = sorted(path.relative_to(base).as_posix() for path in base.rglob("*.py"))
    content = [("__main__.py", MAIN.format(name=base.name).encode())]
    content += [(f"{base.name}/{name}", (base / name).read_bytes()) for name in names]
    packed = io.BytesIO()
    packed.write(START)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_STORED) as archive:
        for name, data in content:
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, data)
    return packed.getvalue()
