# SPDX-License-Identifier: Apache-2.0
"""Whether a party's labels fit a PyTorch loss, said before any training starts; and as the loss takes them.

PyTorch broadcasts labels that are shaped otherwise than the output, and is particular about types. Messages name
shapes, types and ranges, never values of the party's data. Works on the objects it is handed; imports no framework.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.backends.torch.losses import name_of, settings_of
from fedray.errors import DataError

_CLASSES = "CrossEntropyLoss NLLLoss MultiMarginLoss cross_entropy nll_loss multi_margin_loss"
CLASSES = frozenset(_CLASSES.split())
"""Stock losses of class numbers; the first and its function take probabilities as well."""

_SAME_SHAPE = (
    "BCELoss BCEWithLogitsLoss HuberLoss KLDivLoss L1Loss MSELoss MultiLabelSoftMarginLoss PoissonNLLLoss"
    " SmoothL1Loss SoftMarginLoss binary_cross_entropy binary_cross_entropy_with_logits huber_loss kl_div l1_loss"
    " mse_loss multilabel_soft_margin_loss poisson_nll_loss smooth_l1_loss soft_margin_loss"
)
SAME_SHAPE = frozenset(_SAME_SHAPE.split())
"""Stock losses whose labels are numbers shaped like the output."""

_SHARES = "BCELoss BCEWithLogitsLoss binary_cross_entropy binary_cross_entropy_with_logits"
SHARES = frozenset(_SHARES.split())
"""Those of them whose labels are from 0 to 1."""


def stock_name(torch: Any, loss: Any) -> str:
    """Returns the name of the stock loss that this is, or an empty text.

    Args:
        torch: The torch module.
        loss: A loss.
    """
    inner = loss.func if isinstance(loss, functools.partial) else loss
    name = name_of(loss)
    if isinstance(inner, torch.nn.Module):
        kinds = [k for k in type(inner).__mro__ if getattr(torch.nn, k.__name__, None) is k]
        # A class of a user's own that only sets something is the stock one; one that computes otherwise is not.
        unchanged = bool(kinds) and type(inner).forward is kinds[0].forward
        return kinds[0].__name__ if unchanged else ""
    return name if getattr(torch.nn.functional, name, None) is inner else ""


def fitted(torch: Any, loss: Any, argument: str, y: NDArray[Any], output: Any) -> NDArray[Any]:
    """Returns labels as the loss takes them: nothing is changed but types, and axes of length 1.

    Args:
        torch: The torch module.
        loss: A loss of one output.
        argument: What the labels are called.
        y: Labels of all rows.
        output: What the model returned for two rows.

    Raises:
        DataError: They do not fit.
    """
    name, shape = stock_name(torch, loss), tuple(output.shape[1:])
    if name in CLASSES:
        return _classes(loss, name, argument, y, shape)
    if name in SAME_SHAPE:
        if not _fits(shape, y.shape[1:]):
            hint = "; its labels are numbers, not classes" if y.dtype.kind in "biu" and len(shape) else ""
            raise DataError(
                f"{argument}: the loss {name!r} expects rows of shape {shape}, found {y.shape[1:]} of {y.dtype}{hint}"
            )
        if name in SHARES and y.size and not (y.min() >= 0 and y.max() <= 1):
            raise DataError(f"{argument}: the loss {name!r} expects labels from 0 to 1, found others")
        numbers = y if y.dtype.kind == "f" else y.astype(np.float32)
        return numbers.reshape(len(y), *shape)
    if not name and shape == (*y.shape[1:], 1):
        _check_own(torch, loss, argument, y, output)
    return y


def _classes(loss: Any, name: str, argument: str, y: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    classes, numbers = (shape or (0,))[0], shape[1:]
    soft = name in ("CrossEntropyLoss", "cross_entropy")
    if soft and y.dtype.kind == "f" and y.shape[1:] == shape:
        return y
    other = f", or probabilities, floats of shape {shape}" if soft else ""
    if y.dtype.kind not in "biu" or not _fits(numbers, y.shape[1:]):
        remedy = "; use y.argmax(axis=1)" if y.shape[1:] == shape else ""
        if y.dtype.kind == "f" and _fits(numbers, y.shape[1:]):
            remedy = "; use y.astype('int64')"
        raise DataError(
            f"{argument}: the loss {name!r} expects class numbers, integers of shape {numbers} per row{other}; found "
            f"{y.shape[1:]} of {y.dtype}{remedy}"
        )
    ignored = settings_of(loss).get("ignore_index")
    counted = y if ignored is None else y[y != ignored]
    if counted.size and not (counted.min() >= 0 and counted.max() < classes):
        raise DataError(f"{argument}: the loss {name!r} expects class numbers from 0 to {classes} - 1, found others")
    return y.reshape(len(y), *numbers).astype(np.int64)


def _check_own(torch: Any, loss: Any, argument: str, y: NDArray[Any], output: Any) -> None:
    """Refuses labels without the output's last axis where a loss of the user's own sets each against all outputs.

    `output - y` then has a number for each pair of rows. Tried on made-up rows.
    """
    labels = torch.from_numpy(np.resize([0, 1, 1], (3, *y.shape[1:])).astype(y.dtype)).to(output.device)
    said = torch.linspace(0.1, 0.8, 3 * output[0].numel()).reshape(3, *output.shape[1:]).to(output)
    try:
        as_given, in_column = (float(loss(said, true).mean()) for true in (labels, labels[..., None]))
    except Exception:  # It asks for something else of labels, and will say so.
        return
    if abs(as_given - in_column) > 1e-5 * abs(in_column):
        raise DataError(
            f"{argument}: the loss {name_of(loss)!r} sets each row's labels against all rows' outputs; expected rows "
            f"of shape {tuple(output.shape[1:])}, found {y.shape[1:]}; reshape them, e.g. y.reshape(-1, 1)"
        )


def _fits(expected: tuple[int, ...], found: tuple[int, ...]) -> bool:
    """Returns whether two shapes agree but for a last axis of length 1."""
    return expected == found or (*expected, 1) == found or expected == (*found, 1)
