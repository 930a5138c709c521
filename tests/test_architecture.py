"""One noun, every place: what operations.py names is the same in playbooks, roles, routes and rights."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from saveos.maintenance.operations import OPERATIONS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "controller" / "saveos"
MODULES = sorted(PACKAGE.rglob("*.py"))
ENTRY_POINTS = [name for name in OPERATIONS if name != "provision"]
OF_SERVER = {"guard", "undo"}  # entry points of the role `server`; an undo also mends its host


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_has_its_playbook(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation.playbook == ("site.yml" if name == "provision" else f"{name}.yml")
    for playbook in filter(None, (operation.playbook, operation.stop_playbook)):
        assert (ROOT / "playbooks" / playbook).is_file()


@pytest.mark.parametrize("name", [*ENTRY_POINTS, "stop"])
def test_operation_is_an_entry_point_of_the_role(name: str) -> None:
    role = ROOT / "roles" / ("server" if name in OF_SERVER else "maintenance")
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]
    assert (role / f"tasks/{name}.yml").is_file()
    play = (ROOT / "playbooks" / f"{name}.yml").read_text()
    assert f"tasks_from: {name}\n" in play
    options = set(specs[name]["options"])
    parameters = OPERATIONS[name].parameters.model_fields if name in OPERATIONS else {}
    assert {f"maintenance_{parameter}" for parameter in parameters} <= options


@pytest.mark.parametrize("role", ["agent", "server", "maintenance"])
def test_each_variable_of_a_role_is_described_with_its_default(role: str) -> None:
    meta, defaults = (ROOT / "roles" / role / name for name in ("meta/argument_specs.yml", "defaults/main.yml"))
    entries = yaml.safe_load(meta.read_text())["argument_specs"].values()
    told = {name: option for entry in entries for name, option in entry.get("options", {}).items()}
    given = yaml.safe_load(defaults.read_text())
    assert given.keys() - told.keys() == set()
    assert {name: told[name]["default"] for name in given if "default" in told[name]}.items() <= given.items()


def test_every_playbook_and_entry_point_belongs_to_an_operation() -> None:
    known = set(OPERATIONS) | {"site", "server", "agent", "stop"}
    assert {path.stem for path in (ROOT / "playbooks").glob("*.yml")} <= known
    entries = {path.stem for path in (ROOT / "roles/maintenance/tasks").glob("[a-z]*.yml")}
    assert entries <= known | {"main", "mend"}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_has_a_right_that_roles_know(name: str) -> None:
    from saveos.accounts.service import RIGHTS

    assert OPERATIONS[name].right in RIGHTS["admin" if name == "undo" else "operator"]
    assert OPERATIONS[name].right not in RIGHTS["viewer"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_that_is_not_idempotent_is_never_repeated(name: str) -> None:
    from saveos.worker import is_idempotent

    assert is_idempotent(name) is OPERATIONS[name].idempotent
    assert is_idempotent("unknown") is False


def test_only_the_runner_imports_ansible_runner() -> None:
    users = {path.relative_to(PACKAGE).parts[0] for path in MODULES if "ansible_runner" in imports(path)}
    assert users == {"runner"}


def test_routes_are_imported_only_by_the_application() -> None:
    users = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if any(re.fullmatch(r"saveos\.\w+\.api", name) for name in imports(path))
    }
    assert users <= {"app.py"}


def test_worker_process_does_not_load_ansible() -> None:
    """Ansible's modules would cost each controller tens of megabytes; they live in the plays' processes."""
    code = "import sys, saveos.worker; print([m for m in sys.modules if m.split('.')[0].startswith('ansible')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_services_never_commit() -> None:
    guilty = [
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if path.parent != PACKAGE / "core" and re.search(r"session\.(commit|rollback)\(", path.read_text())
    ]
    assert guilty == []


def test_every_feature_says_what_it_owns() -> None:
    for init in PACKAGE.glob("*/__init__.py"):
        module: Any = ast.parse(init.read_text())
        assert ast.get_docstring(module), init
        if init.parent.name not in ("migrations", "cli"):
            assert len(module.body) == 1, f"{init} holds more than a docstring"


def test_times_come_through_one_door() -> None:
    """`datetime.now` only in core/clock; the command, which shows local times, is not the controller."""
    guilty = [
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if path.name != "clock.py"
        and path.parent.name != "cli"
        and re.search(r"datetime\.(now|utcnow|today)\(", path.read_text())
    ]
    assert guilty == []
