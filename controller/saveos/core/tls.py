"""The installation's own certificate authority and the certificate of its listener.

Everything is in `home`/tls: ca.pem, ca.key, server.pem, server.key, each readable by its owner only.
Hosts and people trust the CA, by its pin (SHA-256 of the certificate); `curl --pinnedpubkey` trusts the
listener's key, which stays the same when its certificate is renewed. See docs/decisions/0007-own-tls.md.
"""

import base64
import fcntl
import hashlib
import ipaddress
import logging
import os
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from saveos.core.clock import now as clock_now

log = logging.getLogger(__name__)

CA_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=90)
RENEW_BEFORE = timedelta(days=30)
BACKDATED = timedelta(days=1)  # a host whose clock is some hours behind must still get in
LOOK_SECONDS = 60.0  # how often a running server looks whether its certificate is due


class BrokenIdentity(Exception):
    """The files in `home`/tls cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Identity:
    """What the controller shows of itself, and where its files are."""

    ca_pem: str
    ca_pin: str
    """SHA-256 of the CA certificate's DER, in hex."""
    key_pin: str
    """The listener's public key as `curl --pinnedpubkey` takes it."""
    names: tuple[str, ...]
    not_after: datetime
    """When the listener's certificate ends."""
    ca_not_after: datetime
    cert_path: Path
    key_path: Path

    def as_dict(self) -> dict[str, Any]:
        """Return what everyone may know, ready for JSON."""
        return {
            "ca_pin": self.ca_pin,
            "key_pin": self.key_pin,
            "names": list(self.names),
            "not_after": self.not_after.isoformat(),
            "ca_not_after": self.ca_not_after.isoformat(),
            "ca_pem": self.ca_pem,
        }


def ensure(
    home: Path,
    names: Iterable[str],
    *,
    life: timedelta = LEAF_LIFE,
    renew_before: timedelta = RENEW_BEFORE,
    renew: bool = False,
    now: datetime | None = None,
) -> Identity:
    """Return the identity of this installation; make or renew what is missing, due or has other names.

    `renew` makes a new certificate in any case. The listener's key is made once and kept, and so is the
    CA. Raises BrokenIdentity when a file is damaged or the CA's key is gone while it is needed.
    """
    moment = now or clock_now()
    wanted = _clean(names)
    directory = home / "tls"
    with _locked(directory):
        ca_key, ca = _authority(directory, moment)
        key = _key(directory / "server.key")
        leaf = _certificate(directory / "server.pem")
        if (
            leaf is None
            or renew
            or leaf.not_valid_after_utc - moment < renew_before
            or _names(leaf) != wanted
            or leaf.issuer != ca.subject
            or leaf.public_key() != key.public_key()
        ):
            if ca_key is None:
                raise BrokenIdentity(
                    f"{directory / 'ca.key'} is gone, so the certificate cannot be renewed: restore it from a "
                    "copy of the home, or remove the directory and pin the new CA on every host."
                )
            leaf = _issue((ca_key, ca), key, wanted, moment, life)
            _write(directory / "server.pem", leaf.public_bytes(serialization.Encoding.PEM))
        return _identity(directory, ca, leaf)


def current(home: Path) -> Identity | None:
    """Return the identity as it is on disk, or None when there is none yet (or it cannot be read by us)."""
    directory = home / "tls"
    try:
        ca, leaf = _certificate(directory / "ca.pem"), _certificate(directory / "server.pem")
    except PermissionError:
        return None
    if ca is None or leaf is None:
        return None
    return _identity(directory, ca, leaf)


def pin_of(der: bytes) -> str:
    """Return the pin of a certificate in DER: its SHA-256 in hex."""
    return hashlib.sha256(der).hexdigest()


def pin_of_pem(pem: str) -> str:
    """Return the pin of the one certificate in PEM. Raises ValueError when it is none."""
    return pin_of(ssl.PEM_cert_to_DER_cert(pem.strip() + "\n"))


