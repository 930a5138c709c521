"""saveos-seal: seal what only the holder of the recovery key may read (HPKE, RFC 9180).

    saveos-seal keygen                      JSON {"public": b64, "private": b64}
    saveos-seal seal --to PUBLIC  <plain >sealed
    saveos-seal open --key FILE   <sealed >plain     FILE holds the private key, base64

Suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305; `info` binds a message to this use. A sealed
message is
one line of base64: encapsulated key and ciphertext. Exit codes: 0 ok, 1 failed (one sentence on stderr), 2
usage.
"""

import argparse
import base64
import binascii
import json
import sys
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

VERSION = "1"
INFO = b"saveos escrow 1"
SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def keygen() -> dict[str, str]:
    """A new recovery key pair, both halves base64 of 32 raw bytes."""
    key = X25519PrivateKey.generate()
    return {
        "public": base64.b64encode(key.public_key().public_bytes_raw()).decode(),
        "private": base64.b64encode(key.private_bytes_raw()).decode(),
    }


def seal(plain: bytes, public: str) -> bytes:
    """Seal to a public key; raises ValueError when it is not 32 bytes of base64."""
    recipient = X25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
    return base64.b64encode(SUITE.encrypt(plain, recipient, info=INFO)) + b"\n"


def unseal(sealed: bytes, private: str) -> bytes:
    """Open a sealed message; raises InvalidTag for another key or a changed message, ValueError for bad
    base64."""
    key = X25519PrivateKey.from_private_bytes(base64.b64decode(private.strip(), validate=True))
    return SUITE.decrypt(base64.b64decode(sealed.strip(), validate=True), key, info=INFO)


def main() -> int:
    parser = argparse.ArgumentParser(prog="saveos-seal", description="Seal and open escrowed secrets.")
    parser.add_argument("--version", action="version", version=f"saveos-seal {VERSION}")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("keygen")
    verbs.add_parser("seal").add_argument("--to", required=True, metavar="PUBLIC")
    verbs.add_parser("open").add_argument("--key", required=True, type=Path, metavar="FILE")
    options = parser.parse_args()
    try:
        if options.verb == "keygen":
            print(json.dumps(keygen()))
        elif options.verb == "seal":
            sys.stdout.buffer.write(seal(sys.stdin.buffer.read(), options.to))
        else:
            sys.stdout.buffer.write(unseal(sys.stdin.buffer.read(), options.key.read_text()))
    except InvalidTag:
        print("saveos-seal: this key does not open the message, or the message was changed", file=sys.stderr)
        return 1
    except (ValueError, binascii.Error, OSError) as error:
        print(f"saveos-seal: the key or the message is not readable: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
