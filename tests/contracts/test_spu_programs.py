# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG005 (programs need not use what they are given)
"""JAX functions on shares, with the extra `fedray[spu]`: real runtimes in the parties, real links between them."""

import datetime
import importlib.util
import socket
import ssl

import numpy as np
import pytest

import fedray as sf
from fedray.backends.spu.links import countable
from fedray.errors import DataError, DeviceMismatch, PlanError, ProtocolError
from fedray.utils.testing import cluster_def

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("spu") is None,
    reason="needs the extra: pip install 'fedray[spu]' (a wheel for CPython 3.11 on Linux and Apple silicon)",
)

DEALT = {"beaver_type": "TrustedFirstParty"}
CLUSTERS = {
    "semi2k-128": (["alice", "bob"], DEALT),
    "semi2k-64": (["bob", "charlie"], DEALT | {"field": "FM64"}),
    "three": (["alice", "bob", "charlie"], DEALT | {"field": "FM64"}),
    "aby3": (["charlie", "alice", "bob"], {"protocol": "ABY3", "field": "FM64"}),
    "aby3-128": (["alice", "bob", "charlie"], {"protocol": "ABY3"}),
    "cheetah": (["alice", "bob"], {"protocol": "CHEETAH", "field": "FM64"}),
}
X, Y = (np.random.default_rng(k).normal(size=(8, 8)) for k in range(2))


@pytest.fixture(scope="module")
def spus(shared):
    return {name: sf.SPU(cluster_def(*CLUSTERS[name])) for name in CLUSTERS}


LONG = {"semi2k-64", "aby3-128", "cheetah"}
"""Those that others stand for where time matters: `semi2k-128` and `three`, `aby3`, and the notebook on shares."""


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in CLUSTERS])
def spu(request, spus):
    return spus[request.param]


@pytest.fixture
def two(spus):
    return spus["semi2k-64"]


def of(party, value):
    return sf.PYU(party)(np.array)(value)


def test_products_comparisons_and_the_first_of_the_largest(spu):
    def program(x, y):
        import jax.numpy as jnp

        return x @ y, x > y, jnp.argmax(x[0]), jnp.where(x > y, x, y), (x > 0).sum()

    x, y = of("alice", X).to(spu), of("charlie", Y).to(spu)
    results = spu(program, num_returns=5)(x, y)
    product, larger, first, maximum, count = sf.reveal(results)
    np.testing.assert_allclose(product, X @ Y, atol=1e-3)
    assert np.array_equal(larger, X > Y)
    assert first == X[0].argmax()
    np.testing.assert_allclose(maximum, np.maximum(X, Y), atol=1e-4)
    assert count == (X > 0).sum()
    assert (product.dtype, larger.dtype, first.dtype.kind) == (np.float64, np.bool_, "i")
    assert results[0].shape == (8, 8)


def test_results_are_shared_values_like_others(spu):
    x, y = of("alice", X).to(spu), of("charlie", Y).to(spu)
    product = spu(lambda a, b: a @ b)(x, y)
    flags = spu(lambda a, b: a > b)(x, y)
    scaled = spu(lambda f, a: f * a)(flags, x * 0.37)  # a result, and a value with a public factor
    found = sf.reveal([product.sum() * 0.5 + 1, scaled, spu(lambda a: a + 1)(spu.stack([x, y]).mean(0))])
    np.testing.assert_allclose(found[0], (X @ Y).sum() * 0.5 + 1, atol=1e-2)
    np.testing.assert_allclose(found[1], (X > Y) * X * 0.37, atol=1e-4)
    np.testing.assert_allclose(found[2], (X + Y) / 2 + 1, atol=1e-4)
    np.testing.assert_allclose(sf.reveal(sf.PYU("bob")(np.sum)(product.to(sf.PYU("bob")))), (X @ Y).sum(), atol=1e-2)


def test_a_step_of_logistic_regression_on_joint_columns(spu):
    """Alice has some columns, charlie the others and the labels; the weights stay in shares."""
    rng = np.random.default_rng(7)
    left, right = rng.normal(size=(64, 3)), rng.normal(size=(64, 2))
    labels = (left.sum(1) - right.sum(1) > 0).astype(np.float64)

    def step(weights, a, b, y):
        import jax
        import jax.numpy as jnp

        x = jnp.concatenate([a, b], axis=1)
        return weights - 0.5 * x.T @ (jax.nn.sigmoid(x @ weights) - y) / len(y)

    joint, expected = np.concatenate([left, right], 1), np.zeros(5)
    a, b, y = of("alice", left).to(spu), of("charlie", right).to(spu), of("charlie", labels).to(spu)
    weights = np.zeros(5)
    for _ in range(2):
        weights = spu(step)(weights, a, b, y)
        expected -= 0.5 * joint.T @ (1 / (1 + np.exp(-joint @ expected)) - labels) / 64
    np.testing.assert_allclose(sf.reveal(weights), expected, atol=5e-3)


