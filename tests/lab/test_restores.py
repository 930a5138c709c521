"""Restores on real hosts: odd trees in place, and both ends killed in the middle."""

import time

import pytest
from fleet import at_rest, host_processes
from serving import until
from support import make_tree, on, tree

pytestmark = pytest.mark.lab

ODD = "/srv/data/odd"
MANY = "/srv/data/many"
KEPT = "/srv/many"  # the same, so that what one test leaves does not fail the next
FILL = f"mkdir -p {MANY} && cd {MANY} && for n in $(seq 400); do head -c 30000 /dev/urandom > f$n; done"


@pytest.fixture(scope="module")
def story(fleet):
    """The session's fleet; web has an odd tree, and a directory of many files, both in its newest archive."""
    make_tree(fleet.web, ODD)
    on(fleet.web, FILL)
    on(fleet.web, f"cp -a {MANY} {KEPT}")
    fleet.controller.done("backup", "web")
    yield fleet
    on(fleet.web, f"rm -rf {ODD} {MANY} {KEPT}")


def ask(story, **asked):
    """Ask for a restore of web's newest archive; return the restore and its job."""
    return story.controller.post("/restores", {"archive": "latest", "host": "web"} | asked, 202)


def outcome(story, made, seconds=180):
    """Return what the host told, once the job succeeded."""
    job = story.controller.ended(made["job"], seconds)
    assert job["state"] == "succeeded", story.controller.story(job)
    return story.controller.get(f"/restores/{made['restore']['id']}")["outcome"]


def test_an_odd_tree_comes_back_equal_in_place_after_a_preview(story):
    """Names, modes, links, holes, attributes, ACLs: judged by somebody else than Borg."""
    before = tree(story.web, ODD)
    on(
        story.web,
        f"rm -rf {ODD}/names; echo spoilt > {ODD}/kinds/big; chmod 600 {ODD}/kinds/big; touch {ODD}/kinds",
    )
    spoilt = tree(story.web, ODD)
    asked = {"paths": [ODD], "in_place": True, "conflict": "overwrite"}
    plan = outcome(story, ask(story, preview=True, **asked))
    assert (plan["fits"], plan["blocked"]) == (True, 0)
    assert {"path": f"{ODD}/names", "action": "create"} in plan["entries"]
    assert tree(story.web, ODD) == spoilt
    told = outcome(story, ask(story, **asked))
    assert (told["verified"], told["failed_total"]) == (True, 0)
    assert (told["created"], told["overwritten"]) == (plan["created"], plan["overwritten"])
    assert tree(story.web, ODD) == before


@pytest.mark.parametrize("victim", ["agent", "controller"])
def test_a_restore_survives_the_death_of_either_end(story, victim):
    """Killed in the middle, the same run goes on: everything is back, nothing twice."""
    at_rest(story.web)
    on(story.web, f"rm -rf {MANY} && cp -a {KEPT} {MANY}")
    before = tree(story.web, MANY)
    on(story.web, f"rm {MANY}/f1*")
    undo = story.web.slow("8mbit")
    try:
        made = ask(story, paths=[MANY], in_place=True, conflict="rename")
        until(lambda: on(story.web, "pgrep -f '[/]borg .*extract' || true"), 120, "a borg that extracts")
        time.sleep(0.5)
        if victim == "agent":
            on(story.web, "pkill -9 -f '[s]aveos-agent.*restore --resume'")
        else:
            story.controller.kill()
            time.sleep(2)
            story.controller.start()
    finally:
        undo()
    told = outcome(story, made)
    assert told["verified"] is True
    assert told["tries"] == (2 if victim == "agent" else 1)
    at_rest(story.web)
    assert not [line for line in host_processes(story.web) if "restore" in line]
    after = tree(story.web, MANY)
    gone = {name for name in before if name.startswith("f1")}
    kept = set(before) - gone - {"."}
    assert set(after) == set(before) | {f"{name}.restored" for name in kept}
    assert all(after[name]["content"] == before[name]["content"] for name in gone | kept)
    assert on(story.web, "find / -xdev -name '.saveos-*partial'") == ""
