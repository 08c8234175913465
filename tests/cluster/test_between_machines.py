# SPDX-License-Identifier: Apache-2.0
"""Parties on machines of their own: what can be read on a link, how much goes over it, and what comes out.

No token, no pixel and no weight can be read, the ledger says how much goes over it, and the weights are one machine's.
"""

import re
import time
from collections.abc import Iterator

import numpy as np
import pytest
from cluster import hosts
from cluster.capture import Capture
from cluster.reference import PROGRAM as REFERENCE_PROGRAM
from cluster.several import ended, program, several

WHY_NOT = hosts.reason()
LINES = range(20010, 20100)

PROGRAM = """
import numpy as np
import fedray as sf
from fedray.data.ndarray import load
from fedray.ml.nn import FLModel
from fedray.security.aggregation import SecureAggregator

sf.init(["alice", "bob", "charlie"], address="auto", seed=7)
alice, bob, charlie = (sf.PYU(name) for name in ("alice", "bob", "charlie"))


def pixels(number):
    # The first row is what the capture is searched for.
    return np.random.default_rng(number).random((16, 3600), np.float32)


def labels(number):
    return np.random.default_rng(number).integers(0, 10, 16)


def build():
    from fedray.ml.nn.numpy import SoftmaxRegression

    return SoftmaxRegression(3600, 10, learning_rate=0.05)


x = load({alice: alice(pixels)(1), bob: bob(pixels)(2)})
y = load({alice: alice(labels)(1), bob: bob(labels)(2)})
model = FLModel(server=charlie, device_list=[alice, bob], model=build, backend="numpy", strategy="fed_avg_w",
                aggregator=SecureAggregator(charlie, [alice, bob]))
model.fit(x, y, epochs=4, batch_size=4, verbose=0)
np.asarray(model.global_model().kernel, np.float32).tofile("weights")


def images(number):
    return np.random.default_rng(number).random((100, 3600), np.float32)


# To the server, from it, and between two parties: what is moved is theirs, and no order of the driver's.
held = {party: party(images)(number) for number, party in enumerate((alice, bob, charlie), start=11)}
moves = [held[alice].to(charlie), held[charlie].to(alice), held[alice].to(bob), held[bob].to(alice)]
differ = lambda values: sum(float(np.abs(value - images(n)).sum()) for value, n in values)
print("differ", sf.reveal([charlie(differ)([(moves[0], 11)]), bob(differ)([(moves[2], 11)]),
                           alice(differ)([(moves[1], 13), (moves[3], 12)])]))
ledger = sf.ledger()
sent = lambda one, other: sum(entry.nbytes for entry in ledger.pages[one].entries if entry.to == other)
print("ledger", sent("alice", "charlie"), sent("charlie", "alice"), sent("alice", "bob"), sent("bob", "alice"))
sf.shutdown()
"""

IN_CLEAR = """
import socket, sys
if sys.argv[1] == "take":
    with socket.create_server(("10.0.0.1", 5999)) as server:
        line, _ = server.accept()
        while line.recv(1 << 16):
            pass
else:
    import numpy as np
    pixels = np.random.default_rng(1).random((16, 3600), np.float32)
    with socket.create_connection(("10.0.0.1", 5999)) as line:
        line.sendall(open(sys.argv[1], "rb").read() + pixels[0].tobytes())
"""


REFERENCE = REFERENCE_PROGRAM.replace("epochs=10", "epochs=1").replace(
    "parts=[alice, bob]", "parts={alice: 0.02, bob: 0.02}"
)
REFERENCE += """
import hashlib
print("WEIGHTS", hashlib.sha256(b"".join(w.tobytes() for w in fed_model.global_model().get_weights())).hexdigest())
sf.shutdown()
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-"),
]


@pytest.fixture(scope="module")
def machines() -> Iterator[dict[str, hosts.Host]]:
    """Returns charlie's machine, which has the head, and those of two parties."""
    with several("alice", "bob") as found:
        yield found


def test_nothing_can_be_read_on_a_party_s_link_and_the_ledger_says_how_much_goes_over_it(machines, capsys):
    server, alice = machines["charlie"], machines["alice"]
    for name, machine in machines.items():
        rules = machine.home / ".fedray" / "parties" / name / "party.toml"
        rules.write_text(rules.read_text().replace('egress = "strict"', 'egress = "default"'))  # else nothing is moved
    token = (server.home / ".fedray" / "token").read_bytes().strip()
    pixels = np.random.default_rng(1).random((16, 3600), np.float32)
    capture = Capture(alice.device)
    code, out, err, _ = ended(program(server, PROGRAM), 300)
    capture.stop()
    assert code == 0, err
    known = [token, token[:32], pixels[0].tobytes()[:64], pixels[3].tobytes()[:64]]
    weights = (server.home / "weights").read_bytes()
    known += [weights[at : at + 32] for at in (0, 4096)]
    known += [np.random.default_rng(n).random((100, 3600), np.float32)[50].tobytes()[:64] for n in (11, 12, 13)]
    assert [capture.finds(one) for one in known] == [[] for _ in known]
    assert "differ [0.0, 0.0, 0.0]" in out

    by_ledger = list(map(int, re.search(r"ledger (\d+) (\d+) (\d+) (\d+)", out).groups()))
    ways = [(alice, server), (server, alice), (alice, machines["bob"]), (machines["bob"], alice)]
    lines = [capture.bytes_between(one.ip, other.ip, LINES) for one, other in ways]
    ray = sum(stream.length for stream in capture.streams.values()) - sum(lines)
    with capsys.disabled():
        print(f" on the lines {lines} of {by_ledger} by the ledger; Ray's own {ray} ", end="")
    assert lines == [pytest.approx(nbytes, rel=0.05) for nbytes in by_ledger]
    # What is moved is not on Ray's connections: six times as much would be there as there is.
    assert ray < 1.5 * 100 * 3600 * 4
    # Parties dial the server, which dials none of them, for what it moves either.
    assert not any(flow[0] == server.ip and flow[3] in LINES for flow in capture.streams)

    # The same capture reads whatever goes in clear.
    (server.home / "clear.py").write_text(IN_CLEAR)
    (alice.home / "clear.py").write_text(IN_CLEAR)
    capture = Capture(alice.device)
    taking = server.begin(["python", "clear.py", "take"])
    time.sleep(1)
    code, _, err = alice.run(["python", "clear.py", str(alice.home / ".fedray" / "token")], 60)
    assert code == 0, err
    taking.wait(20)
    capture.stop()
    assert all(capture.finds(one) for one in (token, pixels[0].tobytes()[:64]))


def test_the_reference_program_s_weights_are_those_of_one_machine(machines):
    server = machines["charlie"]
    found = []
    for address in ("auto", "local"):
        text = REFERENCE.replace("address='local'", f"address='{address}', seed=7")
        assert f"'{address}', seed=7" in text
        code, out, err, _ = ended(program(server, text), 400)
        assert code == 0, err
        found.append(re.search("WEIGHTS (.*)", out)[1])
    assert found[0] == found[1]
