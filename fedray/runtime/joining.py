# SPDX-License-Identifier: Apache-2.0
"""Where a cluster is that a session joins, with what it is called, and what stands in the way.

Imports no Ray. It looks before Ray does, since Ray waits for minutes for what is not there, and says little.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from fedray.errors import PlanError
from fedray.runtime.environment import LOOPBACK
from fedray.runtime.nodes.presented import check_own, presented, said
from fedray.runtime.nodes.record import Record, records
from fedray.runtime.own_nodes import Node, listed
from fedray.types import PartyName

_KNOCK_SECONDS = 5.0  # for a machine to answer; Ray itself would go on for minutes where nobody does
_CLIENT = "ray://"

_SAY_SECURE = (
    "On a machine with a node of 'fedray head start' or 'fedray party start' both are taken from there. Elsewhere set "
    "RAY_AUTH_MODE=token, RAY_AUTH_TOKEN_PATH, RAY_USE_TLS=1, RAY_TLS_CA_CERT, RAY_TLS_SERVER_CERT and "
    "RAY_TLS_SERVER_KEY before the program starts. For trying out: sf.init(..., insecure=True)"
)


@dataclass(frozen=True, slots=True)
class Entrance:
    """The way into a cluster.

    Attributes:
        address: `"host:port"` or `"ray://host:port"`.
        variables: What Ray is told by variables, where this machine has a node of that cluster and the user has said
            nothing else.
    """

    address: str
    variables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, address: str, environment: Mapping[str, str]) -> Entrance:
        """Returns the way to an address.

        Args:
            address: As in `fedray.init`; `"auto"` is RAY_ADDRESS, else the cluster of the node that this user has
                started on this machine. Never another one: Ray by itself would take any whose processes it sees.
            environment: Variables of this process.

        Raises:
            PlanError: `"auto"` stands for none, or for several.
        """
        named = environment.get("RAY_ADDRESS", "") if address == "auto" else address
        running = [record for record in records() if record.runs]
        if not named or named == "auto":
            named = _only(running)
        return cls(named, _variables(named, running, environment))

    @property
    def by_client(self) -> bool:
        """Whether the driver stays outside the cluster."""
        return self.address.startswith(_CLIENT)

    @property
    def host(self) -> str:
        """The machine that is called."""
        return self.address.removeprefix(_CLIENT).rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port that is called; 0 where the address names none."""
        port = self.address.rpartition(":")[2]
        return int(port) if port.isdigit() else 0

    def knock(self, environment: Mapping[str, str]) -> None:
        """Checks that somebody answers there, and with certificates where this side has some, or none where not.

        Args:
            environment: Ray's variables for it.

        Raises:
            OSError: Nobody answers.
            PlanError: The certificates do not fit, with what is wrong.
        """
        if not self.host or not self.port:
            return
        socket.create_connection((self.host, self.port), _KNOCK_SECONDS).close()
        if _on(environment, "RAY_USE_TLS"):
            _shake_hands(self, environment)
        elif _speaks_tls(self):
            raise PlanError(
                f"the cluster at {self.address} asks for certificates, and this driver has none. {_SAY_SECURE}"
            )


def check_secure(entrance: Entrance, nodes: Sequence[Node], environment: Mapping[str, str], insecure: bool) -> None:
    """Checks that nothing travels to other machines without token and TLS.

    Args:
        entrance: The way into the cluster.
        nodes: Its nodes, as far as they are known.
        environment: Ray's variables for it.
        insecure: Whether the user wants it all the same.

    Raises:
        PlanError: Something would.
    """
    token = environment.get("RAY_AUTH_MODE", "").lower() == "token"
    if insecure or (token and _on(environment, "RAY_USE_TLS")):
        return
    elsewhere = sorted({node.address for node in nodes if not local(node.address)})
    if entrance.host and not local(entrance.host) and _known(entrance.host):
        elsewhere = [entrance.host]
    if elsewhere:
        lacking = "TLS" if token else "a token" if _on(environment, "RAY_USE_TLS") else "a token and TLS"
        raise PlanError(
            f"the cluster at {entrance.address} reaches to other machines ({', '.join(elsewhere)}) without {lacking}: "
            f"whoever is on the network could read all data, or run code in the parties. {_SAY_SECURE}"
        )


def check_member(entrance: Entrance, nodes: Sequence[Node]) -> None:
    """Checks that this machine is a node of the cluster: Ray would look for one for a minute, and call it unreachable.

    Raises:
        PlanError: It is none.
    """
    if nodes and not any(local(node.address) for node in nodes):
        raise PlanError(
            f"the cluster at {entrance.address} is there ({listed(nodes)}), and this machine is none of its nodes. "
            f"Start one here ('fedray party start'), or stay outside with address='ray://{entrance.host}:10001'"
        )


