"""How varied a pool of generated samples is, and whether it collapses onto its seeds or onto itself."""

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from isara_pl.evaluation.text_overlap import ngrams
from isara_pl.growth.retrieval import import_faiss
from isara_pl.growth.words import count_words, wording

REFUSALS = (
    "i'm sorry",
    "i am sorry",
    "sorry, but",
    "sorry, i can't",
    "sorry, i cannot",
    "i apologize",
    "i cannot",
    "i can not",
    "i can't",
    "i won't",
    "i'm unable",
    "i am unable",
    "i'm not able",
    "i am not able",
    "i must decline",
    "i have no comment",
    "unfortunately, i can't",
    "unfortunately, i cannot",
    "as an ai",
    "as a language model",
    "as a large language model",
    "i'm an ai",
    "i am an ai",
    "i'm just an ai",
)  # in lower case
_REFUSAL = re.compile(rf"\W*(?:{'|'.join(map(re.escape, REFUSALS))})\b")


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Give the share of distinct n-grams among all n-grams of the texts (arXiv 1510.03055).

    It falls as texts are added: compare it only between sets of about the same size.

    Args:
        texts: The texts; for their tokens see `isara_pl.evaluation.text_overlap.ngrams`.
        n: Tokens of an n-gram.

    Returns:
        A share in [0, 1]; 0 where there is no n-gram.
    """
    every = [ngram for text in texts for ngram in ngrams(text, n)]
    return len(set(every)) / max(len(every), 1)


def vendi_score(embeddings: NDArray[np.floating[Any]]) -> float:
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


def nearest_cosine(
    embeddings: NDArray[np.floating[Any]], others: NDArray[np.floating[Any]] | None = None
) -> NDArray[np.float32]:
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


def is_refusal(answer: str) -> bool:
    """Tell whether an answer begins as refusals do, with one of `REFUSALS`.

    A rule of thumb, and for English only: it also takes "I'm sorry for your loss" for a refusal, and misses
    one that begins in another way. Case, leading punctuation and the kind of apostrophe make no difference.

    Args:
        answer: The answer.
    """
    return _REFUSAL.match(answer.casefold().replace("’", "'")) is not None


def is_copy(answer: str, demonstration_answers: Sequence[str]) -> bool:
    """Tell whether an answer has the same words in the same order as one of its demonstrations' answers.

    Args:
        answer: The answer.
        demonstration_answers: Answers of the samples in its prompt.
    """
    return wording(answer) in {wording(other) for other in demonstration_answers}


class Diversity(Metric):
    """The diversity of samples, over all that were added in any process.

    N-grams are kept as 64-bit hashes. Every process has to add samples, be they none, since an empty state
    has no shape to gather.
    """

    full_state_update = False
    question_unigrams: list[Tensor]
    question_bigrams: list[Tensor]
    answer_unigrams: list[Tensor]
    answer_bigrams: list[Tensor]
    embeddings: list[Tensor]
    seed_cosines: Tensor
    answer_words: Tensor
    refusals: Tensor
    copies: Tensor
    samples: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("question_unigrams", "question_bigrams", "answer_unigrams", "answer_bigrams", "embeddings"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("seed_cosines", torch.tensor(0.0), dist_reduce_fx="sum")
        for name in ("answer_words", "refusals", "copies", "samples"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(
        self,
        questions: Sequence[str],
        answers: Sequence[str],
        question_embeddings: Tensor,
        seed_cosines: Tensor,
        copies: Sequence[bool],
    ) -> None:
        """Add samples.

        Args:
            questions: n questions.
            answers: Their answers.
            question_embeddings: Embeddings of the questions, rows of length 1, shape (n, dimension).
            seed_cosines: Cosine of each question with the nearest seed's (`nearest_cosine`), shape (n,).
            copies: Whether each answer is a copy of a demonstration (`is_copy`).
        """
        self.question_unigrams.append(self._hashes(questions, 1))
        self.question_bigrams.append(self._hashes(questions, 2))
        self.answer_unigrams.append(self._hashes(answers, 1))
        self.answer_bigrams.append(self._hashes(answers, 2))
        self.embeddings.append(question_embeddings.to(self.device, torch.float32))
        self.seed_cosines = self.seed_cosines + seed_cosines.sum().to(self.device)
        self.answer_words = self.answer_words + sum(count_words(answer) for answer in answers)
        self.refusals = self.refusals + sum(is_refusal(answer) for answer in answers)
        self.copies = self.copies + sum(copies)
        self.samples = self.samples + len(questions)

    def compute(self) -> dict[str, Tensor]:
        """Give `distinct_n` and `vendi_score` of all samples, and the means of the other figures.

        The names are `distinct_1_questions`, `distinct_2_questions`, `distinct_1_answers`,
        `distinct_2_answers`, `nearest_seed_cosine`, `nearest_pool_cosine` (0 for a single sample),
        `vendi_score`, `answer_words` (`count_words`), `refusal_rate` and `copy_rate`. Without any
        sample the means are NaN.

        Raises:
            InputError: If faiss is not installed.
        """
        embeddings = dim_zero_cat(self.embeddings).cpu().numpy()
        return {
            "distinct_1_questions": _distinct(self.question_unigrams),
            "distinct_2_questions": _distinct(self.question_bigrams),
            "distinct_1_answers": _distinct(self.answer_unigrams),
            "distinct_2_answers": _distinct(self.answer_bigrams),
            "nearest_seed_cosine": self.seed_cosines / self.samples,
            "nearest_pool_cosine": torch.from_numpy(nearest_cosine(embeddings)).mean(),
            "vendi_score": torch.tensor(vendi_score(embeddings)),
            "answer_words": self.answer_words / self.samples,
            "refusal_rate": self.refusals / self.samples,
            "copy_rate": self.copies / self.samples,
        }

    def _hashes(self, texts: Sequence[str], n: int) -> Tensor:
        # not Python's hash, which differs from process to process
        digests = [blake2b(ngram.encode(), digest_size=8).digest() for text in texts for ngram in ngrams(text, n)]
        return torch.tensor(
            [int.from_bytes(digest, "big", signed=True) for digest in digests], dtype=torch.int64, device=self.device
        )


def _distinct(hashes: list[Tensor]) -> Tensor:
    every = dim_zero_cat(hashes)
    return torch.tensor(len(torch.unique(every)) / max(len(every), 1))
