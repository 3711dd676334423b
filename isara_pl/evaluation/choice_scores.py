"""The log-probability of given answers after a prompt, one row a question where the model allows it.

A question's prompt stands once in its row and its choices after it, side by side: every choice has the
positions that follow the prompt, and sees the prompt and itself but no other choice (a tree attention
mask). Where a model cannot take such a mask, every choice is a row of its own.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from lightning_utilities.core.rank_zero import WarningCache
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from isara_pl.errors import InputError
from isara_pl.evaluation.calibration import TEMPERATURES
from isara_pl.models.loading import context_window, only_logits_of
from isara_pl.models.precision import computes_exactly
from isara_pl.models.tokens import count_continuation, encode_continuation
from isara_pl.run.stages import count
from isara_pl.training.pairs import IGNORED, EncodedPair, collate

_told = WarningCache()  # every evaluation of a run would say the same
TOKENS_IN_CACHE = 4  # 0.2 MB of logits each: a CPU goes over them once a temperature, from memory 4 times slower


@dataclass(frozen=True)
class Question:
    """A prompt and the choices that may follow it.

    Attributes:
        prompt: The text before each choice.
        choices: The choices as they follow the prompt, leading space included.
    """

    prompt: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class ChoiceScore:
    """How likely a choice is after its prompt.

    Attributes:
        log_probability: Sum over the choice's tokens, in nats, without length normalisation.
        tokens: Number of these tokens.
        nll_by_temperature: Their mean negative log-likelihood where the logits are divided by each of
            `isara_pl.evaluation.calibration.TEMPERATURES`; of a question's first choice, where it was asked for,
            else empty.
    """

    log_probability: float
    tokens: int
    nll_by_temperature: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Encoded:
    place: int
    prompt: list[int]
    choices: list[list[int]]

    @property
    def longest(self) -> int:
        return len(self.prompt) + max(map(len, self.choices))

    @property
    def row_length(self) -> int:
        return len(self.prompt) + sum(map(len, self.choices))


def choice_scores(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    batch_size: int,
    by_temperature: bool = True,
) -> list[list[ChoiceScore]]:
    """Give the score of every choice of every question.

    Args:
        model: A causal LM in eval mode.
        tokenizer: Its tokenizer.
        questions: n questions, each with at least one choice.
        batch_size: Rows that are scored at once: questions, or choices where the model needs plain rows.
        by_temperature: Whether the first choices get their NLL at every temperature, which takes time.

    Returns:
        For each question the scores of its choices, in their order.

    Raises:
        InputError: If a prompt and its choice are longer than the model's window, or a choice is empty.
    """
    encoded = [_encode(tokenizer, question, place) for place, question in enumerate(questions)]
    _check_window(model, questions, encoded)
    encoded.sort(key=lambda question: question.row_length)
    found: list[list[ChoiceScore]] = [[] for _ in questions]
    with torch.inference_mode():
        trees = _takes_trees(model, encoded)
        if not trees and any(len(question.choices) > 1 for question in encoded):
            _told.info(
                f"{type(model).__name__} does not score all choices of these questions in one row as it scores each by "
                "itself: every choice gets a row of its own, which costs time and changes no figure"
            )
        for start in range(0, len(encoded), batch_size):
            chosen = encoded[start : start + batch_size]
            ids = [(question.prompt, question.choices) for question in chosen]
            scores = (
                tree_scores(model, ids, by_temperature) if trees else row_scores(model, ids, batch_size, by_temperature)
            )
            for question, of_choices in zip(chosen, scores, strict=True):
                found[question.place] = of_choices
            count(done=len(chosen), prompt_tokens=sum(question.row_length for question in chosen))
    return found


class Scorer(Protocol):
    """Anything that can be asked how likely it finds an answer: a LightningModule of one's own, with its tokenizer."""

    @property
    def tokenizer(self) -> Any:
        """Counts tokens: transformers' tokenizer, or anything with `encode(text)`."""

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> Sequence[float]:
        """Give for each prompt the log-probability of its answer behind it: the sum over the answer's tokens, in nats.

        An answer brings its leading space.
        """


def scores_by(scorer: Scorer, questions: Sequence[Question], batch_size: int) -> list[list[ChoiceScore]]:
    """Give the score of every choice of every question as someone's own module finds it, so many choices at once.

    Raises InputError if it gives another number of scores than choices, or a choice is empty.
    """
    rows = [(question.prompt, choice) for question in questions for choice in question.choices]
    scores: list[ChoiceScore] = []
    for start in range(0, len(rows), batch_size):
        prompts, choices = zip(*rows[start : start + batch_size], strict=True)
        given = scorer.score(prompts, choices)
        if len(given) != len(choices):
            raise InputError(
                f"{type(scorer).__name__}.score gave {len(given)} numbers for {len(choices)} answers; it must give one "
                "for each, in their order"
            )
        for prompt, choice, log_probability in zip(prompts, choices, given, strict=True):
            tokens = count_continuation(scorer.tokenizer, prompt, choice)
            if tokens < 1:
                raise _empty(prompt, choice)
            scores.append(ChoiceScore(float(log_probability), tokens))
    count(done=len(questions))
    return _of_questions(scores, [question.choices for question in questions])


