"""Delivery to real receivers on loopback: order, retry, refusal, and nothing sent where it must not be."""

import os
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
from saveos.alerts import channels, delivery, service
from saveos.alerts.delivery import Message, check_url, deliver, send, wait_after
from saveos.alerts.models import Channel, Delivery
from saveos.alerts.schemas import ChannelPatch
from saveos.alerts.watch import Watch
from saveos.core.clock import now
from saveos.core.errors import Invalid
from saveos.core.settings import Settings
from sqlalchemy import update

from tests.receivers import http, smtp

OPEN = Settings(outgoing_allow="127.0.0.1,::1")
CLOSED = Settings(outgoing_allow="")
SECRET = "s3cr3t-canary"


@pytest.fixture
def receiver():
    with http() as got:
        yield got


def make_due(database):
    """Let what waits be due now."""
    with database.session() as session:
        session.execute(update(Delivery).where(Delivery.state == "pending").values(next_at=now()))


def state_of(fleet, channel):
    return [(each.kind, each.state, each.attempts) for each in fleet.queued(channel)]


def test_an_alert_reaches_a_webhook_a_mailbox_and_ntfy(fleet, database, receiver):
    with smtp() as box, http() as ntfy:
        fleet.channel("hook", f"http://127.0.0.1:{receiver.port}/hook?+X-Token={SECRET}")
        fleet.channel("mail", f"mailto://127.0.0.1:{box.port}?from=saveos@example.org&to=ops@example.org")
        fleet.channel("phone", f"ntfy://127.0.0.1:{ntfy.port}/topic")
        host = fleet.host("web1", last_run_state="failed")
        fleet.sweep()
        assert deliver(database, OPEN) == 3
        fleet.change(host, last_run_state="succeeded")
        fleet.sweep()
        assert deliver(database, OPEN) == 3
        assert deliver(database, OPEN) == 0
    told, ended = receiver.json()
    alert = fleet.alerts()[0]
    assert told["title"] == "SaveOS: web1: backup failed"
    link = f"{OPEN.public_url}/hosts/web1"
    assert told["message"] == f"{alert.summary}\n{link}"
    assert told["link"] == link
    assert [told[key] for key in ("event", "rule", "host", "alert")] == [
        "opened",
        "failed",
        "web1",
        str(alert.id),
    ]
    assert (told["type"], ended["type"], ended["event"]) == ("failure", "success", "resolved")
    assert receiver.requests[0][2]["X-Token"] == SECRET
    assert [mail["Subject"] for _, _, mail in box.mails] == [told["title"], ended["title"]]
    assert box.mails[0][1] == ["ops@example.org"]
    assert [each["title"] for each in ntfy.json()] == [told["title"], ended["title"]]
    assert ntfy.json()[0]["topic"] == "topic"
    assert {each.state for each in fleet.queued()} == {"delivered"}


def test_a_receiver_that_is_down_is_tried_again_in_order(fleet, database, receiver):
    channel = fleet.channel(url=f"http://127.0.0.1:{receiver.port}/{SECRET}")
    host = fleet.host("web1", last_run_state="failed")
    fleet.sweep()
    fleet.change(host, last_run_state="succeeded")
    fleet.sweep()
    receiver.status = 503
    assert deliver(database, OPEN) == 1  # the second waits behind the first
    assert state_of(fleet, channel) == [("opened", "pending", 1), ("resolved", "pending", 0)]
    assert deliver(database, OPEN) == 0  # not due
    first = fleet.queued()[0]
    assert timedelta(seconds=5) < first.next_at - now() <= timedelta(seconds=15)
    assert "503" in first.error
    assert SECRET not in first.error
    receiver.status = 200
    make_due(database)
    assert deliver(database, OPEN) == 2
    assert state_of(fleet, channel) == [("opened", "delivered", 2), ("resolved", "delivered", 1)]
    assert [each["event"] for each in receiver.json()] == ["opened", "opened", "resolved"]


def test_one_channel_that_is_down_holds_up_no_other(fleet, database, receiver):
    fleet.channel("down", "http://127.0.0.1:9/x")
    well = fleet.channel("well", f"http://127.0.0.1:{receiver.port}/x")
    fleet.host("web1", last_run_state="failed")
    fleet.sweep()
    assert deliver(database, OPEN) == 2
    assert state_of(fleet, well) == [("opened", "delivered", 1)]


def test_waits_double_up_to_an_hour():
    waits = [wait_after(attempts).total_seconds() for attempts in (1, 2, 3, 8, 9, 50)]
    assert waits == [15, 30, 60, 1920, 3600, 3600]


