# SPDX-License-Identifier: Apache-2.0
"""`fedray head`, `fedray party`, `fedray status`, `fedray stop`: the nodes of a cluster on this machine.

They run Ray's own executable, of the environment that fedray is installed in, and import no Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from fedray.commands.party_toml import TEMPLATE
from fedray.errors import PlanError
from fedray.party.house import in_force
from fedray.party.house.turns import HOME, home
from fedray.party.keys.credentials import Credentials
from fedray.party.keys.key_folder import ROSTER, new_identity
from fedray.protocol.crypto.names import check_name
from fedray.runtime.joining import Entrance
from fedray.runtime.nodes import certificates, ports, service, token
from fedray.runtime.nodes.launch import Launch, Security, on_loopback
from fedray.runtime.nodes.ports import Ports
from fedray.runtime.nodes.record import Record, folder_of, records
from fedray.types import PartyConfig, PartyName

_HEAD = "head"
_DEFAULTS = {"port": ports.HEAD, "client_port": ports.CLIENT, "ports_from": ports.FIRST}
_ANYWHERE = "192.0.2.1"  # of a network that is nowhere (RFC 5737): to learn one's own address; nothing is sent there


def add_arguments(commands: Any) -> None:
    """Adds the commands to the command line.

    Args:
        commands: What `argparse` calls the sub-parsers' action.
    """
    head = commands.add_parser("head", help="start the head of a cluster on this machine").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    start = head.add_parser(
        "start",
        help="start it",
        description="Starts the head of a cluster: the node that the parties' nodes call. Prints which ports a "
        "firewall has to let in.",
    )
    start.add_argument("--party", metavar="NAME", help="let it be the node of a party as well, e.g. of the server")
    start.add_argument("--port", type=int, default=ports.HEAD, metavar="PORT", help="of the head (%(default)s)")
    start.add_argument(
        "--client-port", type=int, default=ports.CLIENT, metavar="PORT", help="for ray:// drivers (%(default)s)"
    )
    start.add_argument(
        "--autoscaling-config", type=Path, metavar="FILE", help="where Ray's cluster launcher starts it: its file"
    )
    _add_shared(start)
    party = commands.add_parser("party", help="set up and start a party's node on this machine").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    init = party.add_parser(
        "init",
        help="write a party's party.toml and make its key",
        description="Writes a commented party.toml for the party's operator, and makes its identity key in a folder "
        "beside it. Nothing that is there is overwritten.",
    )
    init.add_argument("name", metavar="NAME", help="the party's name, as in sf.init")
    init.add_argument("--dir", type=Path, metavar="DIR", help="folder for both (~/.fedray/parties/NAME)")
    start = party.add_parser("start", help="start its node", description="Starts a party's node and joins a cluster.")
    start.add_argument("name", metavar="NAME", help="the party's name, as in sf.init")
    start.add_argument("--head", required=True, metavar="HOST:PORT", help="where the cluster's head is")
    _add_shared(start)
    commands.add_parser("status", help="show the nodes on this machine that you have started")
    stop = commands.add_parser(
        "stop",
        help="end a node on this machine",
        description="Ends the processes of a node that you have started on this machine, and no others.",
    )
    stop.add_argument("name", nargs="?", metavar="NAME", help="which one, where there are several")


def _add_shared(start: argparse.ArgumentParser) -> None:
    start.add_argument("--config", type=Path, metavar="FILE", help="the party's party.toml, where it lies elsewhere")
    start.add_argument("--ip", metavar="ADDRESS", help="this node's own address, where the machine has several")
    start.add_argument(
        "--ports-from",
        type=int,
        default=ports.FIRST,
        metavar="PORT",
        help=f"first of the node's {ports.WIDTH} ports (%(default)s); a second node on one address needs another",
    )
    start.add_argument("--token", type=Path, metavar="FILE", help="the cluster's token (~/.fedray/token)")
    start.add_argument("--tls", type=Path, metavar="DIR", help="the node's certificate, from 'fedray tls issue'")
    start.add_argument(
        "--insecure",
        action="store_true",
        help="no certificate: whoever is on the network reads the token and all data. For trying out",
    )
    start.add_argument("--cpus", type=int, metavar="N", help="processors that are offered; all by default")
    start.add_argument("--store-mb", type=int, metavar="N", help="size of Ray's shared memory in MB")
    start.add_argument("--foreground", action="store_true", help="stay, for a service manager or a container")


def run(options: argparse.Namespace) -> int:
    """Runs one of the commands and returns its exit code.

    Raises:
        PlanError: Something is not as it should be; the message says what to do.
        OSError: A file cannot be written.
    """
    if options.command == "status":
        return _status()
    if options.command == "stop":
        return _stop(options.name)
    if options.action == "init":
        return _init(options.name, options.dir or _party_folder(options.name))
    if options.command == "head":
        return _start(options, options.party, None)
    return _start(options, options.name, _checked_head(options.head))


def _init(name: PartyName, folder: Path) -> int:
    check_name(name)
    path = folder / in_force.FILE
    if os.path.lexists(path):
        raise PlanError(f"{path} is there already; nothing is overwritten. Take another --dir")
    # The key first: it makes the folder, and refuses one that others may change.
    public = new_identity(folder / "keys", name)
    # JSON writes text as TOML does.
    path.write_text(TEMPLATE.replace('"NAME"', json.dumps(name, ensure_ascii=False)), encoding="utf-8")
    path.chmod(0o644)
    in_force.read(path)
    print(f"wrote {path}: look through it, what it says the driver cannot change")
    print(
        f"made {name}'s key in {folder / 'keys'}; give {public} to every other party, and build the roster of theirs:"
    )
    print(f"  fedray keys roster OTHER.pub ... --dir {folder / 'keys'}")
    return 0


def _start(options: argparse.Namespace, party: PartyName | None, head: str | None) -> int:
    launch = _launch(options, party, head)
    if options.foreground:
        signal.signal(signal.SIGTERM, _ended)
    began = time.monotonic()
    service.check_ports(launch)
    node = service.start(launch, _ray())
    try:
        _tell(launch, began)
        return service.stay(node) if options.foreground else 0
    except SystemExit:  # told to end before it stayed: then nobody else would end the node
        service.end(node.record)
        node.record.erase()
        raise


def _tell(launch: Launch, began: float) -> None:
    kind = "head" if launch.head is None else f"node of party {launch.party!r}"
    print(f"{kind} runs at {launch.ip}, cluster {launch.address} (after {time.monotonic() - began:.0f} s)")
    print(f"\na firewall has to let in at {launch.ip}:\n{ports.table(launch.ports.firewall())}")
    if launch.head is None:
        print(
            f"\nthe cluster's token is in {launch.security.token}; copy it to every party's machine, then start there:"
        )
        # As this one was started: a node with a certificate takes no calls of one without.
        open_to_others = "" if on_loopback(launch.ip) else " --insecure"
        guarded = open_to_others if launch.security.tls is None else " --tls DIR"
        print(f"  fedray party start NAME --head {launch.address}{guarded}")
    print(f"\n'fedray stop {launch.name}' ends it; Ray's files are in {launch.folder.parent}", flush=True)


def _ended(*_: object) -> None:
    raise SystemExit(0)


def _launch(options: argparse.Namespace, party: PartyName | None, head: str | None) -> Launch:
    """Returns what is to be started, after a look at everything that would fail later and less clearly."""
    name = _HEAD if head is None else str(party)
    for record in records():
        if record.name == name and record.runs:
            raise PlanError(f"node {name!r} runs already on this machine, since {record.since}; fedray stop {name}")
    party_file, keys = (None, None) if party is None else _party(party, options.config)
    ip = options.ip or _own_address(head)
    security = _security(options, ip, head)
    _check_place(ip, head)
    chosen = Ports(
        options.ports_from, options.port if head is None else None, getattr(options, "client_port", ports.CLIENT)
    )
    return Launch(
        name=name,
        party=party,
        ip=ip,
        head=head,
        ports=chosen,
        folder=service.prepare(name),
        started=time.time_ns() // 1_000_000,
        security=security,
        party_file=party_file,
        keys=keys,
        # A head that is nobody's node has no work for its processors.
        cpus=0 if party is None and options.cpus is None else options.cpus,
        store_bytes=None if options.store_mb is None else options.store_mb << 20,
        autoscaling=getattr(options, "autoscaling_config", None),
        asked=_asked(options),
    )


def _asked(options: argparse.Namespace) -> str:
    """Returns the command line that was given, so that it does the same in whatever folder it is given again."""
    line = ["fedray", options.command, options.action, *([options.name] if options.command == "party" else [])]
    for name, value in vars(options).items():
        if name in ("command", "action", "name") or value is None or value is False or value == _DEFAULTS.get(name):
            continue
        given = [] if value is True else [str(value.expanduser().absolute() if isinstance(value, Path) else value)]
        line += [f"--{name.replace('_', '-')}", *given]
    # The variable too: without it the command would look for everything in another folder.
    home_given = f"{HOME}={shlex.quote(os.environ[HOME])} " if os.environ.get(HOME) else ""
    return home_given + shlex.join(line)


def _party(name: PartyName, config: Path | None) -> tuple[Path, Path | None]:
    """Returns a party's file and its key folder, after a look at both."""
    check_name(name)
    path = (config or _party_folder(name) / in_force.FILE).expanduser().absolute()
    if not os.path.lexists(path):
        raise PlanError(f"{path} is not there; 'fedray party init {name}' writes it, or name another one with --config")
    found = in_force.InForce.of(PartyConfig(name, (name,), 0), {in_force.VARIABLE: str(path)})
    if found.rules is None or found.rules.keys is None:
        return path, None
    roster = Path(os.path.expanduser(found.rules.keys)) / ROSTER
    if not os.path.lexists(roster):
        raise PlanError(
            f"{roster} is not there; build it from the other parties' .pub files: fedray keys roster OTHER.pub ... "
            f"--dir {roster.parent}"
        )
    # As the party itself will look at it, which would tell only the driver. A start that is refused, and that systemd
    # tries every few seconds, must not fill the ledger with files of sessions that never were.
    Credentials.of(found.config, found.environment, patience=0.0, looking=True).close()
    return path, Path(os.path.expanduser(found.rules.keys))


