# SPDX-License-Identifier: Apache-2.0
"""A small certificate authority for one cluster, the nodes' certificates, and what can be wrong with them.

Knows X.509 and the names of the files. Does not know who calls whom.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedray.errors import PlanError
from fedray.party.keys.own_files import OTHERS, OTHERS_WRITE, read_own, real_folder

CA_CERT, CA_KEY = "ca.crt", "ca.key"
NODE_CERT, NODE_KEY = "node.crt", "node.key"
"""The files of a folder; `ca.key` lies only where certificates are issued, and goes to no node."""

CA_DAYS, NODE_DAYS = 3650, 365

# A certificate counts from a little before it was made: clocks of machines are never quite the same.
_GRACE = timedelta(hours=1)
_EVERYWHERE = ("127.0.0.1", "localhost")  # under these a node's own processes call each other


def make_authority(folder: Path) -> None:
    """Makes a certificate authority.

    Raises:
        PlanError: The folder holds one already, or other users may write it.
        OSError: The files cannot be written.
    """
    folder = _made(folder, (CA_CERT, CA_KEY))
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"fedray {os.urandom(4).hex()}")])
    certificate = (
        _begun(name, name, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, SHA256())
    )
    _write(folder / CA_KEY, _pem(key), 0o600)
    _write(folder / CA_CERT, certificate.public_bytes(Encoding.PEM), 0o644)


def issue(authority: Path, out: Path, name: str, hosts: Sequence[str], days: int = NODE_DAYS) -> datetime:
    """Issues a node's certificate, and puts the authority's beside it.

    Args:
        authority: Folder of the authority.
        out: Folder for the node; made if not there.
        name: The node, for people.
        hosts: Addresses and host names under which it is called.
        days: How long it is good for.

    Returns:
        Until when it is good.

    Raises:
        PlanError: There is no authority in the folder, or the node's holds a certificate already.
        OSError: The files cannot be written.
    """
    if days < 1:
        raise PlanError(f"--days: expected 1 or more, found {days}")
    authority = real_folder(authority)
    ca, ca_key = _certificate(authority / CA_CERT), _private(authority / CA_KEY)
    out = _made(out, (NODE_CERT, NODE_KEY))
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = [_general_name(host) for host in dict.fromkeys([*hosts, *_EVERYWHERE])]
    certificate = (
        _begun(subject, ca.subject, key.public_key(), days)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        # Both: every node calls the others and is called by them, and Ray asks a caller for its certificate as well.
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .sign(ca_key, SHA256())
    )
    _write(out / NODE_KEY, _pem(key), 0o600)
    _write(out / NODE_CERT, certificate.public_bytes(Encoding.PEM), 0o644)
    if not (out / CA_CERT).exists():
        _write(out / CA_CERT, ca.public_bytes(Encoding.PEM), 0o644)
    return certificate.not_valid_after_utc


def check(folder: Path, host: str | None, now: datetime | None = None) -> datetime:
    """Checks a node's certificate as those who call it will.

    Args:
        folder: The node's.
        host: The address under which it is called; None for a driver, which nobody calls.
        now: The time; None for that of this machine.

    Returns:
        Until when it is good.

    Raises:
        PlanError: A file is missing or open to others, the certificate is of another authority, has run out, is not
            good yet, is for other addresses, or is not the key's.
    """
    folder = real_folder(folder)
    ca, node, key = _certificate(folder / CA_CERT), _certificate(folder / NODE_CERT), _private(folder / NODE_KEY)
    path, moment = folder / NODE_CERT, datetime.now(UTC) if now is None else now
    again = f"fedray tls issue NAME --host {host or 'ADDRESS'} --ca DIR --out {folder}"
    if node.public_key() != key.public_key():
        raise PlanError(f"{path} is not the certificate of {NODE_KEY} beside it; issue both anew: {again}")
    try:
        node.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        raise PlanError(
            f"{path} was issued by another authority than {CA_CERT} beside it; take both from the machine that issues "
            f"this cluster's certificates: {again}"
        ) from None
    for what, certificate in ((path, node), (folder / CA_CERT, ca)):
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if moment > ends:
            raise PlanError(f"{what} ran out on {ends:%Y-%m-%d %H:%M} UTC; issue it anew: {again}")
        if moment < begins:
            raise PlanError(
                f"{what} is good from {begins:%Y-%m-%d %H:%M} UTC on, and this machine's clock says "
                f"{moment:%Y-%m-%d %H:%M} UTC; set the clock right (timedatectl), here or where it was issued"
            )
    names = node.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if host is not None and _general_name(host) not in list(names):
        held = ", ".join(str(name.value) for name in names)
        raise PlanError(f"{path} is for {held}, and this node is called at {host}; issue it anew: {again}")
    return min(node.not_valid_after_utc, ca.not_valid_after_utc)


def _begun(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _GRACE)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise PlanError(f"--host: expected an address or a host name in ASCII, found {host!a}") from None


def _certificate(path: Path) -> x509.Certificate:
    content = _content(path, OTHERS_WRITE)  # outside: what it raises is a ValueError as well
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError:
        raise PlanError(f"{path} is no certificate in PEM; 'fedray tls issue' makes one") from None


def _private(path: Path) -> ec.EllipticCurvePrivateKey:
    content = _content(path, OTHERS)
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError):  # its own message could quote what it found
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PlanError(f"{path} is no private key on P-256 in PEM; 'fedray tls issue' makes one")
    return key


def _content(path: Path, forbidden: int) -> bytes:
    try:
        return read_own(path, forbidden)
    except FileNotFoundError:
        raise PlanError(f"{path} is not there; 'fedray tls init' and 'fedray tls issue' make it") from None


def _made(folder: Path, files: Sequence[str]) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = real_folder(folder)
    there = [name for name in files if os.path.lexists(folder / name)]
    if there:
        raise PlanError(f"{folder} holds {' and '.join(there)} already; nothing is overwritten. Take another folder")
    return folder


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes, mode: int) -> None:
    # Closed to others from the first moment on.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
