# SPDX-License-Identifier: Apache-2.0
"""Which of our errors stands for which of Ray's: one table, by class name.

Imports no Ray. The table names every class of `ray.exceptions`, and a test fails where a new version of Ray has one
that is missing. Until then such a class counts as its nearest base that is listed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fedray.errors import FedRayError, PartyError, PartyLost, PartyTimeout, PlanError
from fedray.party.tracebacks import cut
from fedray.runtime.memory import blamed

TABLE: Mapping[str, type[FedRayError]] = {
    # The process is gone, or nothing is known of it any more.
    "ActorDiedError": PartyLost,
    "ActorUnavailableError": PartyLost,
    "LocalRayletDiedError": PartyLost,
    "NodeDiedError": PartyLost,
    "OutOfMemoryError": PartyLost,
    "RayActorError": PartyLost,
    "RpcError": PartyLost,
    "WorkerCrashedError": PartyLost,
    # The answer was made and is gone with whoever kept it.
    "ObjectFetchTimedOutError": PartyLost,
    "ObjectFreedError": PartyLost,
    "ObjectLostError": PartyLost,
    "ObjectReconstructionFailedError": PartyLost,
    "OwnerDiedError": PartyLost,
    "PlasmaObjectNotAvailable": PartyLost,
    "ReferenceCountingAssertionError": PartyLost,
    # No answer yet.
    "GetTimeoutError": PartyTimeout,
    "RayChannelTimeoutError": PartyTimeout,
    # The cluster does not take us, or has no place for a party.
    "ActorAlreadyExistsError": PlanError,
    "ActorHandleNotFoundError": PlanError,
    "ActorPlacementGroupRemoved": PlanError,
    "ActorUnschedulableError": PlanError,
    "AuthenticationError": PlanError,
    "RuntimeEnvSetupError": PlanError,
    "TaskPlacementGroupRemoved": PlanError,
    "TaskUnschedulableError": PlanError,
    # Something in the party, or in Ray, raised.
    "AsyncioActorExit": PartyError,
    "CrossLanguageError": PartyError,
    "ObjectRefStreamEndOfStreamError": PartyError,
    "ObjectStoreFullError": PartyError,
    "OufOfBandObjectRefSerializationException": PartyError,
    "OutOfDiskError": PartyError,
    "PendingCallsLimitExceeded": PartyError,
    "RayCgraphCapacityExceeded": PartyError,
    "RayChannelError": PartyError,
    "RayDirectTransportError": PartyError,
    "RayError": PartyError,
    "RaySystemError": PartyError,
    "RayTaskError": PartyError,
    "StreamingGeneratorReplayInconsistentError": PartyError,
    "TaskCancelledError": PartyError,
    "UnserializableException": PartyError,
    "UserCodeException": PartyError,
}

_VERSIONS = re.compile(
    r"Version mismatch: The cluster was started with:\s+Ray: (\S+)\s+Python: (\S+)\s+"
    r"This process on .* was started with:\s+Ray: (\S+)\s+Python: (\S+)"
)

_MEANING: Mapping[type[FedRayError], str] = {
    PartyLost: "has ended or cannot be reached",
    PartyTimeout: "did not answer in time and may still be working",
    PlanError: "has no place in the cluster",
    PartyError: "failed outside the code it was asked to run",
}


_LOST: Mapping[str, str] = {
    "ActorDiedError": "its process ended before it had answered",
    "ActorUnavailableError": "the connection to it was lost before it had answered",
    "NodeDiedError": "its node has ended",
    "OwnerDiedError": "who had made the answer has ended",
}
"""What Ray says of these in a page, by class name; whoever trains models knows no actors."""

_NODE_DIED = re.compile(r"(?i)\bnode (has )?(died|was (terminated|marked dead))")


def translate(error: BaseException, party: str, method: str, short_of_memory: int = 0) -> FedRayError:
    """Returns our error for one of Ray's, naming party and call.

    Args:
        error: What Ray raised.
        party: Whom the call was for.
        method: What was called.
        short_of_memory: How many processes of this machine have been ended for want of memory, as far as is known.
    """
    # By name along the bases: Ray makes classes on the fly that derive both from its own and from the user's
    # exception.
    names = (cls.__name__ for cls in type(error).__mro__)
    kind = next((TABLE[name] for name in names if name in TABLE), PartyError)
    # A PartyError is the user's to debug, so it keeps its traceback. The others are Ray's advice at length.
    text = cut(str(error)) if kind is PartyError else reason(error)
    if kind is PartyLost:
        text = blamed(str(error), short_of_memory) or _lost(error) or text
    message = f"party {party!r} {_MEANING[kind]} ({method}): {text}"
    if issubclass(kind, PartyLost):
        return kind(message, party=party)
    if issubclass(kind, PartyError):
        return kind(message, party=party, function=method, remote_type=type(error).__name__)
    return kind(message)


def _lost(error: BaseException) -> str | None:
    """Returns in our words how a party was lost; None where Ray's have to do."""
    if _NODE_DIED.search(str(error)):
        return "its node has ended, or was out of reach for a minute"
    names = (cls.__name__ for cls in type(error).__mro__)
    return next((_LOST[name] for name in names if name in _LOST), None)


def node_gone(error: BaseException) -> bool:
    """Returns whether a call was sent to a node of which only a record is left."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"ActorDiedError", "ActorUnavailableError", "ActorUnschedulableError"})


def reason(error: BaseException) -> str:
    """Returns the first lines of an error that say something, without the paragraphs of advice that follow."""
    # The first line says what happened; what follows is a page of advice about Ray's flags.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:1])[:300] or type(error).__name__


def versions(text: str) -> str | None:
    """Returns which versions differ, where Ray's text says that some do; else None."""
    # Ray tells it in six lines, and the first one says nothing.
    found = _VERSIONS.search(text)
    if found is None:
        return None
    return (
        f"the cluster has Ray {found[1]} and Python {found[2]}, this machine has Ray {found[3]} and Python {found[4]}; "
        "install the same versions on every machine"
    )
