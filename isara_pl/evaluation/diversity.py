"""How varied a pool of generated samples is, and whether it collapses onto its seeds or onto itself."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from isara_pl.evaluation.refusals import is_refusal
from isara_pl.growth.retrieval import import_faiss
from isara_pl.growth.words import count_words, tokens, wording

Vectors = NDArray[np.floating[Any]]

FIGURES = (
    *("distinct_1_questions", "distinct_2_questions", "distinct_1_answers", "distinct_2_answers"),
    *("nearest_seed_cosine", "nearest_pool_cosine", "vendi_score", "answer_words", "refusal_rate", "copy_rate"),
)


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Give the share of distinct n-grams among all n-grams of the texts (arXiv 1510.03055).

    It falls as texts are added: compare it only between sets of about the same size.

    Args:
        texts: The texts; for their tokens see `isara_pl.growth.words.tokens`.
        n: Tokens of an n-gram.

    Returns:
        A share in [0, 1]; 0 where there is no n-gram.
    """
    return _distinct([tokens(text) for text in texts], n)


def vendi_score(embeddings: Vectors) -> float:
    """Give the Vendi score with the cosine kernel: how many different samples there are, in effect.

    It is the exponential of the entropy of the eigenvalues of K / n, where K holds the cosines of all pairs
    (arXiv 2210.02410): 1 for n equal samples, n for n orthogonal ones.

    Args:
        embeddings: Rows of length 1, shape (n, dimension).

    Returns:
        A number from 1 to n; 0 for no samples.
    """
    rows = embeddings.astype(np.float64)
    count, dimension = rows.shape
    if count == 0:
        return 0.0
    # both products have the same eigenvalues apart from zeros: the smaller one is enough
    kernel = rows.T @ rows if dimension < count else rows @ rows.T
    eigenvalues = np.linalg.eigvalsh(kernel / count)
    positive = eigenvalues[eigenvalues > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def nearest_cosine(embeddings: Vectors, others: Vectors | None = None) -> NDArray[np.float32]:
    """Give the cosine of each row with the row nearest to it.

    Args:
        embeddings: Rows of length 1, shape (n, dimension).
        others: The rows to look among, shape (m, dimension); None looks among the other rows of `embeddings`.

    Returns:
        Shape (n,); 0 where there is no row to compare with.

    Raises:
        InputError: If faiss is not installed.
    """
    queries = np.ascontiguousarray(embeddings, dtype=np.float32)
    base = queries if others is None else np.ascontiguousarray(others, dtype=np.float32)
    if len(queries) == 0 or len(base) < (2 if others is None else 1):
        return np.zeros(len(queries), dtype=np.float32)
    index = import_faiss().IndexFlatIP(base.shape[1])
    index.add(base)
    # among themselves, rows of length 1 find nothing nearer than themselves: the second is the nearest other one
    place = 1 if others is None else 0
    cosines: NDArray[np.float32] = index.search(queries, place + 1)[0]
    return cosines[:, place]


def is_copy(answer: str, demonstration_answers: Sequence[str]) -> bool:
    """Tell whether an answer has the same words in the same order as one of its demonstrations' answers."""
    return wording(answer) in {wording(other) for other in demonstration_answers}


def diversity(
    questions: Sequence[str],
    answers: Sequence[str],
    embeddings: Vectors | None,
    seed_cosines: Vectors | None,
    copies: Sequence[bool],
    pool_cosines: Vectors | None = None,
) -> dict[str, float]:
    """Give how varied n samples are.

    Args:
        questions: n questions.
        answers: Their answers.
        embeddings: Embeddings of the questions, rows of length 1, shape (n, dimension); None leaves out the Vendi
            score and the cosine with the pool.
        seed_cosines: Cosine of each question with the nearest seed's (`nearest_cosine`), shape (n,); None leaves out
            their mean.
        copies: Whether each answer is a copy of a demonstration (`is_copy`).
        pool_cosines: Cosine of each question, or of some, with the nearest other one's; None looks for all.

    Returns:
        `FIGURES`: `distinct_n`, `vendi_score`, and means, which are nan without any sample. Of a single one,
        `nearest_pool_cosine` is 0. `answer_words` are those of `count_words`.

    Raises:
        InputError: If faiss is not installed.
    """
    figures = {}
    for part, texts in (("questions", questions), ("answers", answers)):
        of_texts = [tokens(text) for text in texts]
        figures.update({f"distinct_{n}_{part}": _distinct(of_texts, n) for n in (1, 2)})
    if seed_cosines is not None:
        figures["nearest_seed_cosine"] = _mean(seed_cosines)
    if embeddings is not None:
        figures["nearest_pool_cosine"] = _mean(nearest_cosine(embeddings) if pool_cosines is None else pool_cosines)
        figures["vendi_score"] = vendi_score(embeddings)
    figures["answer_words"] = _mean([count_words(answer) for answer in answers])
    figures["refusal_rate"] = _mean([is_refusal(answer) for answer in answers])
    figures["copy_rate"] = _mean(copies)
    return figures


class Diversity(Metric):
    """`diversity` of all samples that were added; every process has to add samples, be they none."""

    full_state_update = False
    texts: list[Tensor]
    embeddings: list[Tensor]
    seed_cosines: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("texts", "embeddings", "seed_cosines"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(
        self,
        questions: Sequence[str],
        answers: Sequence[str],
        question_embeddings: Tensor,
        seed_cosines: Tensor,
        copies: Sequence[bool],
    ) -> None:
        """Add samples, as to `diversity`."""
        lines = "".join(json.dumps(sample) + "\n" for sample in zip(questions, answers, copies, strict=True))
        # processes exchange numbers only
        self.texts.append(torch.tensor([*lines.encode()], dtype=torch.uint8, device=self.device))
        self.embeddings.append(question_embeddings.to(self.device, torch.float32))
        self.seed_cosines.append(seed_cosines.to(self.device, torch.float32))

    def compute(self) -> dict[str, Tensor]:
        """Give the figures of `diversity`."""
        lines = dim_zero_cat(self.texts).cpu().numpy().tobytes().decode().splitlines()
        questions, answers, copies = zip(*map(json.loads, lines), strict=True) if lines else ((), (), ())
        embeddings, cosines = (dim_zero_cat(state).cpu().numpy() for state in (self.embeddings, self.seed_cosines))
        figures = diversity(questions, answers, embeddings, cosines, copies)
        return {name: torch.tensor(figure, dtype=torch.float32) for name, figure in figures.items()}


def _distinct(of_texts: Sequence[Sequence[str]], n: int) -> float:
    every = [tuple(found[start : start + n]) for found in of_texts for start in range(len(found) - n + 1)]
    return len(set(every)) / max(len(every), 1)


def _mean(values: Vectors | Sequence[float]) -> float:
    return float(torch.as_tensor(values, dtype=torch.float32).sum() / len(values))
