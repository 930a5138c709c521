"""Recovery keys: a pair of X25519 keys, and opening what `saveos-seal` on a host sealed to the public half.

The same suite and `info` as roles/agent/files/saveos_seal.py (HPKE, RFC 9180); a test holds them together.
"""

import base64
import binascii
import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

INFO = b"saveos escrow 1"
SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
KEY_BYTES = 32
NO_KEY = "a recovery key is 32 bytes in base64: use the file that `saveos recovery init` wrote"


class WrongKey(Exception):
    """A key that is none, or that does not open the message; the message says which."""


def new_pair() -> tuple[str, str]:
    """Return a new recovery key pair, (public, private), each base64 of 32 bytes."""
    key = X25519PrivateKey.generate()
    return _text(key.public_key().public_bytes_raw()), _text(key.private_bytes_raw())


def public_of(private: str) -> str:
    """Return the public half of a private key. Raises WrongKey when it is none."""
    return _text(X25519PrivateKey.from_private_bytes(_bytes(private)).public_key().public_bytes_raw())


def fingerprint(public: str) -> str:
    """Return the SHA-256 of a public key's 32 bytes, in hex. Raises WrongKey when it is none."""
    raw = _bytes(public)
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(raw))
    except ValueError as error:  # a point of low order: everyone would know the secret
        raise WrongKey("the public key is weak: make the pair with `saveos recovery init`") from error
    return hashlib.sha256(raw).hexdigest()


def seal(plain: bytes, public: str) -> bytes:
    """Seal a message to a public key, as `saveos-seal` does; raw bytes. Raises WrongKey when it is none."""
    return SUITE.encrypt(plain, X25519PublicKey.from_public_bytes(_bytes(public)), info=INFO)


def open_sealed(sealed: bytes, private: str) -> bytes:
    """Open a message (raw bytes, not base64). Raises WrongKey for another key or a changed message."""
    key = X25519PrivateKey.from_private_bytes(_bytes(private))
    try:
        return SUITE.decrypt(sealed, key, info=INFO)
    except (InvalidTag, ValueError) as error:
        raise WrongKey(
            "this key does not open it, or it was changed: use the recovery key of its time"
        ) from error


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _bytes(text: str) -> bytes:
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise WrongKey(NO_KEY) from error
    if len(raw) != KEY_BYTES:
        raise WrongKey(NO_KEY)
    return raw