def _security(options: argparse.Namespace, ip: str, head: str | None) -> Security:
    file = (options.token or home() / "token").expanduser().absolute()
    if head is not None:
        token.check(file)
    security = _certified(options, ip, file)
    if head is None:
        # Last: a start that is refused leaves no token of a cluster that never was.
        token.made(file)
        token.check(file)
    elif security.tls is not None:
        # Ray itself would try for minutes, and say nothing of certificates.
        Entrance(head).knock(security.variables())
    return security


def _certified(options: argparse.Namespace, ip: str, file: Path) -> Security:
    if options.tls is None:
        if not on_loopback(ip) and not options.insecure:
            raise PlanError(
                f"{ip} can be called from other machines, and without certificates whoever is on the network reads the "
                "token and all data. Make them with 'fedray tls init' and 'fedray tls issue' and name the folder with "
                "--tls DIR; or --ip 127.0.0.1 for a head that this machine alone reaches; or --insecure for trying out"
            )
        return Security(file, None)
    folder = options.tls.expanduser().absolute()
    certificates.check(folder, ip)
    return Security(file, folder)


def _check_place(ip: str, head: str | None) -> None:
    """Refuses a second node on the loopback address, which Ray refuses in words about other systems.

    Raises:
        PlanError: It would be one.
    """
    if head is not None and on_loopback(ip):
        raise PlanError(
            f"{ip}: on the loopback address Ray keeps one node, the head's. Start head and party with an address of "
            "this machine in a network (--ip ADDRESS, with --tls, or --insecure for trying out), or try several "
            "parties on one machine with sf.init([...], address='local')"
        )


