# SPDX-License-Identifier: Apache-2.0
"""An SPU's definition, read and checked: who computes, over which ring, by which protocol. Starts nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fedray.backends.spu.program import RuntimeSettings
from fedray.errors import PlanError
from fedray.protocol.spu.form import Layout
from fedray.types import PartyName

# ABY3 keeps each share twice and is defined for three; CHEETAH is a two-party protocol. SEMI2K adds up any number.
PROTOCOLS: Mapping[str, tuple[int, int | None]] = {"SEMI2K": (2, None), "ABY3": (3, 3), "CHEETAH": (2, 2)}
"""Fewest and most compute parties of each protocol."""

FIELDS: Mapping[str, Literal[32, 64, 128]] = {"FM32": 32, "FM64": 64, "FM128": 128}

TRIPLES: Mapping[str, str] = {
    "TrustedFirstParty": (
        "the first compute party deals them. It knows every triple, so with what the parties show each other it can "
        "compute every value that is multiplied or compared: right only where that party may see the data anyway"
    ),
    "TrustedThirdParty": (
        "a server of its own deals them, at runtime_config['ttp_beaver_config']['server_host']. It must not collude "
        "with any compute party"
    ),
}
"""Where SEMI2K gets its multiplication triples from, and what that means."""

# A list of our own, so that a misspelt setting is refused here and not ignored there, and a driver without the package
# can still check a definition.
OPTIONS = frozenset(
    {
        "beaver_type",
        "ttp_beaver_config",
        "cheetah_2pc_config",
        "max_concurrency",
        "public_random_seed",
        "share_max_chunk_size",
        "sort_method",
        "quick_sort_threshold",
        "fxp_div_goldschmidt_iters",
        "fxp_exp_mode",
        "fxp_exp_iters",
        "fxp_log_mode",
        "fxp_log_iters",
        "fxp_log_orders",
        "sigmoid_mode",
        "enable_lower_accuracy_rsqrt",
        "sine_cosine_iters",
        "trunc_allow_msb_error",
        "experimental_disable_mmul_split",
        "experimental_enable_inter_op_par",
        "experimental_enable_intra_op_par",
        "experimental_disable_vectorization",
        "experimental_inter_op_concurrency",
        "experimental_enable_exp_prime",
        "experimental_exp_prime_offset",
        "experimental_exp_prime_disable_lower_bound",
        "experimental_exp_prime_enable_upper_bound",
    }
)
"""Settings of `runtime_config` that programs are run under; see the documentation of the package `spu`."""

TLS_PATHS = frozenset({"certificate", "private_key", "authority"})


@dataclass(frozen=True, slots=True)
class Cluster:
    """A checked definition.

    Attributes:
        parties: The compute parties, in order.
        layout: How shares lie among them.
        runtime: What programs are run under.
        triples: SEMI2K's source of multiplication triples, or None where none was chosen or none is needed.
    """

    parties: tuple[PartyName, ...]
    layout: Layout
    runtime: RuntimeSettings
    triples: str | None

    def check_triples(self) -> None:
        """Checks that the source of multiplication triples was chosen, where the protocol needs one.

        Raises:
            PlanError: It was not.
        """
        if self.layout.protocol != "SEMI2K" or self.triples is not None:
            return
        listed = "; ".join(f"{name!r}: {meaning}" for name, meaning in TRIPLES.items())
        raise PlanError(
            "SEMI2K multiplies with triples that somebody deals, and runtime_config['beaver_type'] does not say who. "
            f"Choose: {listed}. Without a dealer: protocol 'CHEETAH' for two compute parties (slower), 'ABY3' for three"
        )


def read(cluster_def: Any, link_desc: Mapping[str, int] | None, bound: float | None) -> Cluster:
    """Reads the definition of an SPU and checks it.

    Args:
        cluster_def: As in `SPU`.
        link_desc: As in `SPU`.
        bound: As in `SPU`; only checked here.

    Raises:
        PlanError: Something in it cannot work; the message names it.
    """
    nodes, config = _nodes(cluster_def), _runtime_config(cluster_def)
    parties = tuple(node["party"] for node in nodes)
    layout = _layout(config, len(parties))
    # What a ring of this size can hold at all. The bits above stay free for the sign and for sums of such numbers.
    limit = layout.default_bound() if bound is None else bound
    most = 2.0 ** (layout.bits - 2 - layout.fraction)
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit <= min(most, 2.0**40):
        raise PlanError(
            f"bound: expected a number above 0 and at most {min(most, 2.0**40):g}, which is what {layout.fraction} "
            f"fraction bits leave of a ring of {layout.bits} bits; found {limit!r}"
        )
    triples = config.get("beaver_type")
    if triples is not None and triples not in TRIPLES:
        raise PlanError(f"runtime_config['beaver_type']: expected one of {sorted(TRIPLES)}, found {triples!r}")
    # Told now: the package would look for a server without an address, deep inside the first product.
    if triples == "TrustedThirdParty" and "ttp_beaver_config" not in config:
        raise PlanError("runtime_config['beaver_type'] is TrustedThirdParty, and 'ttp_beaver_config' names no server")
    addresses = tuple((node["party"], str(node.get("address", ""))) for node in nodes)
    # Protocol, field and fraction bits are in the layout; the runtime takes them from there.
    options = {name: value for name, value in config.items() if name in OPTIONS}
    link = _link(link_desc)
    return Cluster(parties, layout, RuntimeSettings(addresses, options, link, _tls(nodes)), triples)


def _nodes(cluster_def: Any) -> list[Mapping[str, Any]]:
    if not isinstance(cluster_def, Mapping) or "nodes" not in cluster_def:
        raise PlanError(f"SPU: expected a dict with 'nodes', found {cluster_def!r}")
    nodes = cluster_def["nodes"]
    if not isinstance(nodes, list | tuple) or len(nodes) < 2:
        raise PlanError(f"SPU: expected at least two nodes, found {nodes!r}")
    for node in nodes:
        if not isinstance(node, Mapping) or not isinstance(node.get("party"), str):
            raise PlanError(f"SPU: expected nodes such as {{'party': 'alice', 'address': ...}}, found {node!r}")
    parties = [node["party"] for node in nodes]
    # A party that computed twice would hold two shares, and fewer than all could open a value.
    if len(set(parties)) != len(parties):
        raise PlanError(f"SPU: a party is named twice in {', '.join(parties)}")
    return list(nodes)


def _runtime_config(cluster_def: Mapping[str, Any]) -> dict[str, Any]:
    config = cluster_def.get("runtime_config", {})
    if not isinstance(config, Mapping):
        raise PlanError(f"SPU: expected a dict as 'runtime_config', found {config!r}")
    unknown = sorted(set(config) - OPTIONS - {"protocol", "field", "fxp_fraction_bits"})
    if unknown:
        raise PlanError(f"runtime_config: unknown settings {unknown}")
    return dict(config)


def _layout(config: Mapping[str, Any], nodes: int) -> Layout:
    protocol, name = config.get("protocol", "SEMI2K"), config.get("field", "FM128")
    if protocol not in PROTOCOLS:
        raise PlanError(f"runtime_config['protocol']: expected one of {list(PROTOCOLS)}, found {protocol!r}")
    least, most = PROTOCOLS[protocol]
    if nodes < least or (most is not None and nodes > most):
        count = f"exactly {least}" if least == most else f"at least {least}"
        raise PlanError(f"runtime_config['protocol']: {protocol} is for {count} compute parties, found {nodes}")
    if name not in FIELDS:
        raise PlanError(f"runtime_config['field']: expected one of {list(FIELDS)}, found {name!r}")
    bits = FIELDS[name]
    fraction = config.get("fxp_fraction_bits", 18)
    # At most half the ring, since a product has twice as many fraction bits before it is cut.
    if isinstance(fraction, bool) or not isinstance(fraction, int) or not 1 <= fraction <= min(bits // 2, 40):
        raise PlanError(
            f"runtime_config['fxp_fraction_bits']: expected 1 to {min(bits // 2, 40)} of {bits} bits, found "
            f"{fraction!r}"
        )
    return Layout(bits, nodes, fraction, protocol == "ABY3", protocol)


def _link(link_desc: Mapping[str, int] | None) -> dict[str, int]:
    link = dict(link_desc or {})
    if not all(isinstance(name, str) and isinstance(value, int) for name, value in link.items()):
        raise PlanError(f"link_desc: expected numbers by name, e.g. {{'recv_timeout_ms': 60000}}, found {link!r}")
    return link


def _tls(nodes: list[Mapping[str, Any]]) -> tuple[Mapping[str, str], ...]:
    with_tls = [node for node in nodes if node.get("tls")]
    if not with_tls:
        return ()
    for node in nodes:
        # At every node or at none: a link that one end encrypts and the other does not is no link.
        if not isinstance(node.get("tls"), Mapping) or set(node["tls"]) != TLS_PATHS:
            raise PlanError(
                f"node {node['party']!r}: expected 'tls' with the paths {sorted(TLS_PATHS)} at every node or at none"
            )
    return tuple({name: str(path) for name, path in node["tls"].items()} for node in nodes)