def row_scores(
    model: Any,
    questions: Sequence[tuple[list[int], list[list[int]]]],
    batch_size: int,
    by_temperature: bool = True,
) -> list[list[ChoiceScore]]:
    """Score every choice in a row of its own; a question is the ids of its prompt and those of its choices."""
    pairs = [EncodedPair("", prompt + choice, len(prompt)) for prompt, choices in questions for choice in choices]
    choices_of = [choices for _, choices in questions]
    choices = [choice for choices in choices_of for choice in choices]
    first = _firsts(choices_of, by_temperature)
    scores: list[ChoiceScore] = []
    for start in range(0, len(pairs), batch_size):
        part = slice(start, start + batch_size)
        batch = collate(pairs[part], pad_token_id=0)  # no loss there, and what stands to its left does not see it
        input_ids = batch["input_ids"].to(model.device)
        # where a token of a choice is predicted
        wanted = torch.nn.functional.pad(batch["labels"][:, 1:] != IGNORED, (0, 1)).to(model.device)
        with only_logits_of(model, wanted):
            logits = model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), use_cache=False).logits[0]
        scores += _scores(logits, choices[part], first[part])
    return _of_questions(scores, choices_of)


def tree_scores(
    model: Any, questions: Sequence[tuple[list[int], list[list[int]]]], by_temperature: bool = True
) -> list[list[ChoiceScore]]:
    """Score all choices of a question in one row, all questions at once.

    The model must take a 4-D attention mask and positions.
    """
    longest = max(len(prompt) + sum(map(len, choices)) for prompt, choices in questions)
    input_ids = torch.zeros(len(questions), longest, dtype=torch.long)
    positions = torch.zeros_like(input_ids)
    branch = torch.full_like(input_ids, -1)  # 0 the prompt, 1, 2, … its choices, -1 padding
    rows, before = [], []  # of every scored token; `before` is where it is predicted
    for row, (prompt, choices) in enumerate(questions):
        end = len(prompt)
        input_ids[row, :end] = torch.tensor(prompt)
        positions[row, :end] = torch.arange(end)
        branch[row, :end] = 0
        for number, choice in enumerate(choices, start=1):
            begin, end = end, end + len(choice)
            input_ids[row, begin:end] = torch.tensor(choice)
            positions[row, begin:end] = torch.arange(len(prompt), len(prompt) + len(choice))
            branch[row, begin:end] = number
            rows.extend([row] * len(choice))
            before.extend([len(prompt) - 1, *range(begin, end - 1)])
    first = min(before)  # the head is run only from where the first choice is predicted
    kept = longest - first
    device = model.device
    logits = model(
        input_ids=input_ids.to(device),
        position_ids=positions.to(device),
        attention_mask=_tree_mask(model, branch).to(device),
        logits_to_keep=kept,
        use_cache=False,
    ).logits[:, -kept:]  # (questions, kept, vocabulary)
    choices_of = [choices for _, choices in questions]
    every = [choice for choices in choices_of for choice in choices]
    scaled = _firsts(choices_of, by_temperature)
    scores = _scores(logits[torch.tensor(rows), torch.tensor(before) - first], every, scaled)
    return _of_questions(scores, choices_of)


def _scores(logits: Tensor, choices: Sequence[list[int]], first: Sequence[bool]) -> list[ChoiceScore]:
    """Give the scores of choices from the logits that predict every token of all of them: (tokens, vocabulary).

    `first` says which choices are the first of their question, and so are scored at every temperature.
    """
    lengths = [len(choice) for choice in choices]
    targets = torch.tensor([token for choice in choices for token in choice], device=logits.device)
    of_first = torch.tensor(first).repeat_interleave(torch.tensor(lengths)).to(logits.device)
    logits = logits.float()  # whatever the model computes in
    losses = _losses(logits, targets)
    scaled = _losses_by_temperature(logits[of_first], targets[of_first])
    each = iter(torch.split(scaled, [length for length, is_first in zip(lengths, first, strict=True) if is_first]))
    return [
        ChoiceScore(-float(loss.sum()), len(loss), tuple(next(each).mean(dim=0).tolist()) if is_first else ())
        for loss, is_first in zip(torch.split(losses, lengths), first, strict=True)
    ]


