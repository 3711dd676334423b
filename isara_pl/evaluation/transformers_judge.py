"""What judges share that are Hugging Face models: how they are loaded, and how texts become their input."""

import re
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from string import Formatter
from typing import Any, ClassVar, Literal

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from isara_pl.errors import InputError, first_line
from isara_pl.models.checks import check_complete
from isara_pl.models.loading import context_window, one_clear_error
from isara_pl.models.sources import is_local, resolve_path
from isara_pl.models.tokens import control_tokens, encode, mark, render
from isara_pl.run.stages import count

Dtype = Literal["float32", "bfloat16", "float16"]


class TransformersJudge(ABC):
    """A judge that reads its scores off one forward pass of a Hugging Face model, loaded when first used.

    A text that is longer than the judge's window loses the beginning of its question, and where that is
    not enough the beginning of its answer; the template around them stays whole.

    Args:
        model: Hub id, folder or `package://module/path`.
        template: A text with {question}, {answer} and {eos}; None takes the tokenizer's chat template.
        dtype: Type of the weights.
        batch_size: Texts that are scored at once.
        max_length: Most tokens of a text, where that is less than the judge's window.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        InputError: If the template has no {answer}, or a number is below 1.
    """

    auto_class: ClassVar[Any]
    asks_for_reply: ClassVar[bool] = False

    def __init__(
        self,
        model: str,
        template: str | None,
        dtype: Dtype,
        batch_size: int,
        max_length: int | None,
        trust_remote_code: bool,
    ) -> None:
        if template is not None:
            _check_template(template)
        for option, value in (("batch_size", batch_size), ("max_length", max_length)):
            if value is not None and value < 1:
                raise InputError(f"judge.{option} is {value}; allowed: at least 1")
        self.model = model
        self.template = template
        self.dtype = dtype
        self.batch_size = batch_size
        self.max_length = max_length
        self.trust_remote_code = trust_remote_code
        self._device = torch.device("cpu")
        self._weights: Any = None

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Names of the columns of `scores`; reads config and tokenizer, no weights.

        Raises:
            InputError: If these cannot be loaded, or an option does not fit them.
        """

    def to(self, device: str | torch.device) -> None:
        """Move the weights if they are loaded, and decide where they will be loaded.

        Args:
            device: E.g. `cuda:0`; `cpu` until this is called.
        """
        self._device = torch.device(device)
        if self._weights is not None:
            self._weights.to(self._device)

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> Tensor:
        """Give the scores of answers; but for rounding they do not depend on the batch size.

        Args:
            questions: n questions.
            answers: An answer to each.

        Returns:
            Shape (n, labels), float32 on the CPU, as the model gives them: not finite ones too. A text
            without tokens, an empty answer by itself, has nan.

        Raises:
            InputError: If the judge cannot be loaded, an option does not fit it, or its template alone
                is longer than its window.
        """
        scores = torch.full((len(questions), len(self.labels)), torch.nan, dtype=torch.float32)
        if self._weights is None:
            self._weights = self._load()
        rows = self._encode_all(questions, answers)
        by_length = sorted((place for place, row in enumerate(rows) if row), key=lambda place: len(rows[place]))
        # the trainer's mixed precision is for the model that is measured
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            for start in range(0, len(by_length), self.batch_size):
                places = by_length[start : start + self.batch_size]
                scores[places] = self._score([rows[place] for place in places]).cpu()
                count(done=len(places), prompt_tokens=sum(len(rows[place]) for place in places))
        return scores

    @abstractmethod
    def _score(self, rows: list[list[int]]) -> Tensor:
        """Give the scores of encoded texts, shape (batch, labels), float32."""

    @cached_property
    def _config(self) -> Any:
        with self._source() as source:
            return AutoConfig.from_pretrained(
                source, local_files_only=is_local(self.model), trust_remote_code=self.trust_remote_code
            )

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        with self._source() as source:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                source, local_files_only=is_local(self.model), trust_remote_code=self.trust_remote_code
            )
        return tokenizer

    @cached_property
    def _controls(self) -> re.Pattern[str] | None:
        """What finds the judge's control tokens: an answer that spells one must not end its own turn."""
        return control_tokens(self._tokenizer)

    def _load(self) -> Any:
        with self._source() as source:
            weights, report = self.auto_class.from_pretrained(
                source,
                local_files_only=is_local(self.model),
                dtype=getattr(torch, self.dtype),
                trust_remote_code=self.trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told by name below
            )
        check_complete(weights, report, self.model, "judge.model", "Use a model that was trained as such a judge")
        weights.config.use_cache = False  # nothing follows the one forward pass
        return weights.eval().to(self._device)

    @contextmanager
    def _source(self) -> Iterator[str]:
        """Give what `from_pretrained` takes; whatever that raises becomes one line."""
        with one_clear_error(self.model, "judge.model"):
            yield str(resolve_path(self.model, "judge.model")) if is_local(self.model) else self.model

    def _check_rendering(self) -> None:
        """Find out, before anything expensive runs, whether question and answer can become a text.

        Raises:
            InputError: If the tokenizer lacks what the template needs, or its chat template drops the answer.
        """
        if self.template is not None:
            if "{eos}" in self.template and self._tokenizer.eos_token is None:
                raise InputError(
                    f"judge.template has {{eos}}, but the tokenizer of {self.model} has no end-of-sequence token. "
                    "Leave {eos} out"
                )
        elif not self._tokenizer.chat_template:
            raise InputError(
                f"judge.template is null, but the tokenizer of {self.model} has no chat template. "
                "Give a text with {question} and {answer}"
            )
        elif "an answer" not in self._render("a question", "an answer"):
            raise InputError(
                f"judge.template is null, but the chat template of {self.model} drops the text of an answer. "
                "Give a text with {question} and {answer}"
            )

    def _render(self, question: str, answer: str) -> str:
        question, answer = mark(question, self._controls), mark(answer, self._controls)
        if self.template is not None:
            return self.template.format(question=question, answer=answer, eos=self._tokenizer.eos_token)
        turns = [("user", question), ("assistant", answer)]
        try:
            return render(self._tokenizer, turns, open_answer=self.asks_for_reply)
        except Exception as error:  # a template is a program of the model's author, which may refuse or fail
            raise InputError(
                f"judge.template is null, but the chat template of {self.model} raises on a question and an answer "
                f"({first_line(error)}). Give a text with {{question}} and {{answer}}"
            ) from error

    def _encode(self, question: str, answer: str) -> list[int]:
        # a chat template writes the special tokens itself
        return encode(self._tokenizer, self._render(question, answer), add_special_tokens=self.template is not None)

    def _encode_all(self, questions: Sequence[str], answers: Sequence[str]) -> list[list[int]]:
        limits = (self.max_length, self._tokenizer.model_max_length, context_window(self._weights))
        window = min(limit for limit in limits if limit is not None)
        rows, cut = [], 0
        for question, answer in zip(questions, answers, strict=True):
            ids = self._encode(question, answer)
            if len(ids) > window:
                ids = self._encode_ends(question, answer, window)
                cut += 1
            rows.append(ids)
        if cut:
            rank_zero_warn(
                f"{cut} of {len(rows)} texts are longer than the {window} tokens that the judge {self.model} reads: "
                "the beginning of the question was cut off, and where that was not enough that of the answer"
            )
        return rows

    def _encode_ends(self, question: str, answer: str, window: int) -> list[int]:
        """Encode the longest end of the question that fits before the answer, or of the answer alone."""

        def fits(question: str, answer: str) -> bool:
            return len(self._encode(question, answer)) <= window

        if fits("", answer):
            start = bisect_left(range(len(question)), True, key=lambda start: fits(question[start:], answer))
            return self._encode(question[start:], answer)
        if not fits("", ""):
            raise InputError(
                f"judge.template: without question and answer it already has more than the {window} tokens that "
                "the judge reads (judge.max_length or its window, whichever is less). Shorten it"
            )
        start = bisect_left(range(len(answer)), True, key=lambda start: fits("", answer[start:]))
        return self._encode("", answer[start:])


def padded(rows: Sequence[Sequence[int]], pad_token_id: int, device: torch.device) -> dict[str, Tensor]:
    """Pad encoded texts on the right to the longest; the mask comes from lengths.

    Args:
        rows: The ids of each text.
        pad_token_id: What fills up.
        device: Where the tensors are wanted.

    Returns:
        `input_ids` and `attention_mask`, both of shape (rows, longest).
    """
    longest = max(map(len, rows))
    ids = [[*row, *[pad_token_id] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def _check_template(template: str) -> None:
    try:
        fields = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise InputError(f"judge.template: {error} in {template!r}. Write {{{{ and }}}} for plain braces") from None
    if "answer" not in fields or not fields <= {"question", "answer", "eos"}:
        raise InputError(
            f"judge.template is {template!r}; allowed: a text with {{answer}}, and with {{question}} and {{eos}} "
            "where wanted. Write {{ and }} for plain braces"
        )