def server_context(identity: Identity) -> ssl.SSLContext:
    """Return the listener's context: TLS 1.2 or newer, with this identity's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(identity.cert_path, identity.key_path)
    return context


class Keeper(threading.Thread):
    """Renews the certificate of a running server: new connections of `context` get the new one.

    `look` returns the identity that should be in force (by `ensure`). It also sees what another process,
    as `saveos tls renew`, has put there.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        identity: Identity,
        look: Callable[[], Identity],
        seconds: float = LOOK_SECONDS,
    ) -> None:
        super().__init__(name="saveos-tls", daemon=True)
        self._context, self._identity, self._look = context, identity, look
        self._seconds = seconds
        self._ended = threading.Event()

    def run(self) -> None:
        """Look until `stop`. A failure is logged and tried again: the old certificate still serves."""
        while not self._ended.wait(self._seconds):
            try:
                self.look_once()
            except (BrokenIdentity, OSError, ssl.SSLError, ValueError) as error:
                log.error("the certificate could not be renewed: %s", error)

    def look_once(self) -> bool:
        """Put the certificate in force when it is another one; return whether it was."""
        found = self._look()
        if found == self._identity:
            return False
        self._context.load_cert_chain(found.cert_path, found.key_path)
        self._identity = found
        log.info("the certificate was renewed; it ends %s", found.not_after)
        return True

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()


def _identity(directory: Path, ca: x509.Certificate, leaf: x509.Certificate) -> Identity:
    return Identity(
        ca_pem=ca.public_bytes(serialization.Encoding.PEM).decode(),
        ca_pin=pin_of(ca.public_bytes(serialization.Encoding.DER)),
        key_pin=_key_pin(leaf),
        names=_names(leaf),
        not_after=leaf.not_valid_after_utc,
        ca_not_after=ca.not_valid_after_utc,
        cert_path=directory / "server.pem",
        key_path=directory / "server.key",
    )


def _clean(names: Iterable[str]) -> tuple[str, ...]:
    """Return usable names, sorted: no blanks, no unspecified address, IP addresses in their short form."""
    kept: set[str] = set()
    for name in names:
        text = name.strip().strip("[]").rstrip(".").lower()
        if not text:
            continue
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            try:
                kept.add(text.encode("idna").decode())
            except UnicodeError as error:
                raise BrokenIdentity(f"{name!r} cannot be in a certificate: {error}.") from error
        else:
            if not address.is_unspecified:
                kept.add(str(address))
    return tuple(sorted(kept | {"localhost"}))


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(sorted(str(name.value) for name in extension))


def _key_pin(leaf: x509.Certificate) -> str:
    public = leaf.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "sha256//" + base64.b64encode(hashlib.sha256(public).digest()).decode()


def _authority(directory: Path, moment: datetime) -> tuple[ec.EllipticCurvePrivateKey | None, x509.Certificate]:
    """Return the CA and its key (None when only the certificate is there); make both at first start."""
    ca = _certificate(directory / "ca.pem")
    if ca is not None:
        key = _key(directory / "ca.key") if (directory / "ca.key").exists() else None
        if key and key.public_key() != ca.public_key():
            raise BrokenIdentity(f"{directory}: ca.key does not belong to ca.pem: restore both from a copy.")
        return key, ca
    key = _key(directory / "ca.key")
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SaveOS"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"SaveOS controller CA {os.urandom(4).hex()}"),
        ]
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    ca = (
        _builder(name, name, key.public_key(), moment, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(directory / "ca.pem", ca.public_bytes(serialization.Encoding.PEM))
    return key, ca


def _issue(
    authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate],
    key: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...],
    moment: datetime,
    life: timedelta,
) -> x509.Certificate:
    ca_key, ca = authority
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "SaveOS controller")])
    life = min(life, ca.not_valid_after_utc - moment)
    if life <= timedelta():
        raise BrokenIdentity(
            "The controller's CA has ended: remove `tls` in its home, start again, and pin the new CA on hosts."
        )
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return (
        _builder(subject, ca.subject, key.public_key(), moment, life)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issuer, critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, moment: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - BACKDATED)
        .not_valid_after(moment + life)
    )


def _usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _certificate(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise BrokenIdentity(f"{path} is no certificate: restore it from a copy of the home.") from error


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the private key in `path`, made when it is not there."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        key = ec.generate_private_key(ec.SECP256R1())
        encoded = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(path, encoded)
    except (ValueError, TypeError) as error:
        raise BrokenIdentity(f"{path} is no private key: restore it from a copy of the home.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BrokenIdentity(f"{path} is no ECDSA key: restore it from a copy of the home.")
    return key


def _write(path: Path, content: bytes) -> None:
    """Replace a file in one step, durably, readable by its owner only."""
    partial = path.with_name(f".{path.name}.new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Let one process at a time make certificates here."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