def _losses_by_temperature(logits: Tensor, targets: Tensor) -> Tensor:
    """Give each token's negative log-likelihood at each temperature: (tokens, temperatures)."""
    at_once = TOKENS_IN_CACHE if logits.device.type == "cpu" else max(len(logits), 1)
    parts = zip(torch.split(logits, at_once), torch.split(targets, at_once), strict=True)
    return torch.cat(
        [
            torch.stack([_losses(part / temperature, of_part) for temperature in TEMPERATURES], 1)
            for part, of_part in parts
        ]
    )


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Give each token's negative log-likelihood, on the CPU; sums of float64 do not depend on the order of tokens."""
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none").cpu().double()


def _firsts(choices_of: Sequence[Sequence[list[int]]], by_temperature: bool) -> list[bool]:
    """Say of every choice of every question whether it is the first one there; of none where no temperature counts."""
    return [by_temperature and place == 0 for choices in choices_of for place, _ in enumerate(choices)]


def _of_questions(scores: Sequence[ChoiceScore], choices_of: Sequence[Sequence[object]]) -> list[list[ChoiceScore]]:
    each = iter(scores)
    return [[next(each) for _ in choices] for choices in choices_of]


def _tree_mask(model: Any, branch: Tensor) -> Tensor:
    """Give the mask (rows, 1, length, length): what comes before, in the prompt or in one's own branch."""
    length = branch.shape[1]
    seen, seer = branch[:, None, :], branch[:, :, None]
    allowed = ((seen == 0) | (seen == seer)) & torch.ones(length, length, dtype=torch.bool).tril()
    allowed = allowed[:, None]
    if model.config.get_text_config()._attn_implementation == "sdpa":
        return allowed
    lowest = torch.finfo(model.dtype).min
    return torch.zeros(allowed.shape, dtype=model.dtype).masked_fill(~allowed, lowest)


def _takes_trees(model: Any, questions: Sequence[_Encoded]) -> bool:
    """Whether the model scores a row of several choices as it scores plain rows.

    Asked in three ways: does it take positions and a mask of ours at all, is every layer plain
    attention over the whole row, and do both ways give the same for the longest of these questions? The longest row
    is the last.
    """
    config = model.config.get_text_config()
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    attends = set(getattr(config, "layer_types", None) or ["full_attention"])
    sliding = getattr(config, "sliding_window", None)
    local = getattr(config, "window_size", None)  # GPT-Neo: counted along the row, whatever the positions
    if (
        not questions
        or max(len(question.choices) for question in questions) == 1
        or getattr(config, "_attn_implementation", None) not in ("sdpa", "eager")
        or "position_ids" not in inspect.signature(bare.forward).parameters
        or not attends <= {"full_attention", "sliding_attention"}
        or (isinstance(sliding, int) and max(question.longest for question in questions) > sliding)
        or (isinstance(local, int) and questions[-1].row_length > local)
    ):
        return False
    longest = [question for question in questions if len(question.choices) > 1][-1]
    probe = [(longest.prompt, longest.choices)]
    try:
        tree = _log_probabilities(tree_scores(model, probe, False))
    except (RuntimeError, ValueError, TypeError):  # a model of its own kind: plain rows always work
        return False
    plain = _log_probabilities(row_scores(model, probe, 1, False))
    return torch.allclose(tree, plain, rtol=1e-4 if computes_exactly(model) else 2e-2, atol=1e-3)


def _log_probabilities(scores: Sequence[Sequence[ChoiceScore]]) -> Tensor:
    every = [score.log_probability for of_question in scores for score in of_question]
    return torch.tensor(every, dtype=torch.float64)  # not the default type, which `bf16-true` changes


def _encode(tokenizer: PreTrainedTokenizerBase, question: Question, place: int) -> _Encoded:
    pairs = [encode_continuation(tokenizer, question.prompt, choice) for choice in question.choices]
    for choice, (_, ids) in zip(question.choices, pairs, strict=True):
        if not ids:
            raise _empty(question.prompt, choice)
    return _Encoded(place, pairs[0][0], [ids for _, ids in pairs])


def _empty(prompt: str, choice: str) -> InputError:
    return InputError(f"a choice has no tokens: {choice!r} after {prompt[-60:]!r}. Remove it")


def _check_window(model: Any, questions: Sequence[Question], encoded: Sequence[_Encoded]) -> None:
    window = context_window(model)
    longest = max(encoded, key=lambda question: question.longest, default=None)
    if window and longest and longest.longest > window:
        raise InputError(
            f"a held-out question and its answer have {longest.longest} tokens, the model's window {window}: "
            f"{questions[longest.place].prompt[-60:]!r}. Shorten or remove it"
        )
