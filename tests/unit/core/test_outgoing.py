"""What may be reached: addresses in every spelling, and a process that is confined to them."""

import json
import socket
import subprocess
import sys
import textwrap

import pytest
from saveos.core.outgoing import fault, parse_networks

from tests.receivers import http

# The corpus of addresses that a webhook must not reach, in the spellings that filters get wrong
FORBIDDEN = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "10.255.255.255", "172.16.0.1",
    "172.31.255.255", "192.168.1.1", "169.254.169.254", "169.254.1.1", "100.64.0.1",
    "100.100.100.200", "192.0.0.192", "192.0.0.1", "198.18.0.1", "192.0.2.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255", "168.63.129.16", "192.88.99.1", "::", "::1", "::7f00:1",
    "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:169.254.169.254",
    "0:0:0:0:0:ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1",
    "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::", "2001:db8::1", "fe80::1",
    "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "100::1", "4000::1",
]  # fmt: skip
NO_ADDRESSES = [
    "", "localhost", "localhost.", "127.1", "127.0.1", "2130706433", "0x7f000001",
    "0x7f.0.0.1", "0177.0.0.1", "017700000001", "127.0.0.1.", "127.0.0.1:80", "[::1]",
    "①②⑦.⓪.⓪.①", "１２７.0.0.1", "127。0。0。1", "<broadcast>", " 127.0.0.1", "8.8.8.8 ",
    "metadata.google.internal", "example.org",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8",
    "93.184.216.34",
    "1.1.1.1",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_what_is_not_public_is_refused_with_the_way_out(address):
    assert "SAVEOS_OUTGOING_ALLOW" in fault(address, ())


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_plain_address_is_refused_even_when_all_is_allowed(text):
    assert "no IP address" in fault(text, parse_networks("0.0.0.0/0,::/0"))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address):
    assert fault(address, ()) == ""


def test_only_what_the_setting_names_is_allowed():
    allowed = parse_networks(" 10.1.0.0/16, 127.0.0.1 ,fd00::/8,")
    passed = [
        fault(each, allowed) == "" for each in ("10.1.2.3", "10.2.0.1", "127.0.0.1", "127.0.0.2", "fd00::1")
    ]
    assert passed == [True, False, True, False, True]
    assert fault("::ffff:10.1.2.3", allowed) == ""  # judged by the address it stands for


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "example.org", "*", "10.0.0.0-10.0.0.9"])
def test_a_setting_that_is_no_network_is_refused(text):
    with pytest.raises(ValueError, match="no network such as"):
        parse_networks(text)


def confined(code, *arguments, allow=""):
    """Run code in a confined process; return what it printed as JSON."""
    program = f"""
        import json, sys
        from saveos.core.outgoing import confine, parse_networks
        import socket, subprocess, os, http.client, pathlib
        refused = []
        confine(parse_networks({allow!r}), refused.append)
        def attempt(act):
            try:
                act()
                return "done"
            except OSError as error:
                return type(error).__name__
    """
    text = textwrap.dedent(program) + textwrap.dedent(code)
    ended = subprocess.run(
        [sys.executable, "-I", "-B", "-c", text, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(ended.stdout)


ATTEMPTS = """
    port = int(sys.argv[1])
    hosts = ["127.0.0.1", b"127.0.0.1", "localhost", "", "0", "127.1", "0x7f000001", "2130706433", "0.0.0.0"]
    results = {}
    for host in hosts:
        results[repr(host)] = attempt(lambda: socket.socket().connect((host, port)))
        results["ex " + repr(host)] = attempt(lambda: socket.socket().connect_ex((host, port)))
        if host:
            results["create " + repr(host)] = attempt(lambda: socket.create_connection((host, port), 2))
    for host in ("::1", "::ffff:127.0.0.1", "::"):
        six = socket.socket(socket.AF_INET6)
        results["six " + host] = attempt(lambda: six.connect((host, port)))
    results["low"] = attempt(lambda: __import__("_socket").socket().connect(("127.0.0.1", port)))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    results["sendto"] = attempt(lambda: udp.sendto(b"x", ("127.0.0.1", port)))
    results["sendmsg"] = attempt(lambda: udp.sendmsg([b"x"], [], 0, ("127.0.0.1", port)))
    results["bind"] = attempt(lambda: socket.socket().bind(("127.0.0.1", 0)))
    results["unix"] = attempt(lambda: socket.socket(socket.AF_UNIX).connect("/run/x"))
    print(json.dumps(results))
"""


def test_a_confined_process_reaches_nothing_that_is_not_allowed():
    with http() as receiver:
        results = confined(ATTEMPTS, receiver.port)
        assert set(results.values()) == {"Refused"}, results
        assert receiver.connections == 0


def test_a_confined_process_reaches_what_is_allowed_by_name_too():
    code = """
        connection = http.client.HTTPConnection("localhost", int(sys.argv[1]), timeout=5)
        connection.request("GET", "/x")
        print(json.dumps(connection.getresponse().status))
    """
    with http() as receiver:
        assert confined(code, receiver.port, allow="127.0.0.1,::1") == 200
        assert receiver.requests[0][1] == "/x"


def test_a_name_that_turns_to_loopback_after_it_was_judged_is_refused():
    """DNS rebinding: the first answer is public, the one that is connected to is not."""
    code = """
        answers = iter(["93.184.216.34", "127.0.0.1"])
        def rebinding(host, port, *rest, **named):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]
        socket.getaddrinfo = rebinding
        from saveos.core.outgoing import resolve
        judged = resolve("evil.test", int(sys.argv[1]), ())
        result = attempt(lambda: socket.create_connection(("evil.test", int(sys.argv[1])), 2))
        print(json.dumps([judged, result, refused]))
    """
    with http() as receiver:
        judged, result, refused = confined(code, receiver.port)
        assert (judged, result) == ("", "Refused")
        assert "this machine itself" in refused[0]
        assert receiver.connections == 0


def test_a_confined_process_reads_no_file_writes_none_and_starts_no_program(tmp_path):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "link").symlink_to("/etc/passwd")
    code = """
        folder = pathlib.Path(sys.argv[1])
        results = {
            "passwd": attempt(lambda: open("/etc/passwd")),
            "os.open": attempt(lambda: os.open("/etc/shadow", os.O_RDONLY)),
            "secret": attempt(lambda: (folder / "secret").read_text()),
            "link": attempt(lambda: (folder / "link").read_text()),
            "dots": attempt(lambda: open(os.path.join(sys.prefix, "../../../../../../etc/passwd"))),
            "environ": attempt(lambda: open("/proc/self/environ", "rb")),
            "write": attempt(lambda: (folder / "new").write_text("x")),
            "write code": attempt(lambda: open(os.path.join(sys.prefix, "saveos-test-file"), "w")),
            "program": attempt(lambda: subprocess.run(["true"])),
            "system": attempt(lambda: os.system("true")),
            "fork": attempt(os.fork),
        }
        import wave  # code itself is still read
        print(json.dumps(results))
    """
    results = confined(code, tmp_path)
    assert set(results.values()) == {"Refused"}, results
    assert not (tmp_path / "new").exists()


def test_loopback_of_this_test_is_reachable_at_all():
    """Guards the tests above: without the guard the same address answers."""
    with http() as receiver:
        socket.create_connection(("127.0.0.1", receiver.port), 5).close()
