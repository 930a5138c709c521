"""What hosts tell: by its code in the reader's language, in English as it was told."""

import ast
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from saveos.alerts.rules import RULES
from saveos.checkins.takeover import INCOMPLETE
from saveos.core import i18n
from saveos.dashboard import sentences, told, words
from saveos.dashboard.told import Told
from saveos.maintenance.operations import OPERATIONS

ROOT = Path(__file__).parents[3]
CODE = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
UNSHOWN = {  # codes of the agent's command alone: no run and no job has them
    "controller": "saveos-agent register, before the host is known",
    "provisioning": "saveos-agent register; the registration's page tells the reason",
    "ssh": "saveos-agent register, before the host is known",
    "usage": "a wrong command line",
}


@pytest.fixture
def french() -> Iterator[None]:
    i18n.use("fr")
    yield
    i18n.use("en")


def test_english_pages_show_what_was_told() -> None:
    assert told.error("disk_full", "A disk is full (/srv).") == Told("A disk is full (/srv).")
    assert told.finding("reboot-needed", "The host must be started anew.").detail == ""
    assert told.kind("apt-archives") == "Package files of apt"


def test_french_pages_show_the_code_s_sentence_and_keep_the_words(french: None) -> None:
    assert told.error("disk_full", "A disk is full (/srv).") == Told(
        "Un disque est plein. Libérez-y de l’espace et relancez ; les archives précédentes sont intactes.",
        "A disk is full (/srv).",
    )
    assert told.finding("reboot-needed", "It must be started anew.").text == "L’hôte doit être redémarré"
    assert told.alert("overdue", "web is late").detail == ""
    assert told.alert("clock", "340 s off").detail == "340 s off"


def test_a_health_check_tells_a_repository_s_last_error_by_its_code(french: None) -> None:
    assert told.finding("lock-timeout", "In use.").text.startswith(
        "Le dépôt est utilisé par un autre processus"
    )
    assert told.kind("lock-timeout") == told.error("lock_timeout", "In use.").text


def test_what_has_no_code_stays_as_it_is(french: None) -> None:
    assert told.error("", "Something new.") == Told("Something new.")
    assert told.finding("of-a-newer-agent", "Something new.") == Told("Something new.")
    assert (told.kind("of-a-newer-agent"), told.error("disk_full", "")) == ("of-a-newer-agent", Told(""))


def test_what_failed_is_told_part_by_part(french: None) -> None:
    shown = told.parts(
        "/srv: b: was not restored as the archive holds it; sqlite a: the dump ends in the middle"
    )
    assert shown == (
        "/srv : b : n’a pas été restauré tel que l’archive le contient ; sqlite a : l’export s’arrête au milieu"
    )
    rebuilt = "transfer: its job ended as lost; counts: 3 of 4 entries and 5 of 6 bytes arrived"
    assert told.parts(rebuilt).startswith("Transfert : sa tâche s’est terminée en lost ; Nombre de")
    assert told.parts("segment 7: it does not begin as a segment").startswith("segment 7 : il ne commence pas")
    assert told.parts("borg said: something else") == "borg said: something else"
    assert told.check("failures", "1 could not be restored: /a: Permission denied") == Told(
        "Fichiers qui n’ont pas pu être restaurés", "1 n’ont pas pu être restaurés : /a : accès refusé"
    )


