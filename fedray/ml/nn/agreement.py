# SPDX-License-Identifier: Apache-2.0
"""What the parties say of their models and their sums, put side by side, before training and after: it is one model.

Knows names, facts and reports; asks nobody.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedray.backends.backend import ModelFacts
from fedray.errors import PlanError, ServerFault
from fedray.party.training.model_rounds import Report
from fedray.types import PartyName

_log = logging.getLogger("fedray")


def apart(facts: Sequence[ModelFacts]) -> dict[str, str]:
    """Returns the metrics that stay with their parties: those that do so at any, each with why.

    Args:
        facts: What each party says.
    """
    return {name: why for one in facts for name, why in one.apart.items()}


def differ(facts: Sequence[ModelFacts]) -> bool:
    """Returns whether a metric adds up at some parties and not at others."""
    return any(set(one.apart) != set(facts[0].apart) for one in facts)


def agreed(facts: Mapping[PartyName, ModelFacts]) -> ModelFacts:
    """Returns what all parties say.

    Raises:
        PlanError: Their models differ, or their frozen tensors.
    """
    (name, first), *others = facts.items()
    for other_name, other in others:
        _check_same(name, first, other_name, other)
    return first


RESULTS = {"sets": "whose inputs were summed", "model": "the model that follows", "sums": "the joint metrics"}
"""Fields of a report that all parties have alike -> what they tell."""


def split(reports: Mapping[PartyName, Report]) -> tuple[str, tuple[PartyName, ...]]:
    """Returns what the parties have not come to alike through a segment, in words, and who agree on it; else nothing.

    Args:
        reports: What each of them reports.
    """
    for field, what in RESULTS.items():
        found = {party: getattr(report, field) for party, report in reports.items()}
        counted = Counter(found.values()).most_common()
        if len(counted) < 2:
            continue
        agree = tuple(party for party in found if found[party] == counted[0][0])
        others = ", ".join(repr(party) for party in found if party not in agree)
        clear = counted[0][1] > counted[1][1]
        who = f"{others} came to another result than {', '.join(map(repr, agree))}"
        more = "" if clear else " (which of them is right, nobody can tell)"
        return (
            f"the parties differ on {what}: {who}{more}. Either the server has told them different things, or their "
            "machines compute differently",
            agree,
        )
    return "", ()


MOST_RENEWALS = 8
"""New sessions in a row in which no round was held: parties may miss the making of keys, and not for ever."""


def check_whole(reports: Mapping[PartyName, Report], planned: int, held: Sequence[int], server: PartyName) -> None:
    """Checks that a segment has not ended before its last round without a reason, and not in session after session.

    The driver asks for an early end only where it was interrupted itself, and then reads no report.

    Args:
        reports: What each party reports.
        planned: How many rounds the segment has.
        held: How many rounds were held in each of its sessions so far, this one last.
        server: Who says when it ends.

    Raises:
        ServerFault: It has.
    """
    least = min(report.done for report in reports.values())
    renew = next((report.renew for report in reports.values() if report.renew), "")
    if least < planned and not renew:
        raise ServerFault(
            f"server {server!r} has ended training after {least} of {planned} round{'s' * (planned != 1)}, and nobody "
            "has asked for that: the rows of the rest are in no sum. The server lies, or is of another version"
        )
    if renew and len(held) >= MOST_RENEWALS and not any(held[-MOST_RENEWALS:]):
        raise ServerFault(
            f"server {server!r} has said {MOST_RENEWALS} times in a row that a new session is needed ({renew}), and no "
            "round was held. Ask the parties that are missing, or leave them out: FLModel(device_list=[...])"
        )


def say_doubts(facts: ModelFacts, said: set[str]) -> None:
    """Says, once each, which metrics stay with their parties and why, and what the model can hardly be meant to do.

    Args:
        facts: What all parties say.
        said: Of what it has been said; grows.
    """
    for doubt in facts.doubts:
        if doubt not in said:
            said.add(doubt)
            _log.warning("model: %s", doubt)
    for name, why in facts.apart.items():
        if name not in said:
            said.add(name)
            _log.warning(
                "metrics: %r has no value over all parties, only one for each (local_history, and the second item of "
                "evaluate): %s",
                name,
                why,
            )


def _check_same(name: PartyName, facts: ModelFacts, other_name: PartyName, other: ModelFacts) -> None:
    """Refuses parties whose models, or whose frozen tensors, differ.

    Raises:
        PlanError: They do.
    """
    differing = [tensor for tensor, found in facts.frozen.items() if other.frozen.get(tensor) != found]
    if facts.spec == other.spec and differing:
        raise PlanError(
            f"model: frozen tensor {differing[0]!r} has other values at party {other_name!r} than at party {name!r}. "
            "Frozen tensors are not sent: let the builder load the same file everywhere, or make the layer trainable, "
            f"or keep each party's own with local=[{differing[0]!r}]"
        )
    # Why a metric is kept apart may be told in other words.
    if replace(facts, apart={}) != replace(other, apart={}):
        raise PlanError(
            f"model: party {other_name!r} built another model than party {name!r}; the builder must return the same "
            "architecture everywhere"
        )
