"""The controller as inventory of a playbook by hand, on hosts that the controller provisioned."""

from support import on


def test_a_playbook_finds_nothing_to_change_after_the_controller(fleet):
    """What the plugin gives is what the controller gave; hosts are known by the controller's keys alone."""
    done = fleet.by_hand("site", "--check", "--diff", "-v", "--limit", "web,vault")
    assert set(done.recap) == {"web", "vault"}
    assert done.total("changed") == 0, done.output[-6000:]
    assert done.total("failed") == done.total("unreachable") == 0


def test_a_host_with_another_key_is_refused(fleet):
    """The user's known_hosts is not asked: a host that shows another key is unreachable."""
    controller = fleet.controller
    right = controller.http("GET", "/hosts/web").json()["ssh_host_keys"]
    other = controller.http("GET", "/hosts/vault").json()["ssh_host_keys"]
    assert controller.http("PATCH", "/hosts/web", {"ssh_host_keys": other}).is_success
    try:
        refused = fleet.by_hand("health", "--limit", "web", code=4)
        assert refused.recap["web"]["unreachable"] == 1
    finally:
        assert controller.http("PATCH", "/hosts/web", {"ssh_host_keys": right}).is_success
    assert fleet.by_hand("health", "--limit", "web").total("failed") == 0
    assert on(fleet.web, "true") == ""
