"""Benchmarks: ratios taken in one run, printed as tables; they fail on errors, never on figures."""

import sys
from pathlib import Path

# lab.py, serving.py, fleet.py, support.py: benchmarks run on the same real hosts as tests
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "lab"))
