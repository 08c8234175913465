# SPDX-License-Identifier: Apache-2.0
"""Following: what follows from an opened sum, at every party alike: other bounds for its inputs, or the next model.

Knows a local model, a strategy and the session's sums. Trains nothing. The server's half of a strategy runs here, in
every party, on what all of them were handed; so nobody has to believe anybody's word on a model.
"""

from __future__ import annotations

from fedray.party.rounds.contributor import Contributor
from fedray.party.training.local_model import LocalModel
from fedray.protocol.manifest import Manifest
from fedray.protocol.opened import OpenedSum
from fedray.protocol.scales import Scales
from fedray.protocol.scheme import Opened
from fedray.strategies import Strategy
from fedray.strategies.halves import ServerState, advance, first_reaches


class Following:
    """One party's way from one model to the next.

    Args:
        contributor: Its end of the private sums.
        model: Its model.
        strategy: Whose server half is applied.
    """

    def __init__(self, contributor: Contributor, model: LocalModel, strategy: Strategy) -> None:
        self._contributor, self._model, self._strategy = contributor, model, strategy

    def bounded(self, manifest: Manifest) -> Manifest:
        """Returns a manifest with the bounds that its tensors have in the next round."""
        return manifest.reaching(self._scales(manifest).reaches)

    def settle(self, found: OpenedSum, manifest: Manifest, *, repeats: bool) -> Opened | None:
        """Returns what a sum says; None where values did not fit, and the same inputs are summed once more.

        Args:
            found: The sum.
            manifest: What its words mean, as `bounded` returned it.
            repeats: Whether its round has repeated the one before.

        Raises:
            ProtocolError: The sum is noise or out of range, or its values fit nowhere.
        """
        opened = self._contributor.read(found, manifest)
        before = self._scales(manifest)
        scales = before if repeats else before.abandoned()
        self._model.scales = scales.after(manifest, opened.extents, self._contributor.room)
        return None if self._model.scales.again else opened

    def advance(self, opened: Opened) -> None:
        """Makes the next model of a sum that has settled."""
        model, strategy = self._model, self._strategy
        before = ServerState(model.weights, model.state, model.known)
        trainable = model.facts.spec.trainable
        after = advance(strategy, before, trainable, opened.read)
        model.as_built, model.state = False, after.state
        if strategy.local == "gradient":
            model.backend.apply_gradient(after.weights)
            model.take_over(model.backend.weights(), after.known)
        else:
            model.take_over(after.weights, after.known)

    def _scales(self, manifest: Manifest) -> Scales:
        model = self._model
        if model.scales is not None:
            return model.scales
        return Scales(first_reaches(manifest, model.facts.spec.trainable, model.weights))
