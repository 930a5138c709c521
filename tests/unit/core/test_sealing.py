"""Recovery keys: what a host's saveos-seal seals, the controller's side opens, and nobody else."""

import base64
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from saveos.core import sealing

SEAL = Path(__file__).resolve().parents[3] / "roles" / "agent" / "files" / "saveos_seal.py"


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("saveos_seal", SEAL)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


seal = _load()

# RFC 9180, A.2.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, base mode, sequence number 0
INFO = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
ENCAPSULATED = bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
RECIPIENT = bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
PLAIN = bytes.fromhex("4265617574792069732074727574682c20747275746820626561757479")
# of A.2.1 too, but with the associated data that the vector gives; we use none, so it must not open
CIPHER = bytes.fromhex(
    "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"
)


def _schedule(encapsulated: bytes, private: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Derive key and nonce of RFC 9180's base mode, written from the text of the RFC (4.1, 5.1)."""
    import hashlib
    import hmac

    def extract(salt: bytes, keying: bytes) -> bytes:
        return hmac.new(salt or bytes(32), keying, hashlib.sha256).digest()

    def expand(key: bytes, about: bytes, length: int) -> bytes:
        return hmac.new(key, about + b"\x01", hashlib.sha256).digest()[:length]

    def labeled_extract(suite: bytes, salt: bytes, label: bytes, keying: bytes) -> bytes:
        return extract(salt, b"HPKE-v1" + suite + label + keying)

    def labeled_expand(suite: bytes, key: bytes, label: bytes, about: bytes, length: int) -> bytes:
        return expand(key, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + about, length)

    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    own = X25519PrivateKey.from_private_bytes(private)
    shared = own.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    kem = b"KEM" + (0x20).to_bytes(2, "big")
    context = encapsulated + own.public_key().public_bytes_raw()
    secret = labeled_expand(kem, labeled_extract(kem, b"", b"eae_prk", shared), b"shared_secret", context, 32)
    hpke = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (0x20, 1, 3))
    about = b"\x00" + labeled_extract(hpke, b"", b"psk_id_hash", b"")
    about += labeled_extract(hpke, b"", b"info_hash", info)
    root = labeled_extract(hpke, secret, b"secret", b"")
    return labeled_expand(hpke, root, b"key", about, 32), labeled_expand(hpke, root, b"base_nonce", about, 12)


def test_the_rfcs_own_vector_opens_by_the_rfcs_text() -> None:
    """Prove our reading of the RFC on its vector, so that it can judge the tool in the next test."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    key, nonce = _schedule(ENCAPSULATED, RECIPIENT, INFO)
    assert key.hex() == "ad2744de8e17f4ebba575b3f5f5a8fa1f69c2a07f6e7500bc60ca6e3e3ec1c91"
    assert nonce.hex() == "5c4d98150661b848853b547f"
    assert ChaCha20Poly1305(key).decrypt(nonce, CIPHER, bytes.fromhex("436f756e742d30")) == PLAIN


def test_what_the_tool_seals_opens_by_the_rfcs_text() -> None:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    public, private = sealing.new_pair()
    message = base64.b64decode(seal.seal(PLAIN, public))
    key, nonce = _schedule(message[:32], base64.b64decode(private), seal.INFO)
    assert ChaCha20Poly1305(key).decrypt(nonce, message[32:], None) == PLAIN


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=2000))
def test_host_and_controller_agree(plain: bytes) -> None:
    public, private = sealing.new_pair()
    sealed = seal.seal(plain, public)
    assert sealing.open_sealed(base64.b64decode(sealed), private) == plain
    assert seal.unseal(sealed, private) == plain


def test_another_key_and_a_changed_byte_open_nothing() -> None:
    public, private = sealing.new_pair()
    sealed = bytearray(base64.b64decode(seal.seal(b"secret", public)))
    with pytest.raises(sealing.WrongKey, match="does not open"):
        sealing.open_sealed(bytes(sealed), sealing.new_pair()[1])
    for at in (0, 31, 32, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(sealing.WrongKey):
            sealing.open_sealed(bytes(changed), private)
    with pytest.raises(sealing.WrongKey):
        sealing.open_sealed(b"short", private)


@pytest.mark.parametrize("odd", ["", "x", "AAAA", "!" * 44, base64.b64encode(bytes(31)).decode()])
def test_what_is_no_key_is_refused(odd: str) -> None:
    with pytest.raises(sealing.WrongKey, match="32 bytes"):
        sealing.fingerprint(odd)
    with pytest.raises(sealing.WrongKey, match="32 bytes"):
        sealing.open_sealed(b"x" * 64, odd)


def test_a_weak_public_key_is_refused() -> None:
    with pytest.raises(sealing.WrongKey, match="weak"):
        sealing.fingerprint(base64.b64encode(bytes(32)).decode())


def test_halves_and_fingerprint() -> None:
    import hashlib

    public, private = sealing.new_pair()
    assert sealing.public_of(private) == public
    assert sealing.fingerprint(public) == hashlib.sha256(base64.b64decode(public)).hexdigest()


def test_the_program_seals_from_standard_input_and_opens_by_a_file(tmp_path: Path) -> None:
    public, private = sealing.new_pair()
    (tmp_path / "key").write_text(private + "\n")

    def run(*words: str, given: bytes) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, str(SEAL), *words], input=given, capture_output=True, check=False
        )

    sealed = run("seal", "--to", public, given=b"hello").stdout
    assert run("open", "--key", str(tmp_path / "key"), given=sealed).stdout == b"hello"
    (tmp_path / "key").write_text(sealing.new_pair()[1])
    refused = run("open", "--key", str(tmp_path / "key"), given=sealed)
    assert refused.returncode == 1
    assert b"does not open" in refused.stderr
    assert run("seal", "--to", "nonsense", given=b"x").returncode == 1
