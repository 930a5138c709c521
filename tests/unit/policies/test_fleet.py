"""What joins host, policy and repository."""

from datetime import UTC, datetime, timedelta

from saveos.core.clock import now
from saveos.hosts import service as hosts
from saveos.hosts.models import Host
from saveos.hosts.schemas import HostIn
from saveos.policies import fleet, service
from saveos.policies.schemas import PolicyPatch


def test_role_variables_come_from_policy_and_repository_and_the_hosts_own_win(session, tenant_id):
    vault = fleet.add_host(session, tenant_id, HostIn(name="vault", is_agent=False, is_storage_server=True))
    web = fleet.add_host(session, tenant_id, HostIn(name="web1", variables={"agent_jitter_minutes": 1}))
    variables = fleet.role_variables(session, tenant_id, [vault, web])
    assert variables[vault.id] == {}
    mine = variables[web.id]
    assert (mine["agent_sources"], mine["agent_jitter_minutes"]) == (["/etc", "/home"], 1)
    store = mine["agent_repositories"][0]
    assert (store["kind"], store["server"], store["path"], store["quota"]) == ("ssh", "vault", "", "")
    assert "agent_hooks" not in mine


def test_a_new_schedule_moves_the_hour_at_which_a_host_is_late(session, tenant_id):
    host = fleet.add_host(session, tenant_id, HostIn(name="web1"))
    policy = service.ensure_default(session, tenant_id)
    host.last_backup_at = datetime(2026, 1, 1, 2, 5, tzinfo=UTC)
    service.assign(session, host, policy)
    assert host.due_at == datetime(2026, 1, 2, 8, 30, tzinfo=UTC)
    service.change_policy(session, policy, PolicyPatch(schedule="0 4 * * 0", grace_minutes=60))
    assert session.get_one(Host, host.id).due_at == datetime(2026, 1, 4, 4, 0, tzinfo=UTC) + timedelta(
        minutes=90
    )


def test_a_host_that_comes_back_is_late_until_it_backs_up_again(session, tenant_id):
    host = fleet.add_host(session, tenant_id, HostIn(name="web1"))
    host.last_backup_at = now() - timedelta(days=40)
    hosts.take_out(session, host)
    host = fleet.add_host(session, tenant_id, HostIn(name="web1"))
    host.state = "enrolled"
    host.seen_at = now()
    assert host.due_at is not None
    assert hosts.protection(host, now()) == "late", "archives of before do not protect it"
