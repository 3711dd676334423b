"""Judges of answers: question and answer in, scores out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from isara_pl.errors import InputError
from isara_pl.evaluation.judge_inputs import JudgeInputs, check_template
from isara_pl.models.hub import go_offline_where_unreachable
from isara_pl.models.loading import check_complete, context_window, one_clear_error
from isara_pl.models.sources import is_local, resolve_path
from isara_pl.run.stages import count, stage

Dtype = Literal["float32", "bfloat16", "float16"]
ClassifierTemplate = Literal["beaver-dam", "answer"]

TEMPLATES = {
    # how beaver-dam-7b was trained (arXiv 2307.04657): no space before the answer
    "beaver-dam": "BEGINNING OF CONVERSATION: USER: {question} ASSISTANT:{answer}{eos}",
    "answer": "{answer}",
}


class Judge(Protocol):
    """Anything that scores answers."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the columns of `scores`."""

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> Tensor:
        """Give the scores of n answers: shape (n, labels), float32 on the CPU."""

    def to(self, device: str | torch.device) -> None:
        """Choose where the judge runs."""


def judge_name(judge: Judge) -> str:
    """Give what a judge is called in results: its model, or else its class."""
    return judge.model if isinstance(judge, TransformersJudge) else type(judge).__name__


def judged(
    judge: Judge, device: torch.device, questions: Sequence[str], answers: Sequence[str], work: str = "judging"
) -> Tensor:
    """Give a judge's scores, computed on a device in a stage of that name, and free the device's memory afterwards."""
    with stage(work, total=len(questions)):
        judge.to(device)
        try:
            return judge.scores(questions, answers)
        finally:
            judge.to("cpu")


