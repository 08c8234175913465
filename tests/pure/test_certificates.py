# SPDX-License-Identifier: Apache-2.0
"""Certificates of a cluster's nodes: made, checked, refused; and what a driver is told of the other side's."""

import os
import shutil
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from pure.tls_kit import Server, issue_old, variables

from fedray.commands.cli import main
from fedray.errors import PlanError
from fedray.runtime import joining
from fedray.runtime.joining import Entrance
from fedray.runtime.nodes import certificates


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with two authorities, `ca` and `other`, and a node of each, both called 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    for authority, node in (("ca", "alice"), ("other", "mallory")):
        certificates.make_authority(folder / authority)
        certificates.issue(folder / authority, folder / node, node, ["10.0.0.2", "node.example"])
    return folder


def test_what_is_issued_passes_under_each_of_its_names(made: Path) -> None:
    for host in ("10.0.0.2", "node.example", "127.0.0.1", "localhost", None):
        assert certificates.check(made / "alice", host) > datetime.now(UTC) + timedelta(days=360)
    assert sorted(os.listdir(made / "alice")) == ["ca.crt", "node.crt", "node.key"]
    for secret in (made / "ca" / "ca.key", made / "alice" / "node.key"):
        assert secret.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("change", "host", "days", "said"),
    [
        ("", "10.0.0.3", 0, r"is for 10\.0\.0\.2, node\.example, 127\.0\.0\.1, localhost, and this node is called at"),
        (
            *("", None, 400),
            r"node\.crt ran out .* ca\.key: fedray tls issue alice --host 10\.0\.0\.2 --host node\.example --ca ",
        ),
        ("", None, 3700, r"ca\.crt ran out on .* make another one with 'fedray tls init'"),
        ("", None, -1, "is good from .* on, and this machine's clock says .*; set the clock right"),
        ("ca.crt", None, 0, "was issued by another authority"),
        ("node.key", None, 0, "is not the certificate of node.key"),
    ],
)
def test_what_is_wrong_is_named(made: Path, tmp_path: Path, change: str, host: str, days: int, said: str) -> None:
    folder = tmp_path / "alice"
    shutil.copytree(made / "alice", folder)
    if change:
        shutil.copy2(made / "mallory" / change, folder / change)
    with pytest.raises(PlanError, match=said):
        certificates.check(folder, host, datetime.now(UTC) + timedelta(days=days))


