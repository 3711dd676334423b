"""The log-probability of given answers after a prompt, one row a question where the model allows it.

A question's prompt stands once in its row and its choices after it, side by side: every choice has the
positions that follow the prompt, and sees the prompt and itself but no other choice (a tree attention
mask). Where a model cannot take such a mask, every choice is a row of its own.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from isara_pl.errors import InputError
from isara_pl.models import context_window
from isara_pl.sft import EncodedPair, answer_nll, collate
from isara_pl.stages import count
from isara_pl.tokens import encode_continuation


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
    """

    log_probability: float
    tokens: int


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
    model: Any, tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question], batch_size: int
) -> list[list[ChoiceScore]]:
    """Give the score of every choice of every question.

    Args:
        model: A causal LM in eval mode.
        tokenizer: Its tokenizer.
        questions: n questions, each with at least one choice.
        batch_size: Rows that are scored at once: questions, or choices where the model needs plain rows.

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
        for start in range(0, len(encoded), batch_size):
            chosen = encoded[start : start + batch_size]
            ids = [(question.prompt, question.choices) for question in chosen]
            scores = tree_scores(model, ids) if trees else row_scores(model, ids, batch_size)
            for question, given in zip(chosen, scores, strict=True):
                found[question.place] = [
                    ChoiceScore(log_probability, len(choice))
                    for log_probability, choice in zip(given, question.choices, strict=True)
                ]
            count(done=len(chosen), prompt_tokens=sum(question.row_length for question in chosen))
    return found


def row_scores(
    model: Any, questions: Sequence[tuple[list[int], list[list[int]]]], batch_size: int
) -> list[list[float]]:
    """Score every choice in a row of its own.

    Args:
        model: A causal LM in eval mode.
        questions: For each question the ids of its prompt and of its choices.
        batch_size: Rows that are scored at once.

    Returns:
        For each question the summed log-probability of its choices.
    """
    pairs = [EncodedPair("", prompt + choice, len(prompt)) for prompt, choices in questions for choice in choices]
    scores: list[float] = []
    for start in range(0, len(pairs), batch_size):
        batch = collate(pairs[start : start + batch_size], pad_token_id=0)  # no loss there, and masked
        for name in ("input_ids", "attention_mask", "labels"):
            batch[name] = batch[name].to(model.device)
        sums, _ = answer_nll(model, batch)
        scores.extend((-sums).tolist())
    each = iter(scores)
    return [[next(each) for _ in choices] for _, choices in questions]


def tree_scores(model: Any, questions: Sequence[tuple[list[int], list[list[int]]]]) -> list[list[float]]:
    """Score all choices of a question in one row, all questions at once.

    Args:
        model: A causal LM in eval mode that takes a 4-D attention mask and positions.
        questions: For each question the ids of its prompt and of its choices.

    Returns:
        For each question the summed log-probability of its choices.
    """
    longest = max(len(prompt) + sum(map(len, choices)) for prompt, choices in questions)
    input_ids = torch.zeros(len(questions), longest, dtype=torch.long)
    positions = torch.zeros_like(input_ids)
    branch = torch.full_like(input_ids, -1)  # 0 the prompt, 1, 2, … its choices, -1 padding
    rows, before, targets, owners = [], [], [], []  # of every scored token; `before` is where it is predicted
    owner = 0
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
            targets.extend(choice)
            owners.extend([owner] * len(choice))
            owner += 1
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
    losses = torch.nn.functional.cross_entropy(
        logits[torch.tensor(rows), torch.tensor(before) - first].float(),  # (scored tokens, vocabulary)
        torch.tensor(targets, device=device),
        reduction="none",
    )
    # not the default type, which `bf16-true` changes
    sums = torch.zeros(owner, dtype=torch.float32, device=device).index_add_(
        0, torch.tensor(owners, device=device), -losses
    )
    each = iter(sums.tolist())
    return [[next(each) for _ in choices] for _, choices in questions]


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
    attention over the whole row, and do both ways give the same for the longest of these questions?

    Args:
        model: The causal LM.
        questions: The questions, the longest row last.
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
        tree = torch.tensor(tree_scores(model, probe), dtype=torch.float64)
    except (RuntimeError, ValueError, TypeError):  # a model of its own kind: plain rows always work
        return False
    plain = torch.tensor(row_scores(model, probe, batch_size=1), dtype=torch.float64)
    computes_exactly = model.dtype == torch.float32 and not torch.is_autocast_enabled(model.device.type)
    return torch.allclose(tree, plain, rtol=1e-4 if computes_exactly else 2e-2, atol=1e-3)


def _encode(tokenizer: PreTrainedTokenizerBase, question: Question, place: int) -> _Encoded:
    pairs = [encode_continuation(tokenizer, question.prompt, choice) for choice in question.choices]
    for choice, (_, ids) in zip(question.choices, pairs, strict=True):
        if not ids:
            raise InputError(f"a choice has no tokens: {choice!r} after {question.prompt[-60:]!r}. Remove it")
    return _Encoded(place, pairs[0][0], [ids for _, ids in pairs])


def _check_window(model: Any, questions: Sequence[Question], encoded: Sequence[_Encoded]) -> None:
    window = context_window(model)
    longest = max(encoded, key=lambda question: question.longest, default=None)
    if window and longest and longest.longest > window:
        raise InputError(
            f"a held-out question and its answer have {longest.longest} tokens, the model's window {window}: "
            f"{questions[longest.place].prompt[-60:]!r}. Shorten or remove it"
        )
