# SPDX-License-Identifier: Apache-2.0
"""A certificate that has run out is named, with its node and what to do, before Ray makes fifty lines of it."""

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pure.tls_kit import Server, issue_old, variables

from fedray.errors import PlanError
from fedray.runtime import diagnosis, joined_cluster
from fedray.runtime.joined_cluster import JoinedCluster
from fedray.runtime.joining import Entrance
from fedray.runtime.local_cluster import RayProcess
from fedray.runtime.nodes import certificates
from fedray.runtime.nodes.presented import check_own, presented
from fedray.runtime.own_nodes import Node

SAYS = (
    r"On the machine that has ca\.key: fedray tls issue {0} --renew --ca DIR --out OUT \(OUT is the folder that it was "
    r"issued to\); copy the files in OUT over those of its node, on the node's machine, and start that node again"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with an authority, a good certificate, two that have run out, one that soon will, a stranger."""
    folder = tmp_path_factory.mktemp("tls")
    for authority in ("ca", "other"):
        certificates.make_authority(folder / authority)
    certificates.issue(folder / "ca", folder / "good", "good", [])
    certificates.issue(folder / "ca", folder / "soon", "carol", [], days=3)
    issue_old(folder / "ca", folder / "alice", "alice", "10.0.0.2")
    issue_old(folder / "ca", folder / "bob", "bob", "10.0.0.3")
    issue_old(folder / "other", folder / "stranger", "mallory; rm -r x", "10.0.0.2")
    return folder


@pytest.fixture
def serving(made: Path) -> Iterator[Callable[[str], int]]:
    """Returns a function that answers with a certificate from now on, and returns at which port."""
    started: list[Server] = []

    def begin(name: str) -> int:
        started.append(Server(made / name))
        return started[-1].port

    yield begin
    for each in started:
        each.close()


@pytest.fixture
def joins(made: Path, serving, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Returns a function that joins a cluster whose head's certificate is good, and whose nodes' are as is said."""
    for name, value in variables(made / "good").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr(joined_cluster, "reread_authentication", lambda: None)

    def join(gone: tuple[str, ...] = (), **parties: str) -> None:
        records = [
            {
                "Alive": party not in gone,
                "NodeID": party,
                "NodeManagerAddress": "127.0.0.1",
                "NodeManagerPort": serving(name),
                "Resources": {},
                "Labels": {"party": party},
            }
            for party, name in parties.items()
        ]
        monkeypatch.setattr(joined_cluster, "node_records", lambda _address: records)
        ray = RayProcess(lambda *_: None, lambda: None, lambda: False, list, str)
        JoinedCluster(ray, f"127.0.0.1:{serving('good')}", insecure=False).start(list(parties), show_output=False)

    return join


def test_init_names_every_node_whose_certificate_has_run_out(joins) -> None:
    joins(alice="good", carol="good")
    with pytest.raises(PlanError, match=r"^the certificate of party 'alice' at 127\.0\.0\.1 ran out on 20") as caught:
        joins(alice="alice", carol="good")
    caught.match(r"UTC \(this machine's clock says 20.*UTC\)\. " + SAYS.format("alice"))
    with pytest.raises(
        PlanError, match=r"of party 'alice' at 127.* and that of party 'bob' at .* ran out on"
    ) as caught:
        joins(alice="alice", bob="bob", carol="good")
    caught.match("issue alice --renew --ca DIR --out OUT; fedray tls issue bob --renew")


def test_one_that_soon_will_is_a_warning(joins, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fedray"):
        joins(alice="good", carol="soon")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("the certificate of party 'carol' at 127.0.0.1 runs out on 20")
    assert "and its node is lost then. On the machine that has ca.key: fedray tls issue carol --renew" in line


def test_a_node_that_is_lost_already_may_have_been_lost_by_that(joins) -> None:
    with pytest.raises(PlanError) as caught:
        joins(alice="alice", carol="good", gone=("alice",))
    assert (
        "It had one, at 127.0.0.1, which has ended or could no longer be called, as when its certificate has run out: "
        "'fedray status' there says more. Start it on alice's machine: fedray party start alice --head"
    ) in str(caught.value)


def test_one_s_own_is_told_before_anybody_is_called(made: Path, serving, tmp_path: Path) -> None:
    with pytest.raises(
        PlanError, match=r"this machine's certificate, .*/alice/node\.crt, ran out on .*over those in ."
    ):
        Entrance(f"127.0.0.1:{serving('good')}").knock(variables(made / "alice"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificates, "CA_DAYS", -1)
        patch.setattr(certificates, "_GRACE", timedelta(days=3))
        certificates.make_authority(tmp_path / "old")
    with pytest.raises(PlanError, match=r"old/ca\.crt ran out on .*, and with it all that this authority has issued"):
        check_own(variables(made / "good") | {"RAY_TLS_CA_CERT": str(tmp_path / "old" / "ca.crt")})
    check_own(variables(Path("/nowhere")))  # whoever uses them says so


def test_nothing_that_another_authority_has_signed_is_believed(made: Path, serving) -> None:
    assert presented("127.0.0.1", serving("stranger"), variables(made / "good")) is None
    assert presented("127.0.0.1", serving("alice"), {"RAY_USE_TLS": "0"}) is None
    assert presented("127.0.0.1", 1, variables(made / "good")) is None
    found = presented("127.0.0.1", serving("alice"), variables(made / "good"))
    assert found is not None
    assert (found.name, found.left() < timedelta()) == ("alice", True)


def test_the_doctor_says_how_long_each_node_s_is_good(made: Path, serving, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables(made / "good").items():
        monkeypatch.setenv(name, value)
    names = ("good", "soon", "alice")
    nodes = [Node(name, name, "127.0.0.1", {}, {}, (serving(name),)) for name in names]
    good, soon, bad = diagnosis.between(nodes)
    assert [each.health for each in (good, soon, bad)] == ["good", "doubtful", "bad"]
    assert (bad.check, bad.found[:11]) == ("alice, certificate", "ran out on ")
    assert "fedray tls issue alice --renew" in bad.remedy
    assert "fedray tls issue carol --renew" in soon.remedy