def test_what_failed_is_worded_as_hosts_and_the_worker_word_it() -> None:
    spoken = {os.strerror(number) for number in errno.errorcode}
    for where in (
        "roles/agent/files/saveos_agent",
        "roles/server/files/saveos_guard",
        "controller/saveos/maintenance",
    ):
        for path in sorted((ROOT / where).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    spoken.add(node.value)
    spoken |= {
        f"a {kind} of that name is in its way" for kind in ("directory", "file or link") if kind in spoken
    }
    said = "\n".join(spoken)
    for template in sentences.HOSTS:
        for part in re.split(r"\{\w+\}", template):
            assert part.removesuffix(" bytes were sent, or their hashes differ") in said, template


def test_what_a_job_waits_for_is_named(french: None) -> None:
    assert told.waits("host web-1: backup 01a2") == "hôte web-1 (Sauvegarde)"
    assert (told.waits("repository:7"), told.waits("a b c")) == ("repository:7", "a b c")


def test_lengths_of_time_are_words(french: None) -> None:
    shown = [i18n.period(each).replace("\N{NO-BREAK SPACE}", " ") for each in ("7d", "1m", "48H", "odd", "")]
    assert shown == ["7 jours", "1 mois", "48 heures", "odd", ""]


def called(where: str, *names: str) -> Iterator[tuple[str, ast.Module, ast.Call]]:
    """Yield the calls of these functions in a file or below a folder, each with its file and module."""
    place = ROOT / where
    for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
        module = ast.parse(path.read_text())
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in names:
                yield path.name, module, node


def strings(node: ast.AST | None) -> set[str]:
    """Return the codes that an expression may be: its own string, or those of a choice."""
    if isinstance(node, ast.Constant):
        return {node.value} if isinstance(node.value, str) and CODE.fullmatch(node.value) else set()
    return strings(node.body) | strings(node.orelse) if isinstance(node, ast.IfExp) else set()


def assigned(module: ast.Module, name: str) -> set[str]:
    """Return the codes that a module gives to a variable, or loops over with it first in a pair."""
    found = set()
    for node in ast.walk(module):
        match node:
            case ast.Assign(targets=[ast.Name(id=given)], value=value) if given == name:
                found |= strings(value)
            case ast.For(target=ast.Tuple(elts=[ast.Name(id=given), *_]), iter=ast.Tuple(elts=rows)):
                pairs = [row for row in rows if given == name and isinstance(row, ast.Tuple)]
                found |= {code for pair in pairs for code in strings(pair.elts[0])}
    return found


def codes(where: str, *names: str, place: int = 0) -> set[str]:
    """Return the codes that are the argument at that place of these functions' calls."""
    found = set()
    for _, module, call in called(where, *names):
        for given in call.args[place : place + 1]:
            found |= strings(given) or assigned(module, getattr(given, "id", ""))
    return found


def constant(where: str, name: str) -> ast.expr:
    """Return the value of a module's constant."""
    for node in ast.parse((ROOT / where).read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return node.value
    raise LookupError(f"{where} has no {name}: name in this test what came in its place")


def keys(where: str, name: str) -> set[str]:
    value = constant(where, name)
    assert isinstance(value, ast.Dict), name
    return set().union(*map(strings, value.keys))


def error_types(where: str) -> set[str]:
    """Return the error types of jobs that a file names: finish()'s fifth argument, an outcome's third part."""
    found = set()
    for _, _, call in called(where, "finish"):
        found |= set().union(*(strings(each) for each in call.args[4:5]))
    for node in ast.walk(ast.parse((ROOT / where).read_text())):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) == 3:
            found |= strings(node.value.elts[2])
    return found


def test_every_error_that_the_agent_or_a_worker_tells_has_a_sentence() -> None:
    agent = codes("roles/agent/files/saveos_agent", "AgentError", "Rule")
    worker = error_types("controller/saveos/maintenance/attempt.py")
    worker |= error_types("controller/saveos/jobs/queue.py") | error_types("controller/saveos/jobs/service.py")
    assert len(agent) > 35, sorted(agent)
    assert worker >= {"canceled", "hosts-gone", "lost", "worker-lost", "timeout", "play-failed", "hosts-failed"}
    assert sorted((agent | worker) - set(told.ERRORS) - set(UNSHOWN)) == []
    assert sorted(set(told.ERRORS) - agent - worker - {INCOMPLETE}) == []  # said by nobody any more
    assert sorted(set(UNSHOWN) - agent) == []


def kinds() -> set[str]:
    """Return every kind of finding that a host, a storage server or the controller can tell."""
    health = codes("roles/agent/files/saveos_agent/health.py", "finding", place=1)
    found = {each.replace("_", "-") for each in health}
    found |= codes("plugins", "Finding", "attributes", "find", "_refuse", "_user")
    for module in ("cleanup", "controller_key", "drift", "rotate"):
        found |= codes(f"plugins/modules/{module}.py", "add")
    found |= codes("plugins/module_utils/validation_server.py", "key_finding", place=2)
    ends = codes("plugins/module_utils", "ending")
    found |= {f"{each}-{end}" for each in ends for end in ("expired", "ends")}
    found |= codes("plugins/module_utils/cleanup_rules.py", "Rule")
    found |= keys("plugins/module_utils/cleanup_rules.py", "COMMANDS")
    failures = constant("plugins/module_utils/validation_agent.py", "FAILURES")
    assert isinstance(failures, ast.Tuple)
    found |= {code for row in failures.elts for code in strings(getattr(row, "elts", [None])[-1])}
    found |= {"repository-unreachable"}  # where none of these fits
    for _, _, call in called("controller/saveos/maintenance/system.py", "SystemFinding"):
        found |= set().union(*(strings(each.value) for each in call.keywords if each.arg == "id"))
    for where in ("controller/saveos/maintenance/health.py", "plugins/module_utils/findings.py"):
        for node in ast.walk(ast.parse((ROOT / where).read_text())):
            if isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                found |= set().union(*(strings(value) for key, value in pairs if strings(key) == {"id"}))
    return found


def test_every_kind_of_finding_has_a_title() -> None:
    found = kinds()
    assert len(found) > 130, sorted(found)
    assert sorted(found - set(told.FINDINGS)) == []
    assert sorted(set(told.FINDINGS) - found) == []  # told by nobody any more


def test_every_reason_of_the_guard_has_a_sentence() -> None:
    found = codes("roles/server/files/saveos_guard", "reason")
    assert sorted(found - set(words.guard_reasons)) == []
    assert sorted(set(words.guard_reasons) - found) == []


def test_every_check_of_a_rebuild_has_a_name() -> None:
    assert codes("controller/saveos/maintenance/rebuilds.py", "_check", place=1) == set(told.CHECKS)


def test_every_rule_of_alerts_and_every_operation_has_its_words() -> None:
    assert set(words.rules) == set(words.judged) == set(RULES)
    assert set(words.operations) == set(OPERATIONS)


def test_codes_that_are_computed_are_known_here() -> None:
    """A code that is no literal is invisible to the tests above: they must read the table it is from."""
    computed = {
        f"{file}: {ast.unparse(call.args[0])}"
        for where, names in (
            ("roles/agent/files/saveos_agent", ("AgentError",)),
            ("roles/server/files/saveos_guard", ("reason",)),
            ("plugins", ("Finding", "find", "_refuse")),
        )
        for file, module, call in called(where, *names)
        if call.args and not strings(call.args[0]) | assigned(module, getattr(call.args[0], "id", ""))
        if ast.unparse(call.args[0]) != "error['code']"  # of an error that came
    }
    assert computed == {
        "restore.py: code",  # of RULES, else unknown
        "validation_agent.py: kind",  # FAILURES
        "validation_core.py: kind",  # attributes()
        "validation_host.py: f'{kind}-ends'",  # ending()
        "validation_host.py: f'{kind}-expired'",
        "validation_server.py: kind",  # key_finding()
    }