def test_integers_public_arguments_and_constants(two):
    n = of("alice", [1, -2, 3_000_000]).to(two)

    def program(n, options, k):
        import jax.numpy as jnp

        return n * options["times"] + k, jnp.zeros(3), n.sum(axis=-1)

    found = sf.reveal(two(program, num_returns=3, static_argnames=["k"])(n, {"times": np.array([2, 3, 4])}, k=10))
    assert found[0].tolist() == [12, 4, 12_000_010]
    assert found[1].tolist() == [0.0, 0.0, 0.0]
    assert found[2] == 2_999_999


def test_the_library_behind_writes_nothing(shared, capfd):
    """It has a line for every link that is made, and another when it ends."""
    spu = sf.SPU(cluster_def(["alice", "bob"], DEALT | {"field": "FM64"}))
    x = of("alice", 1.5).to(spu)
    assert sf.reveal(spu(lambda x: x + 1)(x)) == 2.5
    assert capfd.readouterr() == ("", "")


def test_public_results_are_not_shares_to_add(two):
    import jax.numpy as jnp

    zero = two(lambda x: jnp.zeros(2))(of("alice", [1.0]).to(two))
    assert sf.reveal(zero).tolist() == [0.0, 0.0]
    with pytest.raises(PlanError, match="do not add up"):
        sf.reveal(zero + 1)


def test_mistakes(two, spus):
    x = of("alice", X).to(two)
    mistakes = [
        (lambda: two(3), PlanError, "expected a function"),
        (lambda: two(abs, num_returns=0), PlanError, "num_returns"),
        (lambda: two(abs)(of("alice", X)), DeviceMismatch, r"x\.to\(spu\)"),
        (lambda: two(abs)(of("alice", X).to(spus["three"])), DeviceMismatch, "another SPU"),
        (lambda: sf.reveal(two(lambda a: (a, a))(x)), DataError, "expected 1 results"),
        (lambda: sf.reveal(two(lambda a: a, num_returns=2)(x)), DataError, "expected 2 results"),
        (lambda: sf.reveal(two(lambda a: (a, [a]), num_returns=2)(x)), DataError, "each result is one array"),
        (lambda: sf.reveal(two(lambda a: a @ np.ones(3))(x)), DataError, "cannot be compiled"),
        (lambda: sf.reveal(two(lambda a, b: a)(x, "text")), DataError, "static_argnames"),
        (lambda: sf.reveal(two(lambda a: a, static_argnames=["k"])(x)), DataError, "do not fit"),
    ]
    for use, error, match in mistakes:
        with pytest.raises(error, match=match):
            use()
    assert np.abs(sf.reveal(two(lambda a: a * 2)(x)) - 2 * X).max() < 1e-4  # and it still works


def test_a_program_that_depends_on_the_party_is_refused(two):
    def program(x):
        import os
        import threading

        return x * float(os.getpid()) + len(threading.current_thread().name)  # parties are processes, or named threads

    x = of("alice", X).to(two)
    with pytest.raises(ProtocolError, match="compiled differently"):
        sf.reveal(two(program)(x))
    assert np.abs(sf.reveal(two(lambda a: -a)(x)) + X).max() < 1e-4


def encrypted(folder, authorities):
    """An SPU of alice and bob whose links use TLS, with certificates of these authorities."""
    definition = cluster_def(["alice", "bob"], DEALT | {"field": "FM64"})
    for node, authority in zip(definition["nodes"], authorities, strict=True):
        node["tls"] = certificate(folder, node["party"], authority)
    return sf.SPU(definition, {"connect_retry_times": 1, "recv_timeout_ms": 2_000, "http_timeout_ms": 2_000})


