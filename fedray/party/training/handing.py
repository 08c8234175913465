# SPDX-License-Identifier: Apache-2.0
"""A model on its way from one party to the others, by way of the server: with all that belongs to it, and signed.

Knows what a message holds. Knows no round, and does not know who may send a model.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fedray.party.records import ModelMessage
from fedray.party.training.local_model import LocalModel
from fedray.protocol.messages import enc, enc_list
from fedray.protocol.scales import Scales


def pack(model: LocalModel) -> ModelMessage:
    """Returns a model with all that belongs to it as a message, not yet signed."""
    state = None if model.state is None else tuple(sorted(model.state.items()))
    reaches = () if model.scales is None else model.scales.reaches
    return ModelMessage(model.weights, reaches, model.known, state, model.as_built)


def unpack(message: ModelMessage, model: LocalModel) -> None:
    """Makes what a message holds the global model of a party."""
    # Copied: its memory may belong to the message, or to another party of this process.
    model.adopt(np.array(message.weights), tuple(map(np.array, message.known)))
    model.scales = Scales(message.reaches) if message.reaches else None
    model.state = None
    if message.state is not None:
        model.state = {name: np.array(one) if isinstance(one, np.ndarray) else one for name, one in message.state}


def well_formed(message: object) -> bool:
    """Returns whether a message holds the types that `pack` puts into it, and no others that would be signed alike.

    Args:
        message: What came.
    """
    if not isinstance(message, ModelMessage):
        return False
    state = () if message.state is None else message.state
    return (
        all(type(field) is tuple for field in (message.reaches, message.known, state))
        and all(type(reach) is int for reach in message.reaches)
        and all(isinstance(one, np.ndarray) for one in (message.weights, *message.known))
        and all(type(one) is tuple and len(one) == 2 and type(one[0]) is str for one in state)
        and all(isinstance(value, np.ndarray | float) for _, value in state)
        and (type(message.initial), type(message.signature)) == (bool, bytes)
    )


def statement(sid: bytes, session: int, message: ModelMessage) -> bytes:
    """Returns what a party signs of a model: everything that a message holds, and the session that it is for.

    Args:
        sid: Session id.
        session: Number of the session: without protection the id alone does not tell two of them apart.
        message: The model.
    """
    state = [] if message.state is None else [enc("model-state", name, _said(one)) for name, one in message.state]
    return enc(
        "model",
        sid,
        session,
        _said(message.weights),
        ",".join(map(str, message.reaches)),
        enc_list("model-known", tuple(_said(one) for one in message.known)),
        int(message.state is not None),
        enc_list("model-states", tuple(state)),
        int(message.initial),
    )


def _said(value: NDArray[np.generic] | float) -> bytes:
    """Returns what a statement says of an array, or of a number."""
    if not isinstance(value, np.ndarray):
        return float(value).hex().encode()
    content = hashlib.sha256(np.ascontiguousarray(value).data)
    return enc("model-array", value.dtype.str, enc_list("shape", value.shape), content.digest())
