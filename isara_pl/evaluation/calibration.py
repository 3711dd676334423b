"""Temperature scaling: how likely answers are once a model's confidence is set right.

A model that is sure of too much, as one is after many passes over few pairs, pays for it in its NLL without
ranking any answer worse. Dividing its logits by one temperature mends that and nothing else (Guo et al.
2017, arXiv 1706.04599, section 4.2), so what remains of a difference in NLL is not mere calibration.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# steps of a sixth of an octave
TEMPERATURES = tuple(round(2 ** (step / 6), 3) for step in range(-6, 13))
AS_IT_IS = TEMPERATURES.index(1.0)
# field of an item's line: its mean NLL per token at each of them, in this order
NLL_BY_TEMPERATURE = "answer_nll_by_temperature"


def by_temperature(nlls: Sequence[float]) -> dict[str, list[float]]:
    """Give the field of an item's line, which is left out where a model does not tell."""
    return {NLL_BY_TEMPERATURE: [*nlls]} if nlls else {}


def cross_fitted(questions: Sequence[str], nlls: Sequence[Sequence[float]], tokens: Sequence[float]) -> list[float]:
    """Give the NLL of every item at a temperature that was fitted without it.

    The questions fall into two halves by a hash of their text, the same for every model. Of each half, the
    temperature with the least mean NLL per token is taken for the other half: the vertex of the parabola, in
    log-temperature, through the best of `TEMPERATURES` and its two neighbours; of the outermost, itself. An
    item's NLL there is that of its own parabola. Where a half has nothing to fit on, the temperature is 1.

    Args:
        questions: n questions; equal ones are of one half.
        nlls: Their answers' mean NLL per token at each of `TEMPERATURES`, shape (n, temperatures). An item with one
            that is not finite is not fitted on.
        tokens: n numbers of tokens, the weights.

    Returns:
        n mean NLLs per token, in nats.
    """
    table = np.asarray(nlls, dtype=float).reshape(len(questions), len(TEMPERATURES))
    weights = np.asarray(tokens, dtype=float)
    halves = np.array([_half(question) for question in questions], dtype=int)
    known = np.isfinite(table).all(axis=1)
    scaled = np.empty(len(questions))
    for half in (0, 1):
        fitted_on = known & (halves != half)
        scaled[halves == half] = table[halves == half] @ _fitted(table[fitted_on], weights[fitted_on])
    return [float(nll) for nll in scaled]


def _half(question: str) -> int:
    # a question from a file may hold half a surrogate pair, which UTF-8 has no bytes for
    return hashlib.sha256(question.encode("utf-8", "backslashreplace")).digest()[0] % 2


def _fitted(table: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give what the NLL at each temperature counts in that at the fitted one."""
    shares = np.zeros(len(TEMPERATURES))
    if not len(table):
        shares[AS_IT_IS] = 1
        return shares
    sums = weights @ table
    best = int(np.argmin(sums))
    shares[best] = 1
    if 0 < best < len(sums) - 1:
        before, least, after = sums[best - 1 : best + 2]
        bend = before - 2 * least + after
        vertex = (before - after) / (2 * bend) if bend > 0 else 0.0  # in steps from the best, at most half of one
        shares[best - 1 : best + 2] = vertex * (vertex - 1) / 2, 1 - vertex**2, vertex * (vertex + 1) / 2
    return shares
