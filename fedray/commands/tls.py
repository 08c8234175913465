# SPDX-License-Identifier: Apache-2.0
"""`fedray tls`: makes a certificate authority for one cluster, and issues certificates to its nodes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fedray.runtime.nodes import certificates
from fedray.runtime.nodes.certificates import CA_CERT, CA_KEY, NODE_CERT, NODE_DAYS, NODE_KEY


def add_arguments(commands: Any) -> None:
    """Adds `tls` and what follows it to the command line.

    Args:
        commands: What `argparse` calls the sub-parsers' action.
    """
    tls = commands.add_parser(
        "tls",
        help="make a certificate authority for a cluster, and issue certificates to its nodes",
        description="Certificates for the nodes of one cluster, which take nobody's calls without one. The authority "
        "stays on one machine; each node gets a folder with three files, of which node.key is secret.",
    )
    actions = tls.add_subparsers(dest="action", required=True, metavar="ACTION")
    init = actions.add_parser("init", help="make the authority", description=f"Makes DIR/{CA_KEY} and DIR/{CA_CERT}.")
    init.add_argument("--ca", type=Path, required=True, metavar="DIR", help="the authority's folder; made if not there")
    issue = actions.add_parser(
        "issue",
        help="issue a node's certificate",
        description=f"Writes {NODE_KEY}, {NODE_CERT} and {CA_CERT} to the folder OUT, to be copied to the node's "
        "machine. A driver on a machine that is no node needs a certificate as well.",
    )
    issue.add_argument("name", metavar="NAME", help="the node, e.g. alice")
    issue.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="under which the node is called, an address or a host name; may be repeated",
    )
    issue.add_argument("--ca", type=Path, required=True, metavar="DIR", help="the authority's folder")
    issue.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder for the node's files")
    issue.add_argument(
        "--renew",
        action="store_true",
        help="put new files in the place of this node's in OUT; without --host for the addresses of before",
    )
    issue.add_argument("--days", type=int, default=NODE_DAYS, metavar="N", help="how long it is good for (%(default)s)")


def run(options: argparse.Namespace) -> int:
    """Runs one of the commands and returns its exit code.

    Raises:
        PlanError: A folder is not as it should be; the message says what to do.
        OSError: A file cannot be written.
    """
    if options.action == "init":
        certificates.make_authority(options.ca)
        print(f"made {options.ca / CA_KEY}, which stays here, and {options.ca / CA_CERT}")
        return 0
    ends = certificates.issue(options.ca, options.out, options.name, options.host, options.days, renew=options.renew)
    print(f"issued {options.out / NODE_CERT} for {options.name}, good until {ends:%Y-%m-%d}")
    print(
        f"unless {options.name}'s machine is this one, "
        f"copy {NODE_KEY}, {NODE_CERT} and {CA_CERT} there, by a way that keeps {NODE_KEY} secret"
    )
    if not options.host and not options.renew:
        print("without --host it is good for a driver, and for no node that other machines call")
    return 0
