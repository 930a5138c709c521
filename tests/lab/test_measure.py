"""What a policy would back up is counted on the host itself, by Borg's own matching."""

import pytest
from support import on

pytestmark = pytest.mark.lab


def test_files_and_bytes_of_a_draft_are_counted_on_the_host(fleet):
    on(fleet.web, "mkdir -p /srv/measured/cache && cd /srv/measured && printf 12345 > a && printf 1 > cache/b")
    job = fleet.controller.done("measure", "web", sources=["/srv/measured"], excludes=["/srv/measured/cache"])
    told = job["by_host"]["web"]["result"]["measure"]
    assert (told["files"], told["bytes"]) == (1, 5), told
    whole = fleet.controller.command("policies", "measure", "web")
    assert whole["files"] > 100, whole
    on(fleet.web, "rm -r /srv/measured")
