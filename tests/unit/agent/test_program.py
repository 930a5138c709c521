"""The agent's one file: the same bytes from the same sources, and modules that import only downward."""

import ast
import os
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from plugins.module_utils.packed_program import pack

PACKAGE = Path(__file__).parents[3] / "roles/agent/files/saveos_agent"


def test_the_same_sources_make_the_same_file(tmp_path):
    copy = tmp_path / "saveos_agent"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__/cli.cpython-311.pyc").write_bytes(b"no source")
    for path in copy.rglob("*.py"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    assert pack(copy) == pack(PACKAGE)
    assert pack(copy).startswith(b"#!/usr/bin/python3\nPK")


def test_modules_import_only_downward():
    graph = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(("saveos_agent", *path.relative_to(PACKAGE).with_suffix("").parts))
        tree = ast.walk(ast.parse(path.read_text()))
        graph[name] = {node.module for node in tree if isinstance(node, ast.ImportFrom) and node.module}
    order = list(TopologicalSorter(graph).static_order())  # raises where a circle is
    assert order.index("saveos_agent.errors") < order.index("saveos_agent.cli")


def test_a_verb_loads_only_what_it_needs(agent, host):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from saveos_agent.cli import main; "
        "main(['--config', sys.argv[2], 'status']); print(*sys.modules)"
    )
    words = [sys.executable, "-I", "-c", script, str(agent.program), str(host.etc)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "saveos_agent.verbs.status" in said
    assert "saveos_agent.verbs.backup" not in said and "saveos_agent.enrol" not in said


def test_every_verb_explains_itself(agent):
    for verb in agent.VERBS:
        said = subprocess.run(
            [str(agent.program), verb, "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert agent.VERBS[verb].help.lower() in said.lower().replace("\n", " ")
