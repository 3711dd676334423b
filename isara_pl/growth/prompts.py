"""Demonstrations to prompt text, and completions to a question or an answer.

No format adds an instruction: a prompt holds pairs and the beginning of the next turn, nothing else.
Control tokens that a question or an answer spells are marked (`isara_pl.models.tokens`): they are encoded as text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from transformers import PreTrainedTokenizerBase

from isara_pl.errors import InputError, first_line
from isara_pl.growth.samples import Sample
from isara_pl.models.tokens import TODAY, asks_today, control_tokens, mark, render

FormatName = Literal["qa", "chat", "safe-rlhf"]
_EMPTY_BLOCK = re.compile(r"<([\w:-]+)>\s*</\1>")  # such as Qwen3's <think>


class PromptFormat(Protocol):
    """How pairs become the text of a prompt."""

    @property
    def single_line(self) -> bool:
        """Whether questions and answers end at the first newline."""

    @property
    def ending(self) -> str:
        """What ends an answer in the text; empty where only the end-of-sequence token does."""

    def question_prompt(self, demonstrations: Sequence[Sample]) -> str:
        """Give a text that the model continues with a new question."""

    def answer_prompt(self, question: str, demonstrations: Sequence[Sample] = ()) -> str:
        """Give a text that the model continues with an answer."""

    def answer_text(self, answer: str) -> str:
        """Give an answer as it follows the prompt, its leading space included."""

    def parse_question(self, completion: str) -> str:
        """Read the question from what the model wrote after a question prompt."""

    def parse_answer(self, completion: str) -> str:
        """Read the answer from what the model wrote after an answer prompt."""


@dataclass(frozen=True)
class PlainFormat:
    """Pairs as plain text, each question and each answer on a single line.

    Newlines inside a demonstration become spaces, so that a newline always ends what is generated.
    """

    before_question: str
    before_answer: str  # what stands between a question and its answer
    between: str = "\n\n"  # two pairs
    single_line: bool = True
    ending: str = ""
    controls: re.Pattern[str] | None = None  # what to mark in questions and answers, as `control_tokens` gives it

    def question_prompt(self, demonstrations: Sequence[Sample]) -> str:
        """Give the pairs and an open question."""
        return "".join(self._pair(sample) + self.between for sample in demonstrations) + self.before_question

    def answer_prompt(self, question: str, demonstrations: Sequence[Sample] = ()) -> str:
        """Give the pairs, the question and an open answer."""
        pairs = "".join(self._pair(sample) + self.between for sample in demonstrations)
        return f"{pairs}{self.before_question} {self._content(question)}{self.before_answer}"

    def answer_text(self, answer: str) -> str:
        """Give the answer after a space, on one line."""
        return f" {self._content(answer)}"

    def parse_question(self, completion: str) -> str:
        """Give the first line, up to where the model began the answer on the same line."""
        return self._first_line(completion).split(self.before_answer.strip())[0].strip()

    def parse_answer(self, completion: str) -> str:
        """Give the first line."""
        return self._first_line(completion)

    def _pair(self, sample: Sample) -> str:
        question, answer = self._content(sample.question), self._content(sample.answer)
        return f"{self.before_question} {question}{self.before_answer} {answer}"

    def _content(self, text: str) -> str:
        # marked last: where a newline became a space, it may have completed the spelling
        return mark(" ".join(text.split()), self.controls)

    def _first_line(self, completion: str) -> str:
        return completion.strip().partition("\n")[0].strip()


class ChatFormat:
    """Pairs as the turns of a conversation in the tokenizer's own chat template.

    A new question is the continuation of an opened user turn. A template that inserts a system message of its own still
    does so here. What a template writes between an opened turn and the answer, such as an empty <think> block, is part
    of the prompt; where it writes such a block, one at the beginning of an answer is no part of that. Raises InputError
    if the tokenizer has no chat template, or one that raises or rewrites what a user says.
    """

    single_line = False
    # stand for a question and an answer; no template changes plain letters
    _QUESTION, _ANSWER = "ISARAQUESTION", "ISARAANSWER"

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.chat_template is None:
            raise InputError("data.prompt_format: this model's tokenizer has no chat template; use qa or safe-rlhf")
        self.tokenizer = tokenizer
        self._controls = control_tokens(tokenizer)
        pair = self._render([("user", self._QUESTION), ("assistant", self._ANSWER)], open_answer=False)
        opened = self._render([("user", self._QUESTION)], open_answer=True)
        if self._QUESTION not in pair or self._ANSWER not in pair or not pair.startswith(opened.rstrip()):
            raise InputError(
                "data.prompt_format: this model's chat template rewrites the turns, or opens an "
                "answer otherwise than it writes one; use qa or safe-rlhf"
            )
        # with demonstrations: one that takes a single pair only is refused now, not after an hour of measuring
        self._render([("user", "a"), ("assistant", "a"), ("user", "a")], open_answer=True)
        before_answer, _, self.ending = pair.partition(self._ANSWER)
        written = before_answer[len(opened) :]
        # some templates put a space before an answer only where there is one; it is the first word's
        self._before_answer = written.rstrip(" ")
        self._space = written[len(self._before_answer) :]
        empty_block = _EMPTY_BLOCK.search(before_answer.partition(self._QUESTION)[2])
        self.block = empty_block[1] if empty_block else None
        after_question = opened.partition(self._QUESTION)[2]
        # a model that goes on from its question to an answer need not begin that with the block
        self._after_question = (
            after_question.partition(f"<{self.block}>")[0] if self.block else after_question
        ).strip()
        self._blocks = re.compile(rf"(\s*<{self.block}>.*?(</{self.block}>|\Z))*", re.DOTALL)

    def question_prompt(self, demonstrations: Sequence[Sample]) -> str:
        """Give the turns and an opened user turn."""
        return self._conversation(demonstrations, self._QUESTION, open_answer=False).rpartition(self._QUESTION)[0]

    def answer_prompt(self, question: str, demonstrations: Sequence[Sample] = ()) -> str:
        """Give the turns, the question and an assistant turn that is opened up to where the answer begins."""
        return self._conversation(demonstrations, question, open_answer=True) + self._before_answer

    def answer_text(self, answer: str) -> str:
        """Give the answer as the template puts it after what it writes itself.

        Raises InputError if the answer is nothing but a block that the template writes itself.
        """
        said = self.without_block(answer)
        if answer.strip() and not said:
            raise InputError(
                f"data.prompt_format: the answer {answer[:60]!r} is nothing but a <{self.block}> block, which this "
                "model's chat template writes itself. Close it and write the answer behind it, or remove the pair"
            )
        return self._space + mark(said, self._controls)

    def without_block(self, answer: str) -> str:
        """Give an answer without blocks at its beginning, if the template writes an empty one itself.

        One that is not closed goes on to the end: nothing is answered.
        """
        return answer if self.block is None else self._blocks.sub("", answer, count=1).lstrip()

    def parse_question(self, completion: str) -> str:
        """Give what was written, up to where the model closed the turn."""
        text = completion.partition(self._after_question)[0] if self._after_question else completion
        return text.strip()

    def parse_answer(self, completion: str) -> str:
        """Give what was written, up to where the model closed the turn, without a block before the answer."""
        ending = self.ending.strip()
        return self.without_block((completion.partition(ending)[0] if ending else completion).strip())

    def _conversation(self, demonstrations: Sequence[Sample], question: str, open_answer: bool) -> str:
        pairs = [(s.question, self.without_block(s.answer)) for s in demonstrations]
        turns = [turn for asked, said in pairs for turn in (("user", asked), ("assistant", said))]
        return self._render([*turns, ("user", question)], open_answer)

    def _render(self, turns: Sequence[tuple[str, str]], open_answer: bool) -> str:
        marked = [(role, mark(content, self._controls)) for role, content in turns]
        try:
            text = render(self.tokenizer, marked, open_answer)
        except Exception as error:  # a template is a program of the model's author, which may refuse or fail
            raise InputError(
                f"data.prompt_format: this model's chat template raises on questions and answers in turns "
                f"({first_line(error)}); use qa or safe-rlhf"
            ) from error
        # the template's own BOS is dropped where encoding adds one, as for every other format
        return text.removeprefix(str(self.tokenizer.bos_token)) if self._adds_bos() else text

    def _adds_bos(self) -> bool:
        ids = self.tokenizer("a").input_ids
        return bool(ids) and ids[0] == self.tokenizer.bos_token_id


def prompt_format(name: FormatName, tokenizer: PreTrainedTokenizerBase | None) -> PromptFormat:
    """Give the prompt format of a name.

    `qa` is `Question: …` and `Answer: …` on lines of their own; `chat` the tokenizer's chat template; `safe-rlhf` is
    `BEGINNING OF CONVERSATION: USER: … ASSISTANT: …`. The tokenizer's control tokens are marked where content spells
    them; without one nothing is. Raises InputError if the format needs a tokenizer or a chat template that is not
    there.
    """
    if name == "qa":
        return PlainFormat("Question:", "\nAnswer:", controls=control_tokens(tokenizer))
    if name == "safe-rlhf":
        return PlainFormat("BEGINNING OF CONVERSATION: USER:", " ASSISTANT:", controls=control_tokens(tokenizer))
    if tokenizer is None:
        raise InputError("data.prompt_format: chat needs data.tokenizer")
    return ChatFormat(tokenizer)


def notes(prompt_format: PromptFormat, name: FormatName, seeds: Sequence[Sample]) -> list[str]:
    """Say what of seeds and of the day is not told to the model as it is."""
    if not isinstance(prompt_format, ChatFormat):
        parts = {"answers": [seed.answer for seed in seeds], "questions": [seed.question for seed in seeds]}
        counts = {part: sum(len(text.splitlines()) > 1 for text in texts) for part, texts in parts.items()}
        found = " and ".join(f"{part} of {count}" for part, count in counts.items() if count)
        breaks = (
            f"data.seeds: the {found} of {len(seeds)} seeds have line breaks, which data.prompt_format {name} makes "
            "spaces: the model learns to answer in one line. data.prompt_format chat keeps them"
        )
        return [breaks] if found else []
    told = []
    blocks = sum(prompt_format.without_block(seed.answer) != seed.answer for seed in seeds)
    if blocks:
        told.append(
            f"data.seeds: {blocks} of {len(seeds)} answers begin with a <{prompt_format.block}> block, which is left "
            "out: this model's chat template writes an empty one itself, and answers are learned behind it"
        )
    if asks_today(prompt_format.tokenizer):
        told.append(
            "data.prompt_format: this model's chat template writes today's date, for which every prompt has "
            f"{TODAY:%d %B %Y}: what a run gives does not depend on the day"
        )
    return told
