"""The guard's one file: modules that import only downward, and a command line."""

import ast
import subprocess
from graphlib import TopologicalSorter

from tests.guarded import SOURCES, load

guard = load()


def test_modules_import_only_downward():
    graph = {}
    for path in SOURCES.rglob("*.py"):
        tree = ast.walk(ast.parse(path.read_text()))
        graph[f"saveos_guard.{path.stem}"] = {
            node.module for node in tree if isinstance(node, ast.ImportFrom) and node.module
        }
    order = list(TopologicalSorter(graph).static_order())  # raises where a circle is
    assert order.index("saveos_guard.errors") < order.index("saveos_guard.cli")


def test_every_verb_explains_itself():
    for verb in ("run", "report", "tell", "check", "undo", "lower-hold", "adopt"):
        said = subprocess.run(
            [str(guard.program), verb, "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert said.startswith(f"usage: saveos-guard {verb}")


def test_without_settings_it_says_what_to_do(tmp_path):
    words = [str(guard.program), "--config", str(tmp_path / "none.json"), "run"]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "provision this storage server" in ran.stderr
