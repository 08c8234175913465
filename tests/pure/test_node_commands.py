# SPDX-License-Identifier: Apache-2.0
"""`fedray head`, `party`, `status` and `stop`, with a program in Ray's place that only says that it has started."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from free_ports import free_block, free_ports
from pure.tls_kit import issue_old

from fedray.commands import cli, nodes
from fedray.commands.cli import main
from fedray.party.house import in_force
from fedray.party.house.turns import HOME
from fedray.runtime import leftovers
from fedray.runtime.nodes import certificates, service, token
from fedray.runtime.nodes.ports import WIDTH, Ports
from fedray.runtime.nodes.record import Record, records

RAY = """#!/bin/sh
{first}
echo "$@" > "{folder}/line"; env > "{folder}/variables"
echo "2026-01-01 00:00:00,000 SUCC scripts.py:1 -- Ray runtime started."
sleep 60 & exec sleep 60
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes this process one on a machine without nodes, with a Ray that only says that it has started."""
    home = Path(f"/tmp/fd{os.getpid()}")  # short, as it has to be
    home.mkdir(mode=0o700)
    monkeypatch.setenv(HOME, str(home))
    monkeypatch.delenv("FEDRAY_KEYS", raising=False)
    monkeypatch.setattr(nodes, "_ray", lambda: str(tmp_path / "ray"))
    monkeypatch.setattr(leftovers, "_PEACE_SECONDS", 0.2)
    says(tmp_path, "")
    yield home
    for record in records():
        service.end(record)
    shutil.rmtree(home)


def says(folder: Path, first: str) -> None:
    (folder / "ray").write_text(RAY.format(first=first, folder=folder))
    (folder / "ray").chmod(0o755)


def start(*more: str) -> int:
    return main(["head", "start", "--ip", "127.0.0.1", "--ports-from", str(block()), *ports(), *more])


def block() -> int:
    return free_block(range(21_000, 32_000, WIDTH), len(Ports().single))


def ports() -> list[str]:
    head, client = map(str, free_ports(2, range(11_000, 20_000)))  # in nobody's block
    return ["--port", head, "--client-port", client]


def test_a_head_is_started_shown_and_ended_with_all_its_processes(machine, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.9.9.9:1")
    assert main(["status"]) == 1
    assert "no node was started on this machine by you" in capsys.readouterr().out
    assert start() == 0
    said = capsys.readouterr().out
    assert "head runs at 127.0.0.1" in said
    assert "TCP port" in said
    assert f"the cluster's token is in {machine}/token" in said
    assert (machine / "token").stat().st_mode & 0o777 == 0o600
    # A variable of Ray's that something else has left would make this node unlike the others.
    assert "RAY_ADDRESS" not in (tmp_path / "variables").read_text()
    assert (machine / "token").read_text() not in (tmp_path / "variables").read_text()
    assert "--num-cpus=0" in (tmp_path / "line").read_text()
    assert main(["status"]) == 0
    assert "head: runs at 127.0.0.1" in capsys.readouterr().out
    assert start() == 1
    assert "node 'head' runs already on this machine" in capsys.readouterr().err
    record = records()[0]
    assert len(leftovers.processes(record.mark, "/nowhere")) == 2
    assert main(["stop"]) == 0
    assert "head has been stopped" in capsys.readouterr().out
    assert leftovers.processes(record.mark, "/nowhere") == []
    assert main(["stop"]) == 1
    assert "no node was started on this machine by you; there are: none" in capsys.readouterr().err
    assert main(["stop", "bob"]) == 1
    assert "no node 'bob' was started on this machine by you" in capsys.readouterr().err


def test_a_node_that_has_ended_by_itself_is_shown_as_that(machine, capsys) -> None:
    assert start() == 0
    service.end(records()[0])
    assert main(["status"]) == 1
    folder = machine / "nodes" / "head"
    assert (
        f"head: has ended (it was started {records()[0].since}); its log is {folder}/ray.log" in capsys.readouterr().out
    )
    assert main(["stop", "head"]) == 0
    assert "head had ended already" in capsys.readouterr().out


def test_status_has_the_command_that_starts_a_node_again(machine, tmp_path, capsys, monkeypatch) -> None:
    """Given again, in another folder, it starts the same."""
    monkeypatch.chdir(tmp_path)
    for each in (["init", "--ca"], ["issue", "head", "--out", "my tls", "--ca"]):
        assert main(["tls", *each, "ca"]) == 0
    assert start("--tls", "my tls", "--cpus", "0", "--token", "t") == 0
    first = (tmp_path / "line").read_text()
    capsys.readouterr()
    assert main(["status"]) == 0
    assert "start it again" not in capsys.readouterr().out
    service.end(records()[0])
    assert main(["status"]) == 1
    (line,) = [each for each in capsys.readouterr().out.splitlines() if "start it again: " in each]
    named, *command = shlex.split(line.partition("start it again: ")[2])
    assert named == f"{HOME}={machine}"
    assert command[:3] == ["fedray", "head", "start"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(command[1:]) == 0
    again = (tmp_path / "line").read_text()
    assert [word for word in again.split() if "fedray-started" not in word] == [
        word for word in first.split() if "fedray-started" not in word
    ]
    assert records()[0].tls == str(tmp_path / "my tls")


def test_what_is_so_by_itself_is_no_part_of_the_command(monkeypatch) -> None:
    monkeypatch.delenv(HOME, raising=False)
    for line in (
        "fedray head start",
        "fedray party start alice --head 10.0.0.1:6379 --ip 10.0.0.2 --insecure --cpus 0",
    ):
        assert nodes._asked(cli._parser().parse_args(line.split()[1:])) == line


def test_status_says_that_a_certificate_has_run_out_and_how_a_party_s_node_is_started(machine, capsys) -> None:
    assert main(["party", "init", "alice"]) == 0
    capsys.readouterr()
    assert main(["status"]) == 1
    assert "by you; to start alice's: fedray party start alice --head HOST:PORT --tls DIR" in capsys.readouterr().out
    certificates.make_authority(machine / "ca")
    certificates.issue(machine / "ca", machine / "tls", "head", [])
    assert start("--tls", str(machine / "tls")) == 0
    shutil.rmtree(machine / "tls")
    issue_old(machine / "ca", machine / "tls", "head", "127.0.0.1")
    capsys.readouterr()
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"\n  its certificate: .*/node\.crt ran out on 20.*: fedray tls issue head", said)


def test_the_logs_of_the_last_run_stay_and_nothing_else_of_it(machine) -> None:
    for run in ("first", "second"):
        folder = service.prepare("alice").parent
        (folder / "r" / f"session_{run}" / "logs").mkdir(parents=True)
        (folder / "r" / f"session_{run}" / "logs" / run).touch()
        (folder / "r" / "session_latest").unlink(missing_ok=True)
        (folder / "r" / "session_latest").symlink_to(folder / "r" / f"session_{run}")
        (folder / "r" / "spilled").touch()
        (folder / "ray.log").write_text(run)
    service.prepare("alice")
    assert (folder / "ray.log.last").read_text() == "second"
    assert [path.name for path in (folder / "logs.last").iterdir()] == ["second"]
    assert sorted(path.name for path in folder.iterdir()) == ["logs.last", "ray.log.last"]


def test_a_party_s_node(machine, tmp_path, capsys, monkeypatch) -> None:
    """Its file and keys are looked at before anything starts, as the party will look at them."""
    listener = socket.create_server(("127.0.0.1", 0))
    head = f"127.0.0.1:{listener.getsockname()[1]}"
    line = ["party", "start", "alice", "--head", head, "--ip", "127.0.0.1", "--ports-from", str(block())]
    folder = machine / "parties" / "alice"
    for prepare, said in (
        (lambda: None, "'fedray party init alice' writes it"),
        (lambda: main(["party", "init", "alice"]), "roster.json is not there; build it"),
        (lambda: main(["keys", "roster", f"{folder}/keys/alice.pub", "--dir", f"{folder}/keys"]), "no token at"),
        (lambda: (machine / "token").write_text("short"), "has mode 644"),
        (lambda: (machine / "token").chmod(0o600), "holds no token"),
    ):
        prepare()
        assert main(line) == 1
        assert said in capsys.readouterr().err
    (machine / "token").write_text("a" * 64)
    assert main(line) == 1
    assert "on the loopback address Ray keeps one node, the head's" in capsys.readouterr().err
    monkeypatch.setattr(nodes, "_check_place", lambda *_: None)  # this Ray has no such rule
    assert not list((folder / "keys").glob("ledger/*")), "a start that is refused is no time that the party took part"
    assert main(line) == 0
    assert not list((folder / "keys").glob("ledger/*")), "its process begins the file, when there is a session"
    variables = (tmp_path / "variables").read_text().splitlines()
    assert f"FEDRAY_PARTY={folder}/party.toml" in variables
    assert f"FEDRAY_KEYS={folder}/keys" in variables
    assert f"--address={head}" in (tmp_path / "line").read_text()
    capsys.readouterr()
    assert main(["party", "init", "alice"]) == 1
    assert "is there already; nothing is overwritten" in capsys.readouterr().err
    listener.close()


def test_another_party_s_file_or_keys(machine, capsys) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    head = f"127.0.0.1:{listener.getsockname()[1]}"
    for name in ("alice", "bob"):
        keys = machine / "parties" / name / "keys"
        assert main(["party", "init", name]) == 0
        assert main(["keys", "roster", f"{keys}/{name}.pub", "--dir", str(keys)]) == 0
    line = ["party", "start", "alice", "--head", head, "--ip", "127.0.0.1"]
    capsys.readouterr()
    assert main([*line, "--config", str(machine / "parties/bob/party.toml")]) == 1
    assert "this machine's party is 'bob'" in capsys.readouterr().err
    path = machine / "parties" / "alice" / in_force.FILE
    path.write_text(path.read_text().replace('keys = "keys"', 'keys = "../bob/keys"'))
    assert main(line) == 1
    assert "roster.json does not name this party" in capsys.readouterr().err
    path.write_text(path.read_text().replace("egress", "egres", 1).replace('egress = "strict"', 'egres = "strict"'))
    assert main(line) == 1
    assert "has no setting 'egres'" in capsys.readouterr().err
    listener.close()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--head", "nonsense"], "--head: expected HOST:PORT, such as 10.0.0.1:6379, found 'nonsense'"),
        (["--head", "127.0.0.1:1"], "--head: nobody answers at 127.0.0.1:1 (Connection refused)"),
        (["--head", "no.such.host.invalid:6379"], "--head: nobody answers at no.such.host.invalid:6379"),
    ],
)
def test_a_head_that_is_not_there(machine, capsys, more, said) -> None:
    assert main(["party", "start", "alice", *more]) == 1
    assert said in capsys.readouterr().err


def test_a_head_that_was_started_without_tls(machine, capsys) -> None:
    for each in (["init", "--ca"], ["issue", "alice", "--out", f"{machine}/tls", "--ca"]):
        assert main(["tls", *each, f"{machine}/ca"]) == 0
    keys = machine / "parties" / "alice" / "keys"
    assert main(["party", "init", "alice"]) == 0
    assert main(["keys", "roster", f"{keys}/alice.pub", "--dir", str(keys)]) == 0
    token.made(machine / "token")
    with socket.create_server(("127.0.0.1", 0)) as head:
        threading.Thread(target=answer_in_plain_text, args=(head,), daemon=True).start()
        line = ["party", "start", "alice", "--ip", "127.0.0.1", "--tls", f"{machine}/tls"]
        assert main([*line, "--head", f"127.0.0.1:{head.getsockname()[1]}"]) == 1
    assert "was started without TLS" in capsys.readouterr().err


def answer_in_plain_text(head: socket.socket) -> None:
    for _ in range(3):  # the first two calls only knock
        line, _ = head.accept()
        line.settimeout(5)
        if line.recv(100):
            line.sendall(b"HTTP/1.1 400 what is that?\r\n\r\n")
        line.close()


def test_a_network_asks_for_certificates_and_an_address_has_to_be_one_s_own(machine, capsys) -> None:
    for more, said in (
        (["--ip", "192.0.2.77"], "Make them with 'fedray tls init'"),
        (["--ip", "127.0.0.1", "--tls", str(machine / "tls")], "tls is not there; 'fedray tls init'"),
        (["--ip", "192.0.2.77", "--insecure"], "--ip: 192.0.2.77 is no address of this machine"),
        (["--ip", "127.0.0.1", "--ports-from", "80"], "--ports-from: expected 1024"),
    ):
        assert main(["head", "start", *more]) == 1
        # Refused for want of a certificate, it has not made the token of a cluster that never was.
        assert (machine / "token").exists() == ("--insecure" in more or "--ports-from" in more)
        assert said in capsys.readouterr().err


def test_a_port_that_is_taken(machine, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert start("--port", str(taken.getsockname()[1])) == 1
    said = capsys.readouterr().err
    assert "is taken (Address already in use)" in said
    assert "--ports-from" in said


MISMATCH = """cat <<'END'
RuntimeError: Version mismatch: The cluster was started with:
    Ray: 2.60.0
    Python: 3.11.9