def greets(address, tls):
    """Says hello to a compute party under a certificate; returns whether it is let in."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(tls["authority"])
    context.load_cert_chain(tls["certificate"], tls["private_key"])
    host, port = address.split(":")
    try:
        with context.wrap_socket(socket.create_connection((host, int(port)), 5)) as line:
            line.settimeout(0.3)
            return line.recv(1) != b""  # whoever is refused learns it only now
    except TimeoutError:
        return True  # it waits for a first word
    except OSError:
        return False


def test_links_with_tls(shared, tmp_path):
    spu = encrypted(tmp_path, ["one", "one"])
    x = of("charlie", X).to(spu)
    np.testing.assert_allclose(sf.reveal(spu(lambda a: a @ a)(x)), X @ X, atol=1e-3)
    address = spu.cluster_def["nodes"][1]["address"]
    own = certificate(tmp_path, "alice", "one")
    foreign = certificate(tmp_path, "mallory", "two") | {"authority": own["authority"]}
    assert greets(address, own)
    assert not greets(address, foreign)


@pytest.mark.slow  # the library tries for nine seconds, on each transport
def test_a_certificate_of_another_authority_gets_no_link(shared, tmp_path):
    spu = encrypted(tmp_path, ["one", "two"])
    x = of("charlie", X).to(spu)
    with pytest.raises(ProtocolError, match="no links"):
        sf.reveal(spu(lambda a: a @ a)(x))


def test_an_address_that_is_taken_is_said_before_anything_runs(shared):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        definition = cluster_def(["alice", "bob"], DEALT)
        definition["nodes"][1]["address"] = f"127.0.0.1:{taken.getsockname()[1]}"
        spu = sf.SPU(definition)
        with pytest.raises(PlanError, match=r"party 'bob' cannot listen at address='127.0.0.1:\d+'.*another address"):
            spu(lambda a: a @ a)
    assert sf.reveal(spu(lambda a: a + 1)(of("charlie", X).to(spu))).shape == X.shape  # it is free now


def certificate(folder, party, authority):
    """Makes a certificate of a party, good for ten minutes, signed by an authority; returns paths."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()

    def signed(subject, key, issuer_key):
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in (subject, authority)]
        made = x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1])
        made = made.public_key(key.public_key()).serial_number(x509.random_serial_number())
        made = made.not_valid_before(now - datetime.timedelta(minutes=1))
        made = made.not_valid_after(now + datetime.timedelta(minutes=10))
        made = made.add_extension(x509.BasicConstraints(ca=subject == authority, path_length=None), critical=True)
        return made.sign(issuer_key, hashes.SHA256()).public_bytes(pem)

    def write(name, data):
        (folder / name).write_bytes(data)
        return str(folder / name)

    def private(key):
        return key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, plain)

    if not (folder / f"{authority}.crt").exists():
        root = rsa.generate_private_key(65537, 2048)
        write(f"{authority}.key", private(root))
        write(f"{authority}.crt", signed(authority, root, root))
    root = serialization.load_pem_private_key((folder / f"{authority}.key").read_bytes(), None)
    key = rsa.generate_private_key(65537, 2048)
    return {
        "certificate": write(f"{party}.crt", signed(party, key, root)),
        "private_key": write(f"{party}.key", private(key)),
        "authority": str(folder / f"{authority}.crt"),
    }


@pytest.mark.skipif(not countable(), reason="this system does not count what a connection has sent")
@pytest.mark.parametrize("name", ["semi2k-64", pytest.param("aby3", marks=pytest.mark.slow)])
def test_what_programs_send_each_other_is_on_the_ledger(spus, name):
    """Of a product of two shared matrices no program can send less than it must show of them under masks."""
    spu, n = spus[name], 40
    x, y = of("alice", np.ones((n, n))).to(spu), of("charlie", np.ones((n, n))).to(spu)
    sf.wait(spu(lambda a, b: a @ b)(x, y))

    def left():
        entries = [(row.party, row.entry) for row in sf.ledger().rows if row.entry.call == "program multiply"]
        return {party: sum(e.nbytes for p, e in entries if p == party) for party in spu.parties}, entries

    def multiply(a, b):
        return a @ b

    sf.wait(spu(multiply)(x, y))
    (sizes, entries), words = left(), n * n * 8
    # Both operands under masks to each other compute party (SEMI2K), or a share of the product to the next (ABY3).
    least = 2 * words if name == "semi2k-64" else words
    # The protocols' other messages, such as for the point of a product, come on top.
    assert all(least <= size <= 16 * least for size in sizes.values()), sizes
    assert {e.kind for _, e in entries} == {"share"}
    assert {e.dtype for _, e in entries} == {"link that opens", "link"}
    reached = {(party, e.to) for party, e in entries if " or " not in e.to}
    assert reached == {(p, q) for p in spu.parties for q in spu.parties if p != q}
