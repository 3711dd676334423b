"""Text to token ids, the same way for training, measuring and generating.

A question or an answer may spell a control token, such as `<|im_end|>`. It is text there, and must not end
a turn. Prompts are plain strings, so where such a spelling is content they hold a mark: U+2060 (word joiner)
after its first character, with which no tokenizer takes it for the control token. Encoding takes the marks
out again: what is encoded is the content, as it stands in the pool, in tokens of plain text.
"""

import re
from collections.abc import Sequence
from datetime import date
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

MARK = "\u2060"
# what every template is told that asks for today: with the clock's, a run would depend on the day it is run.
# Llama's templates take this one themselves where there is no clock
TODAY = date(2024, 7, 26)
_ASKS_TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")


def control_tokens(tokenizer: PreTrainedTokenizerBase | None) -> re.Pattern[str] | None:
    """Give what finds the first characters of control tokens in a text, marked or not; None where there are none.

    Control tokens are the special ones, and those that the chat template puts between turns. Other added tokens,
    such as `<think>`, are part of what a model says: pairs may rightly hold them.
    """
    if tokenizer is None:
        return None
    state = (len(tokenizer.added_tokens_decoder), tokenizer.chat_template, *tokenizer.all_special_tokens)
    known = _found.get(tokenizer)
    if known is None or known[0] != state:  # thousands of tokens take a second
        known = _found[tokenizer] = state, _pattern(tokenizer)
    return known[1]


# by tokenizer: what its tokens depend on, and what finds them
_found: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[tuple[Any, ...], re.Pattern[str] | None]] = WeakKeyDictionary()


def _pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    turns = _turns(tokenizer)
    added = tokenizer.added_tokens_decoder.values()
    controls = {token.content for token in added if token.special or token.content in turns}
    # one of a single character cannot be broken by a mark
    spellings = sorted(text for text in controls | set(tokenizer.all_special_tokens) if len(text) > 1)
    # with any marks inside, so that marking changes nothing of what is found: also where spellings overlap
    found = (f"{re.escape(text[0])}(?={MARK}*{f'{MARK}*'.join(map(re.escape, text[1:]))})" for text in spellings)
    return re.compile("|".join(found)) if spellings else None


def _turns(tokenizer: PreTrainedTokenizerBase) -> str:
    """Give a conversation of plain letters in the chat template; nothing where there is none that renders it."""
    if tokenizer.chat_template is None:
        return ""
    try:
        return render(tokenizer, [("user", "a"), ("assistant", "a"), ("user", "a")], open_answer=True)
    except Exception:  # a template is a program of the model's author, which may refuse this conversation
        return ""


def asks_today(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer's chat template writes today's date."""
    return "strftime_now" in tokenizer.get_chat_template()


def render(tokenizer: PreTrainedTokenizerBase, turns: Sequence[tuple[str, str]], open_answer: bool) -> str:
    """Give a conversation in the tokenizer's chat template, to which every day is `TODAY`.

    `turns` are role and content of each, in order. Whatever the template raises is raised.
    """
    messages = [{"role": role, "content": content} for role, content in turns]
    template = None
    if asks_today(tokenizer):
        # written into the template: its renderer takes no functions
        template = _ASKS_TODAY.sub(lambda call: repr(TODAY.strftime(call[2])), tokenizer.get_chat_template())
    text = tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=open_answer
    )
    if not isinstance(text, str):
        raise TypeError("apply_chat_template(tokenize=False) gave no text")
    return text


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Give the token with which the chat template ends an answer; None where it is no token of its own.

    Base models often have a template whose end of turn is not their EOS.
    """
    if tokenizer.chat_template is None:
        return None
    answer = "ISARAANSWER"  # no template changes plain letters
    try:
        text = render(tokenizer, [("user", "a"), ("assistant", answer)], open_answer=False)
    except Exception:  # as in _turns
        return None
    return first_control(tokenizer, text.partition(answer)[2])


def first_control(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """Give the token that a text begins with, if it is one that was added to the vocabulary; else None."""
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids if text else []
    return ids[0] if ids and ids[0] in tokenizer.added_tokens_decoder else None


def mark(content: str, controls: re.Pattern[str] | None) -> str:
    """Mark every control token that a question or an answer spells. Marks that it holds itself stay."""
    return content if controls is None else controls.sub(lambda first: first[0] + MARK, content)


def encode(tokenizer: PreTrainedTokenizerBase, text: str, add_special_tokens: bool = True) -> list[int]:
    """Encode a text, with marked spellings as the plain text that they are."""

    def ids_of(part: str, add_special_tokens: bool = False) -> list[int]:
        ids: list[int] = tokenizer(part, add_special_tokens=add_special_tokens, verbose=False).input_ids
        return ids

    first, *others = _without_marks(tokenizer, text) if MARK in text else [text]
    ids = ids_of(first, add_special_tokens)
    if not others:
        return ids
    plain, newline = ids_of(first), ids_of("\n")
    end = len(plain) + next(place for place in range(len(ids)) if ids[place : place + len(plain)] == plain)
    inserted: list[int] = []
    for part in others:
        # behind a newline: at the beginning of a text some tokenizers put a space of their own
        behind = ids_of("\n" + part)
        inserted += behind[len(newline) :] if behind[: len(newline)] == newline else ids_of(part)
    return [*ids[:end], *inserted, *ids[end:]]


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Encode a text that a model is to continue: with the tokenizer's own BOS, without an EOS of its own."""
    return _without_end(tokenizer, encode(tokenizer, prompt))


def count_tokens(tokenizer: Any, text: str) -> int:
    """Count the tokens of a prompt, by transformers' tokenizer or anyone's that has `encode(text)`."""
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        return len(encode_prompt(tokenizer, text))
    return len(tokenizer.encode(text))


def count_continuation(tokenizer: Any, prompt: str, continuation: str) -> int:
    """Count the tokens of what follows a prompt, by transformers' tokenizer or anyone's that has `encode(text)`."""
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        return len(encode_continuation(tokenizer, prompt, continuation)[1])
    before = len(tokenizer.encode(prompt)) if prompt else 0
    return len(tokenizer.encode(prompt + continuation)) - before


def encode_continuation(
    tokenizer: PreTrainedTokenizerBase, prompt: str, continuation: str
) -> tuple[list[int], list[int]]:
    """Encode a prompt and what follows it so that no token straddles the boundary.

    The tokenizer's own BOS, if it adds one, comes first; the continuation brings its leading space.
    """
    prompt_ids = encode_prompt(tokenizer, prompt)
    whole = encode_prompt(tokenizer, prompt + continuation)
    if whole[: len(prompt_ids)] == prompt_ids:
        return prompt_ids, whole[len(prompt_ids) :]
    # a merge across the boundary: encode the continuation by itself
    return prompt_ids, encode(tokenizer, continuation, add_special_tokens=False)


def _without_end(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """Drop the EOS that some tokenizers append; BOS may be the same token, so a lone one stays."""
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


def _without_marks(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """Cut a text at its marks, which are left out: encoded by themselves, the parts spell no control token."""
    controls = control_tokens(tokenizer)
    ends = [first.end() for first in controls.finditer(text)] if controls else []
    cuts = [place for place in ends if text.startswith(MARK, place)]
    return [text[start:stop] for start, stop in zip([0, *(cut + 1 for cut in cuts)], [*cuts, len(text)], strict=True)]
