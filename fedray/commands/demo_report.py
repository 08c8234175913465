# SPDX-License-Identifier: Apache-2.0
"""The demo's result as text, as JSON and as a picture. Knows figures; runs nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from fedray.commands.demo import BATCH_SIZE, SERVER, TEST_IMAGES, Curves, Result, Settings
from fedray.commands.streams import check_writable
from fedray.errors import FedRayError, PlanError

_KINDS = {
    "hello": "public keys and signed set-up messages",
    "initial": "initial weights, before any data was seen",
    "masked": "a contribution under masks: noise to whoever opens it alone",
    "aggregate": "sums over all parties, and the new global weights",
    "metrics": "a party's own losses and scores",
    "shape": "shapes and dtypes",
    "share": "one share of a secret, sealed for one party",
    "error": "an exception",
    "log": "what a party's process prints and logs",
    "ledger": "this record",
    "raw": "values a program asked for by name, or unprotected updates",
}


def opening(settings: Settings) -> str:
    """Returns what is about to be done."""
    names = " and ".join([", ".join(settings.names[:-1]), settings.names[-1]])
    how = (
        "adds up their masked updates and sees only the sum"
        if settings.aggregator == "secure"
        else "adds up their updates, unprotected, and sees every one of them"
    )
    return (
        f"{names} train one CNN on {settings.train_samples:,} MNIST images, each on its own share;\n"
        f"the server {SERVER} {how}, after every batch of {BATCH_SIZE}. Seed {settings.seed}."
    )


def report(result: Result) -> str:
    """Returns the comparison and the table of what left each party."""
    settings, first = result.settings, result.settings.names[0]
    lines = [
        f"on the same {TEST_IMAGES:,} test images:",
        f"  {'':32s}{'accuracy':>10s}{'loss':>10s}",
        _figures(f"federated, {settings.train_samples:,} images", result.federated),
        _figures(f"{first} alone, {settings.rows[first]:,} images", result.alone),
        "",
        verdict(result),
        f"federated training took {result.seconds:.1f} s.",
        "",
        "what left each party:",
        *(f"  {line}" for line in repr(result.ledger).splitlines()),
        *_legend(result),
    ]
    return "\n".join(lines)


def verdict(result: Result) -> str:
    """Returns one sentence on the difference, which also says when it is too small to mean anything."""
    first = result.settings.names[0]
    federated, alone = result.federated["val_accuracy"][-1], result.alone["val_accuracy"][-1]
    # In images, since "0.3 % better" does not say how few that are.
    images = round((federated - alone) * TEST_IMAGES)
    chance = chance_images(federated, alone)
    if images == 0:
        return f"both models get the same number of test images right: here, federating brought {first} nothing."
    who = "the federated model" if images > 0 else f"{first}'s own model"
    text = f"{who} gets {abs(images):,} more of them right"
    if abs(images) <= chance:
        return f"{text}: too few to mean anything, since up to {chance:,} can be chance."
    return f"{text}; up to {chance:,} could be chance."


def chance_images(left: float, right: float) -> int:
    """Returns by how many test images two models of these accuracies may differ by chance (two standard deviations).

    Taken as if the models' errors had nothing to do with each other, which is on the safe side.
    """
    # The standard deviation of the difference of two binomial counts, twice.
    return math.ceil(2 * math.sqrt(TEST_IMAGES * (left * (1 - left) + right * (1 - right))))


def as_json(result: Result) -> dict[str, Any]:
    """Returns everything measured, in plain values."""
    settings = result.settings
    return {
        "parties": list(settings.names),
        "server": SERVER,
        "aggregator": settings.aggregator,
        "backend": settings.backend,
        "epochs": settings.epochs,
        "batch_size": BATCH_SIZE,
        "seed": settings.seed,
        "train_images": settings.rows,
        "test_images": TEST_IMAGES,
        "seconds": round(result.seconds, 3),
        "federated": result.federated,
        "alone": {"party": settings.names[0]} | result.alone,
        "left": [
            {"party": party, "to": to, "kind": kind, "values": total.count, "bytes": total.nbytes}
            for (party, to, kind), total in result.ledger.totals().items()
        ],
    }


def check_plot(path: Path) -> None:
    """Checks that a picture can be written there, before anybody trains for minutes and then finds out.

    Raises:
        PlanError: It cannot, or the name ends otherwise.
        FedRayError: matplotlib is missing.
    """
    if path.suffix != ".png":
        raise PlanError(f"plot: expected a name that ends in .png, found {path.name!r}")
    check_writable("plot", path)
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise FedRayError(
            "--plot needs matplotlib, which comes with the extra 'notebooks': "
            "pip install -c constraints.txt -e '.[notebooks]'"
        ) from error


def plot(result: Result, path: Path) -> None:
    """Writes a picture of both models' curves on the test set."""
    # The Agg canvas alone and no pyplot: it needs no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    settings, first = result.settings, result.settings.names[0]
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    labels = (
        f"federated: {settings.parties} parties, {settings.train_samples:,} images",
        f"{first} alone: {settings.rows[first]:,} images",
    )
    for axes, metric in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for curves, label, style in zip((result.federated, result.alone), labels, ("o-", "s--"), strict=True):
            values = curves[f"val_{metric}"]
            axes.plot(range(1, len(values) + 1), values, style, label=label)
        axes.set(xlabel="epoch", ylabel=f"test {metric}", title=f"MNIST, {TEST_IMAGES:,} test images")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def _figures(label: str, curves: Curves) -> str:
    return f"  {label:32s}{curves['val_accuracy'][-1]:10.4f}{curves['val_loss'][-1]:10.4f}"


def _legend(result: Result) -> list[str]:
    kinds = dict.fromkeys(kind for _, _, kind in result.ledger.totals())
    return ["", *(f"  {kind:10s} {_KINDS[kind]}" for kind in kinds if kind in _KINDS)]