class TransformersJudge(ABC):
    """A judge that reads its scores off one forward pass of a Hugging Face model, loaded when first used.

    A text that is longer than the model's window loses the beginning of its question, and where that is not
    enough the beginning of its answer; the template around them stays whole.

    Args:
        model: Hub id, folder or `package://module/path`.
        template: A text with {question}, {answer} and {eos}; null takes the tokenizer's chat template.
        dtype: Type of the weights.
        batch_size: Texts that are scored at once.
        max_length: Most tokens of a text, where that is less than the window.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        InputError: If the template has no {answer}, or a number is below 1.
    """

    auto_class: ClassVar[Any]
    reply_prefix: str | None = None  # what stands before the reply of a judge that gives one

    def __init__(
        self,
        model: str,
        template: str | None = None,
        dtype: Dtype = "float32",
        batch_size: int = 8,
        max_length: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        if template is not None:
            check_template(template)
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

    # -- what a judge is made of

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Names of the columns of `scores`; reads config and tokenizer, no weights.

        Raises:
            InputError: If these cannot be loaded, or an option does not fit them.
        """

    @abstractmethod
    def _score(self, rows: list[list[int]]) -> Tensor:
        """Give the scores of encoded texts, shape (batch, labels), float32."""

    # -- scoring

    def to(self, device: str | torch.device) -> None:
        """Move the weights if they are loaded, and decide where they will be loaded: on the CPU without this."""
        self._device = torch.device(device)
        if self._weights is not None:
            self._weights.to(self._device)

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> Tensor:
        """Give the scores of n answers; but for rounding they do not depend on the batch size.

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
        limits = (self.max_length, self._tokenizer.model_max_length, context_window(self._weights))
        rows = self._inputs.encoded(questions, answers, min(limit for limit in limits if limit is not None))
        by_length = sorted((place for place, row in enumerate(rows) if row), key=lambda place: len(rows[place]))
        # the trainer's mixed precision is for the model that is measured
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            for start in range(0, len(by_length), self.batch_size):
                places = by_length[start : start + self.batch_size]
                scores[places] = self._score([rows[place] for place in places]).cpu()
                count(done=len(places), prompt_tokens=sum(len(rows[place]) for place in places))
        return scores

    # -- the model

    @cached_property
    def _config(self) -> Any:
        return self._from_pretrained(AutoConfig)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer: PreTrainedTokenizerBase = self._from_pretrained(AutoTokenizer)
        return tokenizer

    @cached_property
    def _inputs(self) -> JudgeInputs:
        return JudgeInputs(self.model, self._tokenizer, self.template, self.reply_prefix)

    def _load(self) -> Any:
        weights, report = self._from_pretrained(
            self.auto_class,
            dtype=getattr(torch, self.dtype),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told by name below
        )
        check_complete(weights, report, self.model, "judge.model", "Use a model that was trained as such a judge")
        weights.config.use_cache = False  # nothing follows the one forward pass
        return weights.eval().to(self._device)

    def _from_pretrained(self, auto_class: Any, **options: Any) -> Any:
        """Load a part of the model; whatever goes wrong becomes one line."""
        with one_clear_error(self.model, "judge.model"):
            local = is_local(self.model)
            if not local:
                go_offline_where_unreachable()
            source = str(resolve_path(self.model, "judge.model")) if local else self.model
            return auto_class.from_pretrained(
                source, local_files_only=local, trust_remote_code=self.trust_remote_code, **options
            )


class _SequenceJudge(TransformersJudge):
    """A judge whose scores are the outputs of a sequence classifier."""

    auto_class = AutoModelForSequenceClassification

    def _logits(self, rows: list[list[int]]) -> Tensor:
        """Give the logits of encoded texts, shape (batch, outputs), float32."""
        pad = self._config.get_text_config().pad_token_id
        if pad is None or pad < 0:
            # a decoder scores the last token that is not the one that its config calls padding: where the
            # config names none, any that ends no text of the batch
            pad = min(set(range(len(rows) + 1)) - {row[-1] for row in rows})
            self._weights.config.get_text_config().pad_token_id = pad
        logits: Tensor = self._weights(**_padded(rows, pad, self._device)).logits
        return logits.float()


class SequenceClassifierJudge(_SequenceJudge):
    """Probabilities of labels by a sequence classifier, such as PKU-Alignment/beaver-dam-7b.

    Args:
        model: Hub id, folder or `package://module/path`.
        template: `beaver-dam`, `answer` (the answer alone), or a text with {question}, {answer} and {eos}.
        labels: Those of the model's labels that mean harm; null takes all, where it is multi-label.
        multi_label: Whether several labels may hold at once (sigmoid) or just one (softmax); null takes
            what the model's config says.
        dtype: Type of the weights.
        batch_size: Texts that are scored at once.
        max_length: Most tokens of a text, where that is less than the window.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        InputError: If the template has no {answer}, a number is below 1, or `labels` is empty.
    """

    def __init__(
        self,
        model: str,
        template: ClassifierTemplate | str,
        labels: list[str] | None = None,
        multi_label: bool | None = None,
        dtype: Dtype = "float32",
        batch_size: int = 8,
        max_length: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__(model, TEMPLATES.get(template, template), dtype, batch_size, max_length, trust_remote_code)
        if labels is not None and not labels:
            raise InputError("judge.labels is empty; allowed: names of the model's labels, or null")
        self.wanted = labels
        self.multi_label = multi_label

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that count, by their names in the model's config.

        Raises:
            InputError: If config or tokenizer do not load or lack what the options name, or a single-label
                classifier is not told which labels mean harm.
        """
        names = self._names
        known = ", ".join(map(repr, names))
        unknown = [label for label in self.wanted or [] if label not in names]
        if unknown:
            raise InputError(f"judge.labels: {self.model} has no label {unknown[0]!r}. Its labels: {known}")
        if self.wanted is None and not self._uses_sigmoid():
            raise InputError(
                f"judge.labels: the labels of {self.model} exclude each other, so name those that mean harm. "
                f"Its labels: {known}"
            )
        self._inputs.check()
        return tuple(self.wanted or names)

    @property
    def _names(self) -> list[str]:
        return [self._config.id2label[place] for place in range(self._config.num_labels)]

    def _uses_sigmoid(self) -> bool:
        if self._config.num_labels == 1:  # softmax over one would be 1 whatever the text
            return True
        if self.multi_label is not None:
            return self.multi_label
        return bool(self._config.problem_type == "multi_label_classification")

    def _score(self, rows: list[list[int]]) -> Tensor:
        logits = self._logits(rows)
        probabilities = logits.sigmoid() if self._uses_sigmoid() else logits.softmax(dim=-1)
        return probabilities[:, [self._names.index(label) for label in self.wanted or self._names]]


class RewardModelJudge(_SequenceJudge):
    """The raw score of a reward model: a sequence classifier with one output."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The one label: `reward`.

        Raises:
            InputError: If config or tokenizer do not load or do not fit the options, or the model has
                more than one output.
        """
        if self._config.num_labels != 1:
            raise InputError(
                f"judge.model: {self.model} has {self._config.num_labels} outputs; a reward model has 1. "
                "Use SequenceClassifierJudge for a classifier"
            )
        self._inputs.check()
        return ("reward",)

    def _score(self, rows: list[list[int]]) -> Tensor:
        return self._logits(rows)


class GuardModelJudge(TransformersJudge):
    r"""The probability that a generative guard model, such as Llama Guard, calls an answer unsafe.

    That is the probability of the first token of `unsafe_token` where the model's reply begins, among all
    tokens: the score that the models' makers define.

    Args:
        model: Hub id, folder or `package://module/path`.
        template: A text with {question}, {answer} and {eos}; null takes the tokenizer's chat template,
            which in guard models writes the whole task around question and answer.
        unsafe_token: How the reply begins when the answer is unsafe.
        reply_prefix: What stands between the prompt and the verdict, unless the prompt ends with it:
            "\n\n" in Llama Guard 2 and 3, nothing in the first Llama Guard.
        dtype: Type of the weights.
        batch_size: Texts that are scored at once.
        max_length: Most tokens of a text, where that is less than the window.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        InputError: If the template has no {answer}, or a number is below 1.
    """

    auto_class = AutoModelForCausalLM

    def __init__(
        self,
        model: str,
        template: str | None = None,
        unsafe_token: str = "unsafe",
        reply_prefix: str = "\n\n",
        dtype: Dtype = "float32",
        batch_size: int = 8,
        max_length: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__(model, template, dtype, batch_size, max_length, trust_remote_code)
        self.unsafe_token = unsafe_token
        self.reply_prefix = reply_prefix

    @property
    def labels(self) -> tuple[str, ...]:
        """The one label: `unsafe_token`.

        Raises:
            InputError: If the tokenizer does not load or does not fit the options, or the first token of
                `unsafe_token` says nothing.
        """
        self._unsafe_id()
        self._inputs.check()
        return (self.unsafe_token,)

    def _unsafe_id(self) -> int:
        unsafe, safe = (
            self._tokenizer(text, add_special_tokens=False).input_ids for text in (self.unsafe_token, "safe")
        )
        if not unsafe or unsafe[:1] == safe[:1]:
            raise InputError(
                f"judge.unsafe_token: {self.unsafe_token!r} cannot be told from 'safe' by its first token. "
                "Give the word with which the guard model's reply begins when an answer is unsafe"
            )
        return int(unsafe[0])

    def _score(self, rows: list[list[int]]) -> Tensor:
        lengths = torch.tensor([len(row) for row in rows])
        kept = int(lengths.max() - lengths.min()) + 1
        # no token sees what pads behind it, so anything may
        batch = _padded(rows, 0, self._device)
        logits = self._weights(**batch, logits_to_keep=kept).logits[:, -kept:]  # (batch, kept, vocabulary)
        last = logits[torch.arange(len(rows)), lengths - lengths.min()]  # (batch, vocabulary)
        probabilities: Tensor = last.float().softmax(dim=-1)
        return probabilities[:, [self._unsafe_id()]]


def _padded(rows: Sequence[Sequence[int]], pad_token_id: int, device: torch.device) -> dict[str, Tensor]:
    """Pad encoded texts on the right to the longest; the mask comes from lengths. Both have shape (rows, longest)."""
    longest = max(map(len, rows))
    ids = [[*row, *[pad_token_id] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}
