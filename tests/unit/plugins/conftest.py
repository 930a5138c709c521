"""Makes saveos.fleet importable as Ansible imports it: through the link of scripts/link-collection.sh."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

subprocess.run([ROOT / "scripts" / "link-collection.sh"], check=True)
sys.path.insert(0, str(ROOT / ".collections"))