This process on 10.0.0.2 was started with:
    Ray: 2.59.0
    Python: 3.12.1

END
exit 1"""
"""What Ray writes, as it writes it (`check_version_info`)."""


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("echo boom: InvalidAuthToken; exit 1", "the head does not take this token"),
        ("echo '2026-01-01 00:00:00,1 ERR scripts.py:1 -- RuntimeError: no room'; exit 1", "RuntimeError: no room"),
        ("exit 1", "Ray said nothing"),
        (
            MISMATCH,
            "the cluster has Ray 2.60.0 and Python 3.11.9, this machine has Ray 2.59.0 and Python 3.12.1; install",
        ),
    ],
)
def test_a_node_that_does_not_come_up(machine, tmp_path, capsys, monkeypatch, first, said) -> None:
    monkeypatch.setattr(service, "_TRIES", 2)
    says(tmp_path, first)
    assert start() == 1
    error = capsys.readouterr().err
    assert "node 'head' did not start:" in error
    assert said in error
    assert records() == []


PROGRAM = """
import sys
from fedray.commands import nodes
from fedray.commands.cli import main
from fedray.runtime import leftovers
nodes._ray, leftovers._PEACE_SECONDS = lambda: sys.argv[1], 0.2
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_in_the_foreground_it_ends_with_what_it_is_told_and_otherwise_fails(machine, tmp_path, number) -> None:
    """SIGTERM is a service manager's; SIGKILL stands for a node that ends by itself. Either may come at any moment."""
    line = ["head", "start", "--ip", "127.0.0.1", "--foreground", "--ports-from", str(block()), *ports()]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path / "ray"), *line], stdout=subprocess.PIPE)
    assert process.stdout is not None
    deadline = time.monotonic() + 20
    while not records() and time.monotonic() < deadline:
        time.sleep(0.001)
    (record,) = records()
    os.kill(process.pid if number == signal.SIGTERM else record.pid, number)
    assert process.wait(20) == (0 if number == signal.SIGTERM else 1)
    assert leftovers.processes(record.mark, "/nowhere") == []
    assert records() == []
    process.stdout.close()


def test_what_is_told_to_end_before_it_stays_takes_its_node_along(machine, monkeypatch) -> None:
    seen: list[Record] = []

    def told(*_: object) -> None:
        seen.extend(records())
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(nodes, "_tell", told)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            start("--foreground")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 0
    (record,) = seen
    assert leftovers.processes(record.mark, "/nowhere") == []
    assert records() == []