def test_files_that_are_open_missing_or_nonsense(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "alice"
    shutil.copytree(made / "alice", folder)
    (folder / "node.key").chmod(0o644)
    with pytest.raises(PlanError, match=r"other users may read or write it.*chmod 600"):
        certificates.check(folder, None)
    (folder / "node.key").chmod(0o600)
    (folder / "node.key").write_text("secret")
    with pytest.raises(PlanError, match="no private key") as caught:
        certificates.check(folder, None)
    assert "secret" not in str(caught.value)
    (folder / "node.crt").write_text("nothing")
    with pytest.raises(PlanError, match="no certificate in PEM"):
        certificates.check(folder, None)
    (folder / "node.crt").unlink()
    for place in (folder, tmp_path / "nowhere"):
        with pytest.raises(PlanError, match="is not there; 'fedray tls init'"):
            certificates.check(place, None)
    with pytest.raises(PlanError, match="nowhere is not there; 'fedray tls init'"):
        certificates.issue(tmp_path / "nowhere", tmp_path / "x", "x", [])


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ca, out = str(tmp_path / "ca"), str(tmp_path / "out")
    assert main(["tls", "init", "--ca", ca]) == 0
    assert main(["tls", "init", "--ca", ca]) == 1
    assert "nothing is overwritten" in capsys.readouterr().err
    issue = ["tls", "issue", "alice", "--ca", ca, "--out", out]
    assert main([*issue, "--host", "10.0.0.2", "--days", "3"]) == 0
    node = x509.load_pem_x509_certificate((Path(out) / "node.crt").read_bytes())
    assert node.not_valid_after_utc - datetime.now(UTC) < timedelta(days=3)
    assert main([*issue]) == 1
    assert main(["tls", "issue", "bob", "--ca", ca, "--out", str(tmp_path / "b"), "--days", "0"]) == 1
    assert main(["tls", "issue", "bob", "--ca", ca, "--out", str(tmp_path / "b"), "--host", "bö"]) == 1
    assert main(["tls", "issue", "bob", "--ca", out, "--out", str(tmp_path / "b")]) == 1
    said = capsys.readouterr()
    assert "good until" in said.out
    assert "without --host" not in said.out
    assert main([*issue, "--renew"]) == 0
    assert main(["tls", "issue", "driver", "--ca", ca, "--out", str(tmp_path / "d")]) == 0
    assert "without --host it is good for a driver" in capsys.readouterr().out
    assert "ca.key is not there" in said.err


def test_a_renewal_takes_the_place_of_its_own_only(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "alice"
    certificates.issue(made / "ca", out, "alice", ["10.0.0.2", "node.example"], days=3)
    before = [(out / name).read_bytes() for name in ("node.key", "node.crt")]
    for authority, name, said in (
        ("ca", "bob", "for 'alice'; --renew replaces none but that of 'bob'"),
        ("other", "alice", "by another"),
    ):
        with pytest.raises(PlanError, match=said):
            certificates.issue(made / authority, out, name, [], renew=True)
    with pytest.raises(PlanError, match="is not there"):
        certificates.issue(made / "ca", tmp_path / "none", "alice", [], renew=True)
    assert [(out / name).read_bytes() for name in ("node.key", "node.crt")] == before
    certificates.issue(made / "ca", out, "alice", [], renew=True)
    assert certificates.check(out, "node.example") > datetime.now(UTC) + timedelta(days=360)
    assert (out / "node.key").read_bytes() != before[0]
    assert (out / "node.key").stat().st_mode & 0o777 == 0o600
    certificates.issue(made / "ca", out, "alice", ["10.0.0.9"], renew=True)
    with pytest.raises(
        PlanError, match=r"is for 10\.0\.0\.9, .* issue alice --host 10\.0\.0\.2 --host 10\.0\.0\.9 --ca"
    ):
        certificates.check(out, "10.0.0.2")


@pytest.mark.parametrize("host", ["http://x", "x:9", "10.0.0.2:20000", "a b", "", "x/y"])
def test_what_is_no_host_is_refused(made: Path, tmp_path: Path, host: str) -> None:
    with pytest.raises(PlanError, match="expected an address, or a host name"):
        certificates.issue(made / "ca", tmp_path / "x", "x", [host])
    assert not (tmp_path / "x").exists()


def test_nothing_is_good_for_longer_than_its_authority(made: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"expected 1 to 3650, .* found 99999999"):
        certificates.issue(made / "ca", tmp_path / "x", "x", [], days=99999999)
    ca = x509.load_pem_x509_certificate((made / "ca" / "ca.crt").read_bytes())
    assert certificates.issue(made / "ca", tmp_path / "x", "x", [], days=3650) == ca.not_valid_after_utc


@pytest.fixture
def server() -> Iterator[object]:
    """Returns a function that starts a server."""
    started: list[Server] = []

    def begin(folder: Path | None) -> Entrance:
        started.append(Server(folder))
        return Entrance(f"127.0.0.1:{started[-1].port}")

    yield begin
    for each in started:
        each.close()


def test_both_sides_of_one_authority_meet(made: Path, server) -> None:
    server(made / "alice").knock(variables(made / "alice"))
    server(None).knock({})


def test_a_driver_is_told_what_is_wrong_between_it_and_the_cluster(made: Path, server, tmp_path: Path) -> None:
    ours, theirs = variables(made / "alice"), variables(made / "mallory")
    with pytest.raises(PlanError, match="asks for certificates, and this driver has none"):
        server(made / "alice").knock({"RAY_USE_TLS": "0"})
    with pytest.raises(PlanError, match="was started without TLS, and this driver has RAY_USE_TLS on"):
        server(None).knock(ours)
    with pytest.raises(
        PlanError, match=r"certificate of 127.* does not pass: self-signed certificate in certificate chain"
    ):
        server(made / "alice").knock(theirs)
    # The other way round: this side takes theirs, and they do not take ours.
    mixed = theirs | {"RAY_TLS_CA_CERT": ours["RAY_TLS_CA_CERT"]}
    with pytest.raises(PlanError, match=r"does not\s+take this machine's certificate"):
        server(made / "alice").knock(mixed)
    with pytest.raises(PlanError, match="there is no certificate file '/nowhere'"):
        server(made / "alice").knock(ours | {"RAY_TLS_CA_CERT": "/nowhere"})
    with pytest.raises(PlanError, match="cannot be used"):
        server(made / "alice").knock(ours | {"RAY_TLS_SERVER_KEY": theirs["RAY_TLS_SERVER_KEY"]})


def test_a_certificate_that_has_run_out_or_is_for_another_name(made: Path, server, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(certificates, "_EVERYWHERE", ())
    certificates.issue(made / "ca", tmp_path / "elsewhere", "elsewhere", ["10.0.0.9"])
    with pytest.raises(PlanError, match="does not pass: IP address mismatch"):
        server(tmp_path / "elsewhere").knock(variables(made / "alice"))
    issue_old(made / "ca", tmp_path / "old", "old", "127.0.0.1")
    with pytest.raises(PlanError, match=r"of the head at 127.* ran out on 20.*fedray tls issue old --renew"):
        server(tmp_path / "old").knock(variables(made / "alice"))


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        Entrance(f"127.0.0.1:{port}").knock({})


def test_who_takes_a_call_and_says_nothing(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_KNOCK_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        entrance = Entrance(f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(TimeoutError, match="while certificates were exchanged"):
            entrance.knock(variables(made / "alice"))