def check_answers(own: Mapping[PartyName, Sequence[Node]]) -> None:
    """Checks that each party's node can be called from here, as every node of a cluster has to be from every other.

    Ray has a node that is gone on its list for a minute, and would wait for it without a word.

    Args:
        own: Each party's nodes, the likeliest first.

    Raises:
        PlanError: One cannot.
    """
    for party, nodes in own.items():
        node = nodes[0]
        if not node.ports or local(node.address):
            continue
        try:
            socket.create_connection((node.address, node.ports[0]), _KNOCK_SECONDS).close()
        except OSError as error:
            raise PlanError(
                f"party {party!r} has a node at {node.address}, and {node.address}:{node.ports[0]} does not answer "
                f"({error.strerror or error}): it is gone, which Ray notices after a minute, or a firewall stands "
                f"between. See 'fedray status' there and 'fedray doctor' here"
            ) from None


def local(host: str) -> bool:
    """Returns whether an address is this machine's own."""
    try:
        family, *_, there = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as tried:
            tried.bind(there)  # which only one's own address allows
    except OSError:
        return False
    return True


def _number(host: str) -> str:
    """Returns the address of a host, or what was given where it has none."""
    try:
        return str(socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)[0][4][0])
    except OSError:
        return host


def _known(host: str) -> bool:
    """Returns whether a host has an address; of one that has none, who knocks there tells."""
    try:
        socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    return True


def _only(running: Sequence[Record]) -> str:
    clusters = sorted({record.address for record in running})
    if len(clusters) == 1:
        return clusters[0]
    if clusters:
        raise PlanError(
            f"address='auto': your nodes here belong to several clusters; name one of {', '.join(clusters)}"
        )
    raise PlanError(
        "address='auto': no node that you have started runs on this machine. Start one with 'fedray head start' or "
        "'fedray party start', set RAY_ADDRESS, or name the address; a cluster of somebody else's is never joined"
    )


def _variables(address: str, running: Sequence[Record], environment: Mapping[str, str]) -> dict[str, str]:
    """Returns token and certificates of this machine's node of a cluster, as far as the user says nothing else."""
    asked = Entrance(address)
    for record in running:
        there = Entrance(record.address)
        # By ray:// one calls another port of the same machine; and a machine may be called by its name.
        same_port = asked.by_client or asked.port == there.port
        if same_port and _number(asked.host) == _number(there.host):
            found = record.security.variables()
            if record.ip.startswith("127."):
                # Else Ray looks for its node at this machine's address in the network.
                found[LOOPBACK] = "0"
            # All or nothing of each: a token of the user's beside a file of ours would be two tokens.
            if "RAY_AUTH_MODE" in environment:
                found = {name: value for name, value in found.items() if not name.startswith("RAY_AUTH_")}
            if "RAY_USE_TLS" in environment:
                found = {name: value for name, value in found.items() if "TLS" not in name}
            return found
    return {}


def _on(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "0").lower() in ("1", "true")


def _shake_hands(entrance: Entrance, environment: Mapping[str, str]) -> None:
    paths = [environment.get(f"RAY_TLS_{name}", "") for name in ("CA_CERT", "SERVER_CERT", "SERVER_KEY")]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise PlanError(f"RAY_USE_TLS is on, and there is no certificate file {missing[0]!r}. {_SAY_SECURE}")
    check_own(environment)
    try:
        context = ssl.create_default_context(cafile=paths[0])
        context.load_cert_chain(paths[1], paths[2])
    except (ssl.SSLError, OSError) as error:
        raise PlanError(f"the certificates in {os.path.dirname(paths[1])} cannot be used: {error}") from None
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((entrance.host, entrance.port), _KNOCK_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=entrance.host) as line,
        ):
            # With TLS 1.3 the other side looks at our certificate only now. Then it hangs up, or begins to speak.
            line.recv(1)
    except TimeoutError:
        raise TimeoutError(
            f"{entrance.address}: no answer within {_KNOCK_SECONDS:.0f} s while certificates were exchanged"
        ) from None
    except ssl.SSLCertVerificationError as error:
        theirs = presented(entrance.host, entrance.port, environment)
        if theirs is not None and theirs.left() <= timedelta():
            raise PlanError(f"the certificate of the head at {entrance.address} {said([theirs])}") from None
        raise PlanError(
            f"the certificate of {entrance.address} does not pass: {error.verify_message}. Its clock, this machine's, "
            f"the authority in {paths[0]} and the names in the certificate are what can be wrong"
        ) from None
    except ssl.SSLError as error:
        if "WRONG_VERSION" in str(error) or "UNEXPECTED_EOF" in str(error) or "RECORD_LAYER" in str(error):
            raise PlanError(
                f"the cluster at {entrance.address} was started without TLS, and this driver has RAY_USE_TLS on; start "
                "its nodes with --tls"
            ) from None
        raise PlanError(
            f"{entrance.address} does not take this machine's certificate ({error.reason or error}); let the cluster's "
            "own authority issue one: fedray tls issue"
        ) from None
    except ConnectionError:
        raise PlanError(
            f"{entrance.address} hung up while certificates were exchanged: it was started without TLS, or does not "
            "take this machine's certificate"
        ) from None


def _speaks_tls(entrance: Entrance) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((entrance.host, entrance.port), _KNOCK_SECONDS) as plain:
            plain.settimeout(1.0)
            context.wrap_socket(plain, server_hostname=entrance.host).close()
    except (OSError, ValueError):  # an SSLError is an OSError
        return False
    return True
