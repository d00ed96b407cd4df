"""A broker behind locks: a Valkey with users and passwords, TLS in front of it, and the certificates for that.

The Valkey that the tests run is built without TLS. So a relay stands in front of it, as stunnel would: what a client meets is TLS. Debian's
Redis speaks it by itself.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .ports import free_port
from .servers import Missing, Server, Valkey

#: Of the user `default`, who may do everything.
OPERATOR = "the-operators-own"


class LockedValkey(Valkey):
    """A Valkey that lets nobody in without a password.

    Args:
        directory: for its data.
        users: lines of an ACL file, beside the one of the user `default`.
    """

    def __init__(self, directory: Path, users: Sequence[str]) -> None:
        super().__init__(directory)
        self._acl = directory / "users.acl"
        self._acl.write_text("\n".join([f"user default on >{OPERATOR} ~* &* +@all", *users, ""]))

    def command(self) -> list[str]:
        return [*super().command(), "--aclfile", str(self._acl)]

    def client(self) -> redis.Redis:
        """The operator's."""
        return redis.Redis.from_url(f"redis://default:{OPERATOR}@127.0.0.1:{self.port}/0", socket_timeout=5)

    def address_for(self, user: str, password: str) -> str:
        """The URL of a user."""
        return f"redis://{user}:{password}@127.0.0.1:{self.port}/0"


#: What an authority uses its key for.
_SIGNS = x509.KeyUsage(
    digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
    key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
)  # fmt: skip


class Authority:
    """Signs certificates. `file` is its own, which clients are given.

    Args:
        directory: where the files are kept.
        name: of the authority.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._name = _named(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = directory / f"{name}.pem"
        made = self._made(self._name, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        made = made.add_extension(_SIGNS, critical=True)
        self.file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def certificate(self, host: str) -> Path:
        """A certificate for a host, by name or address, with its key, in one file."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            names: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            names = x509.DNSName(host)
        made = self._made(_named(host), key).add_extension(x509.SubjectAlternativeName([names]), critical=False)
        file = self.file.with_name(f"{self.file.stem}-{host}.pem")
        file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            + made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
        return file

    def _made(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number())
        # Python 3.13 and later require what RFC 5280 (4.2.1) requires of certificates.
        made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        return made.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


class RedisWithTls(Server):
    """A Redis that accepts nothing but TLS, lets nobody in without a password, and no host without a certificate.

    Args:
        directory: for its data.
        users: lines of an ACL file, beside the one of the user `default`.
        authority: signs the certificates of both sides.
    """

    def __init__(self, directory: Path, users: Sequence[str], authority: Authority) -> None:
        super().__init__(directory)
        binary = shutil.which("redis-server")
        if binary is None:
            raise Missing("redis-server")
        self._binary = binary
        self._authority = authority
        self._own, self.theirs = authority.certificate("127.0.0.1"), authority.certificate("box")
        self._acl = directory / "users.acl"
        self._acl.write_text("\n".join([f"user default on >{OPERATOR} ~* &* +@all", *users, ""]))
        self._port = free_port()

    def command(self) -> list[str]:
        return [
            self._binary, "--port", "0", "--tls-port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self.directory),
            "--appendonly", "yes", "--save", "", "--aclfile", str(self._acl), "--tls-cert-file", str(self._own),
            "--tls-key-file", str(self._own), "--tls-ca-cert-file", str(self._authority.file), "--tls-auth-clients", "yes",
        ]  # fmt: skip

    def address_for(self, user: str, password: str, *, certificate: bool = True) -> str:
        """The URL of a user, with the certificate of its host or without one."""
        own = f"&ssl_certfile={self.theirs}&ssl_keyfile={self.theirs}" if certificate else ""
        return f"rediss://{user}:{password}@127.0.0.1:{self._port}/0?ssl_ca_certs={self._authority.file}{own}"

    def client(self) -> redis.Redis:
        """The operator's."""
        return redis.Redis.from_url(self.address_for("default", OPERATOR), socket_timeout=5)

    def responds(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.exceptions.RedisError:
            return False


class TlsRelay(Server):
    """Accepts TLS on a port of its own, and forwards what it receives to another port of this host.

    Args:
        directory: for its log.
        certificate: with the key in the same file.
        to: the port behind it.
    """

    def __init__(self, directory: Path, certificate: Path, to: int) -> None:
        super().__init__(directory)
        self._certificate = certificate
        self._to = to
        self.port = free_port()

    def command(self) -> list[str]:
        program = Path(__file__).with_name("relay.py")
        return [sys.executable, str(program), str(self.port), "127.0.0.1", str(self._to), "0", str(self._certificate)]

    def responds(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False
