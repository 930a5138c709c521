"""The process that hands messages to Apprise: `python -I -m saveos.alerts.sender`.

One JSON document on standard input {"allow": [networks], "messages": [{id, channel, url, title,
body, severity, kind, fields}]}; one JSON line for each message as it ends: {id, ok, error,
refused}. A message without title is not sent: its URL is judged only. Apprise and the libraries
under it open their own connections, so the process confines itself before it reads an address.
"""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import apprise
import requests
from apprise.plugins.base import NotifyBase

from saveos.alerts.urls import WITH_HOST, redact
from saveos.core import outgoing

CONNECT, READ = 5.0, 10.0  # seconds
LIFE = 60  # seconds that this process lives at most
TYPES = {"critical": "failure", "warning": "warning", "info": "info"}

_said = threading.local()


class _Collect(logging.Handler):
    """Keeps what Apprise warns of, for each thread."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's text."""
        _say(record.getMessage())


def _say(text: str) -> None:
    if hasattr(_said, "lines"):
        _said.lines.append(text)


def _refused(reason: str) -> None:
    if hasattr(_said, "refused"):
        _said.refused.append(reason)


def send(message: dict[str, Any], allowed: Sequence[outgoing.Network]) -> dict[str, Any]:
    """Send one message, or judge its URL; return {id, ok, error, refused}."""
    _said.lines, _said.refused = [], []
    url = message["url"]
    try:
        ok = _send(message, allowed)
    except (TypeError, ValueError, OSError, requests.RequestException) as error:
        _say(str(error) or type(error).__name__)
        ok = False
    if ok:
        return {"id": message["id"], "ok": True, "error": "", "refused": False}
    if _said.refused:  # our own words, about an address only
        return {"id": message["id"], "ok": False, "error": _said.refused[0][:500], "refused": True}
    text = redact(" ".join(_said.lines[-2:]) or "the other side did not take it", url)
    return {"id": message["id"], "ok": False, "error": text[:500], "refused": False}


def _send(message: dict[str, Any], allowed: Sequence[outgoing.Network]) -> bool:
    asset = apprise.AppriseAsset(
        app_id="SaveOS",
        app_desc="SaveOS",
        app_url="",
        image_url_mask="",
        http_redirects=False,
        plugin_paths=[],
        secure_logging=True,
    )
    plugin = apprise.Apprise.instantiate(message["url"], asset=asset, suppress_exceptions=True)
    if not isinstance(plugin, NotifyBase):
        _say("Apprise cannot read this URL: see its documentation for the form of this kind")
        return False
    if not message["title"]:
        return _judge(message["url"], plugin, allowed)
    plugin.redirects = False
    plugin.socket_connect_timeout = CONNECT
    plugin.socket_read_timeout = READ
    plugin.request_rate_per_sec = 0
    if isinstance(extras := getattr(plugin, "payload_extras", None), dict):
        extras.update(message["fields"])
    kind = "success" if message["kind"] == "resolved" else TYPES[message["severity"]]
    return bool(
        plugin.notify(body=message["body"], title=message["title"], notify_type=apprise.NotifyType(kind))
    )


def _judge(url: str, plugin: NotifyBase, allowed: Sequence[outgoing.Network]) -> bool:
    """Say early when a URL's host is out of bounds; one that has no address now may have one later."""
    host = getattr(plugin, "smtp_host", None) or urlsplit(url).hostname
    if urlsplit(url).scheme not in WITH_HOST or not host:
        return True
    try:
        reason = outgoing.resolve(str(host), 0, allowed)
    except (OSError, UnicodeError):
        return True
    if reason:
        _refused(f"{host}: {reason}" if reason.partition(" ")[0] != host else reason)
    return not reason


def main() -> None:
    """Serve one document: channels side by side, messages of one channel in order until one fails."""
    signal.alarm(LIFE)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logger = logging.getLogger("apprise")
    logger.addHandler(_Collect(logging.WARNING))
    logger.propagate = False
    apprise.Apprise().details()  # loads every plugin, before files are out of reach
    asked = json.load(sys.stdin)
    allowed = outgoing.parse_networks(",".join(asked["allow"]))
    outgoing.confine(allowed, _refused)
    lock = threading.Lock()

    def serve(messages: list[dict[str, Any]]) -> None:
        for message in messages:
            result = send(message, allowed)
            with lock:
                print(json.dumps(result), file=out, flush=True)
            if not result["ok"]:
                return

    channels: dict[str, list[dict[str, Any]]] = {}
    for message in asked["messages"]:
        channels.setdefault(message["channel"], []).append(message)
    threads = [threading.Thread(target=serve, args=(each,), daemon=True) for each in channels.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
