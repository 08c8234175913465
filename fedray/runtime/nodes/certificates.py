# SPDX-License-Identifier: Apache-2.0
"""A small certificate authority for one cluster, the nodes' certificates, and what can be wrong with them.

Knows X.509 and the names of the files. Does not know who calls whom.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
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
from fedray.party.whole_file import replace_file, write_new

CA_CERT, CA_KEY = "ca.crt", "ca.key"
NODE_CERT, NODE_KEY = "node.crt", "node.key"
"""The files of a folder; `ca.key` lies only where certificates are issued, and goes to no node."""

CA_DAYS, NODE_DAYS = 3650, 365

SOON = timedelta(days=30)
"""How long before its end a certificate is to be renewed."""

# A certificate counts from a little before it was made: clocks of machines are never quite the same.
_GRACE = timedelta(hours=1)
_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_EVERYWHERE = ("127.0.0.1", "localhost")  # under these a node's own processes call each other


def make_authority(folder: Path) -> None:
    """Makes a certificate authority.

    Raises:
        PlanError: The folder holds one already, or other users may write it.
        OSError: The files cannot be written.
    """
    folder = _made(folder, (CA_CERT, CA_KEY), "Take another folder")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"fedray {os.urandom(4).hex()}")])
    certificate = (
        _begun(name, name, key.public_key(), datetime.now(UTC) + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, SHA256())
    )
    write_new(folder / CA_KEY, _pem(key), 0o600)
    write_new(folder / CA_CERT, certificate.public_bytes(Encoding.PEM), 0o644)


def issue(
    authority: Path, out: Path, name: str, hosts: Sequence[str], days: int = NODE_DAYS, *, renew: bool = False
) -> datetime:
    """Issues a node's certificate, and puts the authority's beside it.

    Args:
        authority: Folder of the authority.
        out: Folder for the node; made if not there.
        name: The node, for people.
        hosts: Addresses and host names under which it is called; none in a renewal for those of before.
        days: How long it is good for, and never longer than the authority.
        renew: Whether it takes the place of one that this authority has issued to the same node.

    Returns:
        Until when it is good.

    Raises:
        PlanError: There is no authority in the folder, or it has run out; the node's holds a certificate already, or in
            a renewal none of this node and authority; a host is none.
        OSError: The files cannot be written.
    """
    if not 1 <= days <= CA_DAYS:
        raise PlanError(f"--days: expected 1 to {CA_DAYS}, the authority's own, found {days}")
    authority = _there(authority)
    ca, ca_key = _certificate(authority / CA_CERT), _private(authority / CA_KEY)
    if ca.not_valid_after_utc <= datetime.now(UTC):
        raise PlanError(f"{authority / CA_CERT} {ran_out(ca.not_valid_after_utc)}")
    names = [_general_name(host) for host in dict.fromkeys([*hosts, *_EVERYWHERE])]
    if renew:
        out = _there(out)
        held = _renewable(out / NODE_CERT, ca, name)
        names = names if hosts else held
    else:
        out = _made(out, (NODE_CERT, NODE_KEY), "Take another folder, or put new ones in their place with --renew")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    # Whom the authority no longer vouches for is refused: a later date would be a promise that does not hold.
    ends = min(datetime.now(UTC) + timedelta(days=days), ca.not_valid_after_utc)
    certificate = (
        _begun(subject, ca.subject, key.public_key(), ends)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        # Both: every node calls the others and is called by them, and Ray asks a caller for its certificate as well.
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .sign(ca_key, SHA256())
    )
    write = replace_file if renew else write_new
    write(out / NODE_KEY, _pem(key), 0o600)
    write(out / NODE_CERT, certificate.public_bytes(Encoding.PEM), 0o644)
    if not (out / CA_CERT).exists():
        write_new(out / CA_CERT, ca.public_bytes(Encoding.PEM), 0o644)
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
    folder = _there(folder)
    ca, node, key = _certificate(folder / CA_CERT), _certificate(folder / NODE_CERT), _private(folder / NODE_KEY)
    path, moment = folder / NODE_CERT, datetime.now(UTC) if now is None else now
    again = _again(folder, node, host)
    if node.public_key() != key.public_key():
        raise PlanError(f"{path} is not the certificate of {NODE_KEY} beside it; {again}")
    try:
        node.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        raise PlanError(f"{path} was issued by another authority than {CA_CERT} beside it; {again}") from None
    for what, certificate in ((folder / CA_CERT, ca), (path, node)):
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if moment > ends and certificate is ca:
            raise PlanError(f"{what} {ran_out(ends)}")
        if moment > ends:
            raise PlanError(f"{what} ran out on {ends:%Y-%m-%d %H:%M} UTC; {again}")
        if moment < begins:
            raise PlanError(
                f"{what} is good from {begins:%Y-%m-%d %H:%M} UTC on, and this machine's clock says "
                f"{moment:%Y-%m-%d %H:%M} UTC; set the clock right (timedatectl), here or where it was issued"
            )
    names = _names(node)
    if host is not None and _general_name(host) not in names:
        held = ", ".join(str(name.value) for name in names)
        raise PlanError(f"{path} is for {held}, and this node is called at {host}; {again}")
    return min(node.not_valid_after_utc, ca.not_valid_after_utc)


def renewal(folder: Path, host: str | None) -> str:
    """Returns how a node's certificate is renewed, as text; arguments as those of `check`."""
    folder = _there(folder)
    return _again(folder, _certificate(folder / NODE_CERT), host)


