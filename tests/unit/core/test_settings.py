"""When the listener speaks HTTPS, and what follows from it."""

import socket

import pytest
from saveos.core.settings import Settings


@pytest.mark.parametrize(
    ("tls", "listen", "serves"),
    [
        ("auto", "127.0.0.1:8000", False),
        ("auto", "[::1]:8000", False),
        ("auto", "localhost:8000", False),
        ("auto", "0.0.0.0:8000", True),
        ("auto", "10.0.0.5:8000", True),
        ("on", "127.0.0.1:8000", True),
        ("off", "10.0.0.5:8000", False),
    ],
)
def test_https_where_others_can_listen(tls, listen, serves):
    settings = Settings(tls=tls, listen=listen)
    reached = listen.replace("0.0.0.0", socket.gethostname())
    assert settings.serves_tls is serves
    assert settings.secure_cookies is serves
    assert settings.public_url == f"{'https' if serves else 'http'}://{reached}"


def test_cookies_follow_the_public_address():
    assert Settings(url="https://saveos.example", tls="off").secure_cookies is True
    assert Settings(url="http://saveos.example", tls="off", listen="0.0.0.0:80").secure_cookies is False
    assert Settings(url="https://saveos.example", secure_cookies=False).secure_cookies is False


def test_names_hold_the_public_one():
    names = Settings(url="https://saveos.example:8443/", listen="10.0.0.5:8443").tls_names
    assert {"saveos.example", "10.0.0.5", "localhost", "127.0.0.1"} <= set(names)