def test_a_channel_that_never_delivers_raises_an_alert_elsewhere_and_resolves(fleet, database, receiver):
    down = fleet.channel("down", f"http://127.0.0.1:{receiver.port}/x", rules=["failed", "channel_failing"])
    other = fleet.channel("other", f"http://127.0.0.1:{receiver.port}/other", rules=["channel_failing"])
    fleet.host("web1", last_run_state="failed")
    fleet.sweep()
    with database.session() as session:
        session.execute(update(Delivery).values(attempts=delivery.ATTEMPTS - 1))
    receiver.status = 500
    deliver(database, OPEN)
    assert state_of(fleet, down) == [("opened", "pending", delivery.ATTEMPTS)]
    with database.session() as session:
        session.execute(
            update(Delivery).where(Delivery.channel_id == down.id).values(attempts=delivery.GIVE_UP - 1)
        )
    make_due(database)
    receiver.status = 500
    deliver(database, OPEN)
    assert state_of(fleet, down) == [("opened", "failed", delivery.GIVE_UP)]
    assert [alert.object for alert in fleet.alerts("open")][1:] == [f"channel:{down.id}"]
    receiver.status = 200
    deliver(database, OPEN)
    assert [each.title for each in fleet.queued(other)] == ["SaveOS: channel does not deliver"]
    delivery.test_channel(database, OPEN, fleet.tenant_id, down.id)
    assert [alert.rule for alert in fleet.alerts("open")] == ["failed"]
    with database.session() as session:
        assert session.get_one(Channel, down.id).last_state == "delivered"
    (again,) = [each for each in fleet.queued(down) if each.kind == "digest"]
    assert "The backup of web1 failed" in again.body, "what was given up is told when it can be"


CORPUS = [
    "http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://127.1:{port}/", "http://0:{port}/",
    "http://0.0.0.0:{port}/", "http://2130706433:{port}/", "http://0x7f000001:{port}/", "http://0177.0.0.1:{port}/",
    "http://[::1]:{port}/", "http://[::ffff:127.0.0.1]:{port}/", "http://[::ffff:7f00:1]:{port}/", "http://[::]:{port}/",
    "http://example.org@127.0.0.1:{port}/", "http://127.0.0.1:{port}#@example.org/", "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/", "http://①②⑦.⓪.⓪.①:{port}/", "http://127。0。0。1:{port}/", "http://127.0.0.1%00:{port}/",
    "json://127.0.0.1:{port}/?verify=no", "json://127.0.0.1:{port}/?method=GET", "form://127.0.0.1:{port}/",
    "xml://127.0.0.1:{port}/", "ntfy://127.0.0.1:{port}/t", "gotify://127.0.0.1:{port}/AbCdEfGhIjKlMnO",
    "mmost://127.0.0.1:{port}/abcdefghijklmnopqrstuvwxyz", "rocket://webhook/a@127.0.0.1:{port}/c",
    "mailto://127.0.0.1:{port}?from=a@b.org&to=c@d.org", "mailto://u:p@example.org?smtp=127.0.0.1:{port}&to=c@d.org",
    "mailto://u:p@example.org:{port}?smtp=127.0.0.1&to=c@d.org", "mailto://u:p@example.org:{port}?smtp=localhost&to=c@d.org",
    "matrix://u:p@127.0.0.1:{port}/%23room",
]  # fmt: skip


def test_ssrf_corpus_no_connection_is_made(receiver):
    """Reliability bar 20. Each URL goes to the sending process as it is, as if every check before were gone."""
    messages = []
    for number, text in enumerate(CORPUS):
        url = text.format(port=receiver.port)
        try:
            url = delivery.judge_url(url)
        except Invalid:
            continue
        messages.append(Message(str(number), str(number), url, "title", "body", "info", "test"))
    assert len(messages) > 25
    results = send(CLOSED, messages)
    assert [result.id for result in results if result.ok] == []
    assert len(results) == len(messages)
    assert receiver.connections == 0
    assert sum(result.refused for result in results) >= 15, results


def test_the_corpus_would_arrive_without_the_guard(receiver):
    """Guards the test above: the same messages are real ones."""
    urls = [each for each in CORPUS if "127.0.0.1:{port}/" in each and "://127" in each]
    messages = [
        Message(str(number), str(number), delivery.judge_url(url.format(port=receiver.port)), "title", "body")
        for number, url in enumerate(urls)
    ]
    send(OPEN, messages)
    assert receiver.connections >= 6


