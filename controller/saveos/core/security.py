"""All cryptography of the controller: envelope encryption, tokens, passwords.

Envelope: a key-encryption key (KEK) of the installation wraps one data key per tenant; values are
sealed with AES-256-GCM under the data key, bound to the place they live in (tenant, table, row,
column), so that a sealed value copied to another row does not open. See docs/security.md.
"""

import hashlib
import hmac
import os
import secrets
import uuid
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pwdlib import PasswordHash

KEY_BYTES = 32
NONCE_BYTES = 12
VERSION = b"\x01"

_passwords = PasswordHash.recommended()


class CannotOpen(Exception):
    """A sealed value that does not open with this key in this place."""


def load_kek(home: Path) -> bytes:
    """Return the installation's 32-byte key-encryption key.

    Looked for as a systemd credential `saveos-kek`, then in `home`/kek (0400), which is made when
    absent. Raises ValueError when the key has a wrong size or others may read it.
    """
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and (Path(credentials) / "saveos-kek").is_file():
        key = (Path(credentials) / "saveos-kek").read_bytes()
        source = "the systemd credential saveos-kek"
    else:
        path = home / "kek"
        if not path.exists():
            _create_private(path, os.urandom(KEY_BYTES))
        if path.stat().st_mode & 0o077:
            raise ValueError(f"{path} can be read by others: chmod 0400 {path}")
        key, source = path.read_bytes(), str(path)
    if len(key) != KEY_BYTES:
        raise ValueError(f"the key in {source} has {len(key)} bytes, not {KEY_BYTES}: restore it from a copy")
    return key


def _create_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def new_data_key() -> bytes:
    """Return a fresh 32-byte data key."""
    return AESGCM.generate_key(bit_length=256)


def place(tenant_id: uuid.UUID, table: str, row: uuid.UUID | str, column: str) -> bytes:
    """Return the associated data that binds a sealed value to where it lives."""
    return "\x1f".join((str(tenant_id), table, str(row), column)).encode()


def seal(key: bytes, plaintext: bytes, where: bytes) -> bytes:
    """Encrypt `plaintext` for one place: version, 12-byte nonce, ciphertext with tag."""
    nonce = os.urandom(NONCE_BYTES)
    return VERSION + nonce + AESGCM(key).encrypt(nonce, plaintext, where)


def unseal(key: bytes, sealed: bytes, where: bytes) -> bytes:
    """Decrypt what `seal` made. Raises CannotOpen on another key, place or a changed byte."""
    if sealed[:1] != VERSION:
        raise CannotOpen("unknown version of a sealed value")
    try:
        return AESGCM(key).decrypt(sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :], where)
    except InvalidTag as error:
        raise CannotOpen("a sealed value does not open: wrong key, or it was moved") from error


def vault_encrypt(plaintext: str, password: str) -> str:
    """Return `plaintext` in Ansible Vault's own format (1.1, AES256), to hand one value to one play.

    Written here because importing Ansible for it would cost each controller 15 MB and 0.2 s.
    """
    data, salt = plaintext.encode(), os.urandom(32)
    padding = 16 - len(data) % 16
    derived = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 10_000, 80)
    encryptor = Cipher(algorithms.AES(derived[:32]), modes.CTR(derived[64:])).encryptor()
    sealed = encryptor.update(data + bytes([padding]) * padding) + encryptor.finalize()
    digest = hmac.new(derived[32:64], sealed, "sha256").hexdigest()
    body = "\n".join((salt.hex(), digest, sealed.hex())).encode().hex()
    lines = (body[at : at + 80] for at in range(0, len(body), 80))
    return "\n".join(("$ANSIBLE_VAULT;1.1;AES256", *lines)) + "\n"


def new_token(prefix: str) -> str:
    """Return a bearer token of 256 random bits; the prefix tells people and scanners what it is."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def token_hash(token: str) -> str:
    """Return what is stored of a token. Plain SHA-256: the token has full entropy already."""
    return hashlib.sha256(token.encode()).hexdigest()


def hash_password(password: str) -> str:
    """Return an argon2id hash."""
    return _passwords.hash(password)


def verify_password(password: str, hashed: str) -> bool:
    """Check a password against its argon2id hash."""
    return _passwords.verify(password, hashed)
