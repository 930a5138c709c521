"""What goes from host to host arrives as it was, and nothing of it gets out of where it is unpacked."""

import importlib.util
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

ODD_TREE = Path(__file__).parents[2] / "lab/odd_tree.py"


@pytest.fixture(scope="module")
def odd_tree():
    spec = importlib.util.spec_from_file_location("odd_tree", ODD_TREE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def failures(agent):
    return agent.Failures(agent.Redactor([]))


def unpack(agent, failures, stream, to):
    to.mkdir(mode=0o700)
    return agent.Unpacker(to, failures, lambda: None).unpack(stream)


def packed(agent, tree, verified=True, missing=()):
    content, left_out = io.BytesIO(), agent.Failures(agent.Redactor([]))
    for path in missing:
        left_out.add(path, "was not restored as the archive holds it")
    counts = agent.pack(tree, content.write, verified, left_out)
    content.seek(0)
    return content, counts


@pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")
def test_an_odd_tree_arrives_as_it_was(agent, failures, odd_tree, tmp_path):
    odd_tree.make(os.fsencode(tmp_path / "tree"))
    content, counts = packed(agent, tmp_path / "tree")
    told = unpack(agent, failures, content, tmp_path / "there")
    os.utime(tmp_path / "there", ns=(10**18, 10**18))  # of its root nothing travels
    (tmp_path / "there").chmod((tmp_path / "tree").stat().st_mode & 0o7777)
    expected, found = (odd_tree.describe(os.fsencode(tmp_path / name)) for name in ("tree", "there"))
    assert found == expected
    assert failures.total == 0 and told["verified"] is True
    assert told["files"] == counts["files"] > 30


def test_what_does_not_fit_is_refused_before_anything_is_written(agent, failures, tmp_path, monkeypatch):
    (tmp_path / "tree/deep").mkdir(parents=True)
    with (tmp_path / "tree/deep/holes").open("wb") as file:
        file.truncate(10**12)
    (tmp_path / "tree/deep/file").write_bytes(os.urandom(100_000))
    os.link(tmp_path / "tree/deep/file", tmp_path / "tree/deep/again")
    assert 100_000 <= agent.room_for(tmp_path / "tree") < 200_000, "holes and further names need none"
    monkeypatch.setattr(agent, "room_for", lambda _tree: 10**18)
    (tmp_path / "tree/deep/holes").unlink()
    content, _ = packed(agent, tmp_path / "tree")
    with pytest.raises(agent.AgentError, match="1000000000000000000 bytes are on their way"):
        unpack(agent, failures, content, tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


def test_a_stream_that_breaks_off_is_no_whole(agent, failures, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(os.urandom(100_000))
    content, _ = packed(agent, tmp_path / "tree")
    for size in (600, 50_000, len(content.getvalue()) - 11_000):
        with pytest.raises(agent.AgentError, match=r"breaks off|cannot be read"):
            unpack(agent, failures, io.BytesIO(content.getvalue()[:size]), tmp_path / f"there{size}")


def test_a_changed_file_is_not_kept(agent, failures, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(b"right" * 1000)
    content, _ = packed(agent, tmp_path / "tree")
    told = unpack(
        agent, failures, io.BytesIO(content.getvalue().replace(b"right", b"wrong")), tmp_path / "there"
    )
    assert told["verified"] is False
    assert list(failures.known) == ["/file"] and not (tmp_path / "there/file").exists()


def test_what_the_source_left_out_is_a_failure_here(agent, failures, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/whole").write_bytes(b"x")
    content, _ = packed(agent, tmp_path / "tree", verified=False, missing=["/srv/damaged"])
    told = unpack(agent, failures, content, tmp_path / "there")
    assert told["verified"] is False
    assert failures.listed() == [
        {
            "path": "/srv/damaged",
            "message": "at the other host: was not restored as the archive holds it",
        }
    ]
    assert (tmp_path / "there/whole").read_bytes() == b"x"


def test_what_the_source_did_not_compare_is_not_verified(agent, failures, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/whole").write_bytes(b"x")
    content, _ = packed(agent, tmp_path / "tree", verified=None)
    assert unpack(agent, failures, content, tmp_path / "there")["verified"] is None


@pytest.mark.parametrize(
    "member",
    [
        {"name": "data/../escaped", "type": tarfile.REGTYPE},
        {"name": "/escaped", "type": tarfile.REGTYPE},
        {"name": "data//escaped", "type": tarfile.REGTYPE},
        {"name": "data/link/escaped", "type": tarfile.REGTYPE},
        {"name": "data/link/escaped", "type": tarfile.DIRTYPE},
        {"name": "data/hard", "type": tarfile.LNKTYPE, "linkname": "data/link/secret"},
        {"name": "data/hard", "type": tarfile.LNKTYPE, "linkname": "data/../../secret"},
    ],
)
def test_nothing_gets_out(agent, failures, tmp_path, member):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as tar:
        link = tarfile.TarInfo("data/link")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        tar.addfile(link)
        hostile = tarfile.TarInfo(member["name"])
        hostile.type, hostile.linkname = member["type"], member.get("linkname", "")
        tar.addfile(hostile)
        end = tarfile.TarInfo("end")
        told = json.dumps({"verified": True, "failed_files": [], "failed_total": 0}).encode()
        end.size = len(told)
        tar.addfile(end, io.BytesIO(told))
    content.seek(0)
    try:
        unpack(agent, failures, content, tmp_path / "there")
    except agent.AgentError as error:
        assert "outside" in error.message
    else:
        assert failures.total == 1
    assert [each.name for each in outside.iterdir()] == ["secret"] and (outside / "secret").stat().st_nlink == 1
    assert not (tmp_path / "escaped").exists() and not Path("/escaped").exists()
