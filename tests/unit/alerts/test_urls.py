"""Which URLs a channel may have, and what is shown of them."""

import pytest
from saveos.alerts.urls import judge_url, redact, shown
from saveos.core.errors import Invalid

SECRET = "s3cr3t-canary"


@pytest.mark.parametrize(
    ("given", "judged"),
    [
        ("https://hooks.example.net/a/b", "jsons://hooks.example.net/a/b"),
        ("http://u:p@h:8080/x?a=1&b=2", "json://u:p@h:8080/x?-a=1&-b=2"),
        ("https://h/x?+X-Token=t&:team=ops&-a=1", "jsons://h/x?+X-Token=t&:team=ops&-a=1"),
        ("ntfys://ntfy.example.net/topic", "ntfys://ntfy.example.net/topic"),
        ("mailtos://u:p@mail.example.net?to=a@b.org", "mailtos://u:p@mail.example.net?to=a@b.org"),
    ],
)
def test_a_web_address_is_a_webhook_and_others_are_apprises(given, judged):
    assert judge_url(given) == judged


@pytest.mark.parametrize(
    "url",
    [
        f"file:///etc/{SECRET}",
        f"dbus://{SECRET}",
        f"syslog://{SECRET}",
        f"gopher://{SECRET}/",
        f"exec://{SECRET}",
        f"windows://{SECRET}",
        f"mqtt://{SECRET}",
        f"apprise://{SECRET}/token",
        f"vapid://{SECRET}",
        f"ntfy://h/{SECRET}?attach=file:///etc/passwd",
        f"ntfy://h/{SECRET}?attach=http://169.254.169.254/",
        f"mailto://u:{SECRET}@h?pgpprv=/etc/shadow",
        f"mailto://u:{SECRET}@h?PGPkey=/etc/shadow",
        f"mailto://u:{SECRET}@h?wkd=yes",
        f"json://h/{SECRET}?redirect=yes",
        f"json://h/{SECRET}?Redirect=yes",
        f"{SECRET}",
        f"https:///{SECRET}",
        f"https://h:99999/{SECRET}",
        f"https://[::1/{SECRET}",
        f"https://h/{SECRET}\r\nX: y",
        f"https://h/{SECRET} json://127.0.0.1/",
    ],
)
def test_other_kinds_and_options_are_refused_without_repeating_the_url(url):
    with pytest.raises(Invalid) as caught:
        judge_url(url)
    assert caught.value.field == "url"
    assert SECRET not in caught.value.detail.replace(url.partition(":")[0][:20], "")


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        (f"jsons://u:{SECRET}@hooks.example.net:8443/{SECRET}?+X={SECRET}", "jsons://hooks.example.net:8443"),
        (f"mailto://u:{SECRET}@mail.example.net", "mailto://mail.example.net"),
        (f"slack://{SECRET}/a/b", "slack://…"),
        (f"ntfy://{SECRET}", "ntfy://…"),
        (f"ntfy://h/{SECRET}", "ntfy://h"),
    ],
)
def test_what_is_shown_of_a_url(url, seen):
    assert shown(url) == seen


def test_errors_say_nothing_secret():
    url = f"jsons://user:pass%21word@hooks.example.net/{SECRET}?-token=abcd1234"
    text = f"POST /{SECRET} to https://hooks.example.net/{SECRET}?token=abcd1234 as user pass!word failed: 500"
    told = redact(text, url)
    assert redact("hooks.example.net did not answer", url) == "hooks.example.net did not answer"
    assert "500" in told
    assert not [word for word in (SECRET, "abcd1234", "pass!word", "user") if word in told]
