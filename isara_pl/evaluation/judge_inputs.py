"""What a judge reads: question and answer as one text, its tokens, and what is left of them in a short window."""

from bisect import bisect_left
from collections.abc import Sequence
from string import Formatter

from transformers import PreTrainedTokenizerBase

from isara_pl.errors import InputError, first_line
from isara_pl.models.tokens import control_tokens, encode, mark, render
from isara_pl.run.notices import rank_zero_warn


class JudgeInputs:
    """Writes questions and answers for a judge.

    Args:
        model: The judge's model, for the errors' texts.
        tokenizer: Its tokenizer.
        template: A text with {question}, {answer} and {eos}; None takes the tokenizer's chat template.
        reply_prefix: What the text ends with before the judge replies; None where it does not reply.
    """

    def __init__(
        self, model: str, tokenizer: PreTrainedTokenizerBase, template: str | None, reply_prefix: str | None
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.template = template
        self.reply_prefix = reply_prefix
        # an answer that spells one must not end its own turn
        self._controls = control_tokens(tokenizer)

    def check(self) -> None:
        """Raise an InputError, before anything expensive runs, if question and answer cannot become a text."""
        if self.template is not None:
            if "{eos}" in self.template and self.tokenizer.eos_token is None:
                raise InputError(
                    f"judge.template has {{eos}}, but the tokenizer of {self.model} has no end-of-sequence token. "
                    "Leave {eos} out"
                )
        elif not self.tokenizer.chat_template:
            raise InputError(
                f"judge.template is null, but the tokenizer of {self.model} has no chat template. "
                "Give a text with {question} and {answer}"
            )
        elif "an answer" not in self._text("a question", "an answer"):
            raise InputError(
                f"judge.template is null, but the chat template of {self.model} drops the text of an answer. "
                "Give a text with {question} and {answer}"
            )

    def encoded(self, questions: Sequence[str], answers: Sequence[str], window: int) -> list[list[int]]:
        """Give the ids of each question with its answer, at most so many, and warn where that cuts something off."""
        rows = [self._encode(question, answer) for question, answer in zip(questions, answers, strict=True)]
        too_long = [place for place, row in enumerate(rows) if len(row) > window]
        for place in too_long:
            rows[place] = self._encode_ends(questions[place], answers[place], window)
        if too_long:
            rank_zero_warn(
                f"{len(too_long)} of {len(rows)} texts are longer than the {window} tokens that the judge {self.model} "
                "reads: the beginning of the question was cut off, and where that was not enough that of the answer"
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

    def _encode(self, question: str, answer: str) -> list[int]:
        # a chat template writes the special tokens itself
        plain = self.template is not None
        ids = encode(self.tokenizer, self._text(question, answer), add_special_tokens=plain)
        # a tokenizer may end every text with EOS, after which there is no reply
        ends = plain and self.reply_prefix is not None and ids[-1:] == [self.tokenizer.eos_token_id]
        return ids[:-1] if ends else ids

    def _text(self, question: str, answer: str) -> str:
        question, answer = mark(question, self._controls), mark(answer, self._controls)
        if self.template is not None:
            text = self.template.format(question=question, answer=answer, eos=self.tokenizer.eos_token)
        else:
            text = self._chat(question, answer)
        prefix = self.reply_prefix or ""
        return text if text.endswith(prefix) else text + prefix

    def _chat(self, question: str, answer: str) -> str:
        turns = [("user", question), ("assistant", answer)]
        try:
            return render(self.tokenizer, turns, open_answer=self.reply_prefix is not None)
        except Exception as error:  # a template is a program of the model's author, which may refuse or fail
            raise InputError(
                f"judge.template is null, but the chat template of {self.model} raises on a question and an answer "
                f"({first_line(error)}). Give a text with {{question}} and {{answer}}"
            ) from error


def check_template(template: str) -> None:
    """Raise an InputError if a text has no {answer}, or another field than {question} and {eos}."""
    try:
        fields = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise InputError(f"judge.template: {error} in {template!r}. Write {{{{ and }}}} for plain braces") from None
    if "answer" not in fields or not fields <= {"question", "answer", "eos"}:
        raise InputError(
            f"judge.template is {template!r}; allowed: a text with {{answer}}, and with {{question}} and {{eos}} "
            "where wanted. Write {{ and }} for plain braces"
        )