def test_a_redirect_is_not_followed_even_to_an_allowed_address(receiver):
    with http() as target:
        receiver.status, receiver.headers = 307, {"Location": f"http://127.0.0.1:{target.port}/stolen"}
        kinds = ("json", "form", "xml", "ntfy")
        urls = [f"{kind}://127.0.0.1:{receiver.port}/topic" for kind in kinds]
        results = send(OPEN, [Message(url, url, url, "title", "body") for url in urls])
        assert [result.ok for result in results] == [False] * len(kinds)
        assert (receiver.connections, target.connections) == (len(kinds), 0)


def test_proxies_of_the_environment_are_not_used(receiver, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{receiver.port}")
    (result,) = send(OPEN, [Message("1", "1", "json://127.0.0.1:9/x", "title", "body")])
    assert not result.ok
    assert receiver.connections == 0


def test_an_address_out_of_bounds_is_final_and_named(fleet, database):
    channel = fleet.channel(url="http://10.1.2.3/x")
    fleet.host("web1", last_run_state="failed")
    fleet.sweep()
    deliver(database, CLOSED)
    assert state_of(fleet, channel) == [("opened", "failed", 1)]
    assert "10.1.2.3 is not public" in fleet.queued(channel)[0].error


@pytest.mark.parametrize(
    ("url", "word", "type_"),
    [
        ("http://127.0.0.1/x", "this machine itself", "address-refused"),
        ("http://localhost/x", "this machine itself", "address-refused"),
        ("http://169.254.169.254/latest/meta-data", "metadata service", "address-refused"),
        ("http://[fd00:ec2::254]/", "metadata service", "address-refused"),
        ("mailto://10.0.0.1?from=a@b.org&to=a@b.org", "not public", "address-refused"),
        ("slack://x", "Apprise cannot read", "invalid"),
    ],
)
def test_a_url_is_judged_early(url, word, type_):
    with pytest.raises(Invalid, match=word) as caught:
        check_url(CLOSED, url)
    assert (caught.value.problem_type, caught.value.field) == (type_, "url")


def test_a_url_whose_name_has_no_address_yet_is_taken(receiver):
    check_url(CLOSED, "https://not-there.invalid/x")
    check_url(OPEN, f"http://127.0.0.1:{receiver.port}/x")
    assert receiver.connections == 0


def test_a_url_is_sealed_at_rest_and_bound_to_its_row(fleet, database):
    one = fleet.channel("one", f"https://hooks.example.net/{SECRET}")
    two = fleet.channel("two", "https://hooks.example.net/x")
    with database.session() as session:
        row = session.get_one(Channel, one.id)
        assert channels.url_of(session, row) == f"jsons://hooks.example.net/{SECRET}"
        assert SECRET.encode() not in row.url
        session.get_one(Channel, two.id).url = row.url
    fleet.host("web1", last_run_state="failed")
    fleet.sweep()
    with database.session() as session:
        session.execute(update(Delivery).where(Delivery.channel_id == one.id).values(state="failed"))
    assert deliver(database, CLOSED) == 0
    assert state_of(fleet, two) == [("opened", "failed", 1)]
    assert "does not open" in fleet.queued(two)[0].error


def test_the_url_is_in_no_process_list(receiver):
    lines = []

    def look(child):
        lines.extend(Path(f"/proc/{child.pid}/{name}").read_text() for name in ("cmdline", "environ"))

    send(OPEN, [Message("1", "1", f"json://127.0.0.1:{receiver.port}/{SECRET}", "title", "body")], look)
    assert receiver.requests[0][1] == f"/{SECRET}"
    assert SECRET not in "".join(lines)
    assert "SAVEOS" not in "".join(lines)


def test_a_receiver_that_never_answers_ends_in_time(monkeypatch, receiver):
    monkeypatch.setattr(delivery, "LIFE", 9.0)  # the process starts in one second, or in some
    with http() as stuck:
        hold = threading.Event()
        stuck.headers = Held(hold)
        messages = [
            Message("1", "stuck", f"json://127.0.0.1:{stuck.port}/x", "title", "body"),
            Message("2", "stuck", f"json://127.0.0.1:{stuck.port}/x", "title", "body"),
            Message("3", "well", f"json://127.0.0.1:{receiver.port}/x", "title", "body"),
        ]
        started = time.monotonic()
        results = {result.id: result for result in send(OPEN, messages)}
        hold.set()
    assert time.monotonic() - started < 60
    assert results["3"].ok
    assert "no answer within" in results["1"].error
    assert "2" not in results  # not tried, so it waits


class Held(dict):
    """Headers that take until `hold` is set."""

    def __init__(self, hold):
        super().__init__()
        self.hold = hold

    def items(self):
        self.hold.wait(30)
        return super().items()


def test_two_workers_send_a_message_once(fleet, database, receiver):
    fleet.channel(url=f"http://127.0.0.1:{receiver.port}/x")
    for number in range(3):
        fleet.host(f"h{number}", last_run_state="failed")
    fleet.sweep()
    threads = [threading.Thread(target=deliver, args=(database, OPEN)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    deliver(database, OPEN)
    assert sorted(each["host"] for each in receiver.json()) == ["h0", "h1", "h2"]


def test_what_a_killed_worker_claimed_is_sent_later(fleet, database, receiver):
    fleet.channel(url=f"http://127.0.0.1:{receiver.port}/x")
    fleet.host("web1", last_run_state="failed")
    fleet.sweep()
    with database.session() as session:
        assert len(delivery._claim(session, "http://x")) == 1  # and then it dies
    assert deliver(database, OPEN) == 0
    make_due(database)
    assert deliver(database, OPEN) == 1
    assert len(receiver.requests) == 1


def test_switching_a_channel_off_ends_what_waits(fleet, database, receiver):
    channel = fleet.channel(url=f"http://127.0.0.1:{receiver.port}/x")
    fleet.host("web1", last_run_state="failed")
    fleet.sweep()
    with database.session() as session:
        channels.change_channel(session, session.get_one(Channel, channel.id), ChannelPatch(enabled=False))
    assert deliver(database, OPEN) == 0
    assert state_of(fleet, channel) == [("opened", "failed", 0)]


def watched_until_told(database, receiver):
    """Run a watch until the receiver heard of something, and stop it."""
    watch = Watch(OPEN, database)
    watch.start()
    until = time.monotonic() + 30
    while not receiver.requests and time.monotonic() < until:
        time.sleep(0.1)
    watch.stop()
    return watch


def test_the_watch_sweeps_delivers_and_stops(fleet, database, receiver, monkeypatch):
    monkeypatch.setattr("saveos.alerts.watch.EVERY", 0.2)
    fleet.channel(url=f"http://127.0.0.1:{receiver.port}/x")
    fleet.host("web1", last_run_state="failed")
    watched_until_told(database, receiver)
    assert receiver.json()[0]["host"] == "web1"


def test_a_sweep_that_stumbles_holds_up_no_message(fleet, database, receiver, monkeypatch):
    monkeypatch.setattr("saveos.alerts.watch.EVERY", 0.2)
    fleet.channel(url=f"http://127.0.0.1:{receiver.port}/x")
    fleet.host("web1", last_run_state="failed")
    fleet.sweep()
    monkeypatch.setattr(service, "sweep", Mock(side_effect=KeyError("a fact that nobody foresaw")))
    watch = watched_until_told(database, receiver)
    assert receiver.json()[0]["host"] == "web1"
    assert watch.swept_at is None, "who asks how the controller is must see it"


def test_stopping_cuts_off_a_message_under_way(fleet, database, monkeypatch):
    monkeypatch.setattr("saveos.alerts.watch.EVERY", 0.1)
    with http() as stuck:
        hold = threading.Event()
        stuck.headers = Held(hold)
        fleet.channel(url=f"http://127.0.0.1:{stuck.port}/x")
        fleet.host("web1", last_run_state="failed")
        watch = Watch(OPEN, database)
        watch.start()
        until = time.monotonic() + 30
        while not stuck.requests and time.monotonic() < until:
            time.sleep(0.1)
        started = time.monotonic()
        watch.stop()
        hold.set()
        assert time.monotonic() - started < 25, "else it takes until the receiver goes on"
        assert watch._child is not None
        assert watch._child.returncode == -signal.SIGKILL
        with pytest.raises(ProcessLookupError):
            os.kill(watch._child.pid, 0)


def test_alerts_of_other_features_are_opened_counted_and_resolved(fleet, database):
    channel = fleet.channel(severities=["critical"])
    cause = (fleet.tenant_id, "disk_full", "repository:7")
    for number in range(3):
        with database.session() as session:
            service.open_alert(session, *cause, f"The disk is full{chr(10)}({number}).", severity="critical")
    (alert,) = fleet.alerts()
    assert (alert.count, alert.summary, alert.state) == (3, "The disk is full (2).", "open")
    assert fleet.sweep() == service.Swept()  # not the sweep's to resolve
    with database.session() as session:
        assert service.resolve_alert(session, *cause, "There is room again.")
        assert not service.resolve_alert(session, *cause)
    assert [(told.title, told.body) for told in fleet.queued(channel)] == [
        ("SaveOS: disk nearly full", "The disk is full (0)."),
        ("SaveOS: resolved: disk nearly full", "There is room again."),
    ]
