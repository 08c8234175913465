# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of a line between nodes: TLS 1.3 by the parties' identity keys, and nobody else's word.

Each party signs a certificate for itself with its identity key. No authority is asked: a certificate counts if it has
the very key that the party's roster has for that name. Knows no message. Needs Linux, where a key can be handed to TLS
without being written to a disk.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Mapping
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from fedray.errors import ProtocolError
from fedray.protocol.crypto.keys import Guarded, fingerprint, public_bytes
from fedray.types import PartyName

# No dates: the roster says how long a key is good. A certificate that ran out would stop a run whose keys are in order,
# and so would a clock that is off.
_BEGINS, _ENDS = datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


def certificate(identity: Ed25519PrivateKey) -> bytes:
    """Returns the certificate that a party signs for itself, DER."""
    # The name is made of the key and of nothing else: TLS looks certificates up by it.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, public_bytes(identity).hex())])
    return (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=identity.public_key())
        .serial_number(1)
        .not_valid_before(_BEGINS)
        .not_valid_after(_ENDS)
        .sign(identity, None)
        .public_bytes(Encoding.DER)
    )


def key_of(der: bytes) -> bytes:
    """Returns the public key of a certificate, 32 bytes; nothing where it has another kind of key, or is none."""
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return b""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw) if isinstance(key, Ed25519PublicKey) else b""


class LineKeys(Guarded):
    """One party's keys for lines.

    Args:
        own: Its name.
        identity: Its identity key.
        roster: Public identity keys of all, the very dict that is filled in when the party has accepted them.

    Attributes:
        certificate: Its own, for the others.
    """

    def __init__(self, own: PartyName, identity: Ed25519PrivateKey, roster: Mapping[PartyName, bytes]) -> None:
        self._own, self._identity, self._roster = own, identity, roster
        self.certificate = certificate(identity)
        self._certificates: dict[PartyName, bytes] = {}
        self._contexts: dict[bool, ssl.SSLContext] = {}
        self._lock = threading.Lock()

    def learn(self, certificates: Mapping[PartyName, bytes]) -> None:
        """Keeps what the driver says are the others' certificates; none is believed that the roster does not confirm.

        Args:
            certificates: DER, by party.
        """
        with self._lock:
            self._certificates, self._contexts = dict(certificates), {}

    def calling(self, line: ssl.SSLSocket, party: PartyName) -> None:
        """Checks who answers.

        Raises:
            ProtocolError: It is not that party.
        """
        if not self.proves(line, party):
            raise ProtocolError(f"who answers there has not the key of {party!r} in this party's roster")

    def proves(self, line: ssl.SSLSocket, party: PartyName) -> bool:
        """Returns whether the other end has proved that it has a party's identity key."""
        # TLS has checked that it holds the private half of what it has shown, whatever that is; this is whose it is.
        shown = line.getpeercert(binary_form=True)
        return bool(shown) and key_of(shown or b"") == self._roster.get(party, b"-")

    def context(self, *, answering: bool) -> ssl.SSLContext:
        """Returns what a line is opened with.

        Args:
            answering: Whether at the end that is called.

        Raises:
            ProtocolError: The roster is not known yet, or a certificate is not of its key.
        """
        with self._lock:
            if answering not in self._contexts:
                self._contexts[answering] = self._made(answering)
            return self._contexts[answering]

    def _made(self, answering: bool) -> ssl.SSLContext:
        if not self._roster:
            raise ProtocolError(f"party {self._own!r} knows nobody's key yet")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if answering else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3  # in which nothing can be talked down
        context.check_hostname = False  # names of machines prove nothing here; the key is looked at instead
        context.verify_mode = ssl.CERT_REQUIRED
        if answering:
            context.num_tickets = 0  # whoever stole one could go on without the key
        self._show(context)
        trusted = [der for name, der in self._certificates.items() if self._confirmed(name, der)]
        if trusted:
            context.load_verify_locations(cadata=b"".join(trusted))
        return context

    def _confirmed(self, name: PartyName, der: bytes) -> bool:
        if name not in self._roster:
            return False
        if key_of(der) != self._roster[name]:
            found = fingerprint(key_of(der)) if key_of(der) else "no Ed25519 key"
            raise ProtocolError(
                f"party {self._own!r}: the certificate for lines to {name!r} is not of its key in the roster (found "
                f"{found}, expected {fingerprint(self._roster[name])}); somebody has put one of their own in its place"
            )
        return True

    def _show(self, context: ssl.SSLContext) -> None:
        """Has a context show this party's own certificate."""
        pem = x509.load_der_x509_certificate(self.certificate).public_bytes(Encoding.PEM)
        pem += self._identity.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        # The library reads files only. This one is in memory and has no name, so that the key is on no disk.
        descriptor = os.memfd_create("fedray-line")
        try:
            os.write(descriptor, pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