def _status() -> int:
    found = records()
    if not found:
        print(f"no node was started on this machine by you{_startable()}")
    for record in found:
        if record.runs:
            guarded = "token and TLS" if record.tls else "token, no TLS"
            print(f"{record.name}: runs at {record.ip}, cluster {record.address}, {guarded}, since {record.since}")
        else:
            log = folder_of(record.name) / service.LOG
            print(f"{record.name}: has ended (it was started {record.since}); its log is {log}")
        for line in _told(record):
            print(f"  {line}")
    return 0 if any(record.runs for record in found) else 1


def _told(record: Record) -> list[str]:
    """Returns what stands in the way of a node, and what starts one that has ended."""
    lines = []
    if record.tls:
        try:
            certificates.check(Path(record.tls), record.ip)
        except (PlanError, OSError) as error:
            lines.append(f"its certificate: {error}")
    if not record.runs and record.command:
        lines.append(f"start it again: {record.command}")
    return lines


def _startable() -> str:
    """Returns how the nodes of the parties that have their files here are started, as text."""
    above = home() / "parties"
    names = sorted(path.parent.name for path in above.glob(f"*/{in_force.FILE}")) if above.is_dir() else []
    return "".join(f"; to start {name}'s: fedray party start {name} --head HOST:PORT --tls DIR" for name in names)


def _stop(name: str | None) -> int:
    found = records()
    known = ", ".join(record.name for record in found) or "none"
    chosen = [record for record in found if name in (None, record.name)]
    if name is None and len(chosen) > 1:
        raise PlanError(f"several nodes are on this machine: {known}; name one: fedray stop NAME")
    if not chosen:
        raise PlanError(
            f"no node{'' if name is None else f' {name!r}'} was started on this machine by you; there are: {known}"
        )
    ran = chosen[0].runs
    service.end(chosen[0])
    chosen[0].erase()
    print(f"{chosen[0].name} {'has been stopped' if ran else 'had ended already'}")
    return 0


def _party_folder(name: PartyName) -> Path:
    check_name(name)
    return home() / "parties" / name


def _checked_head(address: str) -> str:
    host, colon, port = address.rpartition(":")
    if not host or not colon or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise PlanError(f"--head: expected HOST:PORT, such as 10.0.0.1:{ports.HEAD}, found {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), 5.0).close()
    except OSError as error:
        raise PlanError(
            f"--head: nobody answers at {address} ({error.strerror or error}); is 'fedray head start' running there, "
            f"and does the firewall let port {port} in?"
        ) from None
    return address


def _own_address(head: str | None) -> str:
    """Returns the address of this machine on the way to the head, or to everywhere."""
    host = _ANYWHERE if head is None else head.rpartition(":")[0].strip("[]")
    try:
        family, *_, there = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as way:
            way.connect(there)  # nothing is sent: the kernel looks up which way it would go
            return str(way.getsockname()[0])
    except OSError:
        raise PlanError("this machine has no way to other machines; give its own address with --ip ADDRESS") from None


def _ray() -> str:
    # Beside the Python that runs this: another Ray would be refused by the cluster.
    ray = Path(sys.executable).parent / "ray"
    if not ray.exists():
        raise PlanError(f"no Ray at {ray}; install fedray into the environment from which this command runs")
    return str(ray)
