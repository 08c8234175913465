# SPDX-License-Identifier: Apache-2.0
"""The certificates that the nodes of a cluster present to whoever calls them, and whether they have run out.

A node whose certificate has run out is given up by Ray within seconds, and Ray says nothing of certificates. Asks by a
TLS greeting, as a caller would. Does not know which node is whose.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from fedray.errors import PlanError
from fedray.runtime.nodes import certificates

_SECONDS = 5.0  # for a node to answer


@dataclass(frozen=True, slots=True)
class Presented:
    """A node's certificate.

    Attributes:
        name: The node's in it, as a command line takes it.
        ends: Until when it is good.
    """

    name: str
    ends: datetime

    def left(self, now: datetime | None = None) -> timedelta:
        """Returns how long it is good for; nothing or less where it has run out.

        Args:
            now: The time; None for that of this machine.
        """
        return self.ends - (datetime.now(UTC) if now is None else now)

    @property
    def until(self) -> str:
        """Until when it is good, for people."""
        return f"{self.ends:%Y-%m-%d %H:%M} UTC"


def presented(host: str, port: int, environment: Mapping[str, str]) -> Presented | None:
    """Returns the certificate that somebody presents who is called, good or run out.

    Args:
        host: Where.
        port: Where.
        environment: Ray's variables.

    Returns:
        It; None where this side uses none, nobody answers with one, or it is another authority's: then nothing in it
        is to be believed, and others tell what is wrong.
    """
    if environment.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # verified, one that has run out is not shown
    context.set_alpn_protocols(["h2"])
    try:
        context.load_cert_chain(environment["RAY_TLS_SERVER_CERT"], environment["RAY_TLS_SERVER_KEY"])
        with (
            socket.create_connection((host, port), _SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as line,
        ):
            found = x509.load_der_x509_certificate(line.getpeercert(binary_form=True) or b"")
        found.verify_directly_issued_by(_read(environment["RAY_TLS_CA_CERT"]))
    except (OSError, KeyError, ValueError, TypeError, InvalidSignature):  # an SSLError is an OSError
        return None
    return Presented(certificates.safe_name(found), found.not_valid_after_utc)


def check_own(environment: Mapping[str, str]) -> None:
    """Checks that this side's own certificate and its authority have not run out.

    Those who are called would only hang up, or say nothing.

    Args:
        environment: Ray's variables.

    Raises:
        PlanError: One has.
    """
    path, authority = environment["RAY_TLS_SERVER_CERT"], environment["RAY_TLS_CA_CERT"]
    try:
        node, ca = _read(path), _read(authority)
    except (OSError, ValueError):
        return  # whoever uses them says what is wrong
    now = datetime.now(UTC)
    if ca.not_valid_after_utc < now:
        raise PlanError(f"{authority} {certificates.ran_out(ca.not_valid_after_utc)}")
    if node.not_valid_after_utc < now:
        own = Presented(certificates.safe_name(node), node.not_valid_after_utc)
        raise PlanError(f"this machine's certificate, {path}, {said([own], os.path.dirname(path))}")


def said(ended: Sequence[Presented], there: str = "") -> str:
    """Returns that certificates have run out, and what to do, as the end of a sentence.

    Args:
        ended: The certificates.
        there: The folder of their node on this machine; empty where it is on another one.
    """
    when = " and ".join(dict.fromkeys(each.until for each in ended))
    return (
        f"ran out on {when} (this machine's clock says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC). {renewal(ended, there)}"
    )


def renewal(of: Sequence[Presented], there: str = "") -> str:
    """Returns how certificates are renewed; arguments as those of `said`."""
    names = dict.fromkeys(each.name for each in of)
    commands = "; ".join(f"fedray tls issue {name} --renew --ca DIR --out OUT" for name in names)
    place = f"in {there} on this machine" if there else "of its node, on the node's machine"
    return (
        f"On the machine that has {certificates.CA_KEY}: {commands} (OUT is the folder that it was issued to); copy "
        f"the files in OUT over those {place}, and start that node again (deploy/README.md, Renewing a certificate)"
    )


def check_presented(places: Mapping[str, tuple[str, int]], environment: Mapping[str, str]) -> list[str]:
    """Checks that no node's certificate has run out.

    Args:
        places: Whose node, as text, and where it is called.
        environment: Ray's variables.

    Returns:
        A line for each that does within a month.

    Raises:
        PlanError: Some have; all of them are named.
    """
    found = {whose: presented(*place, environment) for whose, place in places.items()}
    shown = {whose: each for whose, each in found.items() if each is not None}
    ended = {whose: each for whose, each in shown.items() if each.left() <= timedelta()}
    if ended:
        whose = " and ".join(f"that of {one} at {places[one][0]}" for one in ended).removeprefix("that ")
        raise PlanError(f"the certificate {whose} {said(list(ended.values()))}")
    return [
        f"the certificate of {whose} at {places[whose][0]} runs out on {each.until}, and its node is lost then. "
        f"{renewal([each])}"
        for whose, each in shown.items()
        if each.left() < certificates.SOON
    ]


def _read(path: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(path).read_bytes())