def _again(folder: Path, node: x509.Certificate, host: str | None) -> str:
    # Under all the names that it has: a node that is called by two would be cut off from half of its callers.
    called = [str(name.value) for name in _names(node)]
    hosts = dict.fromkeys(one for one in [host, *called] if one is not None and one not in _EVERYWHERE)
    options = "".join(f" --host {shlex.quote(each)}" for each in hosts)
    return (
        f"on the machine that has {CA_KEY}: fedray tls issue {safe_name(node)}{options} --ca DIR --out NEW; copy the "
        f"files in NEW over those in {folder} on this machine, and start its node again"
    )


def safe_name(node: x509.Certificate) -> str:
    """Returns the node's name in its certificate, as a command line takes it; NAME where none should."""
    # Somebody else may have made it, with a name that does something to a terminal or a shell.
    return shlex.quote(_name(node)) if _name(node).isprintable() else "NAME"


def ran_out(ends: datetime) -> str:
    """Returns that an authority has run out, and what to do, as the end of a sentence."""
    return (
        f"ran out on {ends:%Y-%m-%d %H:%M} UTC, and with it all that this authority has issued; make another one with "
        "'fedray tls init', and new certificates for all nodes with 'fedray tls issue'"
    )


def _renewable(path: Path, ca: x509.Certificate, name: str) -> list[x509.GeneralName]:
    """Returns the names in a certificate, after a look whether it is this node's and of this authority."""
    node = _certificate(path)
    try:
        node.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        raise PlanError(f"{path} was issued by another authority; --renew replaces none. Take another --out") from None
    if _name(node) != name:
        raise PlanError(f"{path} is for {_name(node)!a}; --renew replaces none but that of {name!r}")
    return _names(node)


def _names(node: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(node.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _name(node: x509.Certificate) -> str:
    found = node.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else "NAME"


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, ends: datetime
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _GRACE)
        .not_valid_after(ends)
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
    # X.509 takes any text, and nobody would ever call the node by it.
    if _HOST.fullmatch(host) is None:
        raise PlanError(
            f"--host: expected an address, or a host name in ASCII, without a scheme or a port; found {host!a}"
        )
    return x509.DNSName(host)


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
        raise _missing(path) from None


def _there(folder: Path) -> Path:
    if not os.path.lexists(folder):  # which would be told as a key folder that is missing
        raise _missing(folder)
    return real_folder(folder)


def _missing(path: Path) -> PlanError:
    return PlanError(f"{path} is not there; 'fedray tls init' and 'fedray tls issue' make it")


def _made(folder: Path, files: Sequence[str], remedy: str) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = real_folder(folder)
    there = [name for name in files if os.path.lexists(folder / name)]
    if there:
        raise PlanError(f"{folder} holds {' and '.join(there)} already; nothing is overwritten. {remedy}")
    return folder


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
