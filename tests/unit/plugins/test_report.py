"""The report of a run by hand over a large fleet fits into what the controller takes."""

import gzip
import json
import os

from ansible_collections.saveos.fleet.plugins.callback import report

from tests.receivers import http


def test_it_is_packed_and_the_largest_results_are_left_out(monkeypatch):
    hosts = [{"name": f"h{number}", "result": {"tidy": "x" * 3000}} for number in range(1000)]
    hosts[7]["result"] = {"tidy": os.urandom(400_000).hex()}
    monkeypatch.setattr(report, "REPORT_BYTES", 3_300_000)
    report.shorten(hosts)
    assert [host["name"] for host in hosts if host["result"] == {"truncated": True}] == ["h7"]
    with http() as receiver:
        monkeypatch.setenv("SAVEOS_URL", receiver.url)
        monkeypatch.setenv("SAVEOS_TOKEN", "token")
        assert report.CallbackModule()._post({"hosts": hosts}) is None
        ((_, _, headers, body),) = receiver.requests
    assert headers["Content-Encoding"] == "gzip" and len(body) < 100_000
    assert json.loads(gzip.decompress(body)) == {"hosts": hosts}
