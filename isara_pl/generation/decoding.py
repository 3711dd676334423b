"""The forward passes of a batch of prompts: what prompts share is computed once, finished rows leave the batch.

All rows end at the same column. A row's tokens, and with them its keys and values, stand in the columns
before it: the last token of every prompt in the same column, padding on the left. This is the layout
of any left-padded batch, so every causal LM that generates in padded batches works.
"""

import inspect
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isara_pl.errors import first_line
from isara_pl.generation.kv_cache import LEAST_SAVED, Row, RowsCache, layers_of
from isara_pl.models.loading import cache_name, only_logits_of
from isara_pl.models.precision import allowed_difference
from isara_pl.run.memory import is_out_of_memory

# from so many tokens on a forward pass gains nothing by being larger, but takes more memory
PREFILL_TOKENS = 4096
_ALIGNED = 16  # columns: with a mask of other widths torch's attention on a GPU copies the mask first


class Batch:
    """Prompts that are completed together.

    `plan` is that of `kv_cache.rounds`, `new_tokens` the most new tokens of a row.
    """

    def __init__(self, model: Any, prompts: Sequence[list[int]], plan: list[list[Row]], new_tokens: int) -> None:
        self.model = model
        self.prompts = prompts
        self.plan = plan
        self.device = model.device
        self.longest = max(map(len, prompts))  # the column after the prompts
        self.columns = -(-(self.longest + new_tokens) // _ALIGNED) * _ALIGNED
        layers = layers_of(model)
        assert layers is not None
        self.cache = RowsCache(layers, len(prompts), self.columns)
        self._set_order([row.prompt for rows in plan for row in rows])
        self._parameters = inspect.signature(model.forward).parameters

    def prefill(self) -> Tensor:
        """Compute all prompts. Gives the logits after each prompt, of shape (rows, vocabulary), float32."""
        place = {prompt: row for row, prompt in enumerate(self.order)}
        logits: list[Tensor] = []
        begin = 0
        for rows in self.plan:
            for chunk in _chunks(rows, self.prompts):
                if all(row.shared == len(self.prompts[row.prompt]) for row in chunk):  # repeated prompts
                    given = [place[row.parent] for row in chunk if row.parent is not None]
                    known = torch.cat(logits)[torch.tensor(given, device=self.device)]
                    self._copy_shared(chunk, begin, place, self.longest)
                elif rows is self.plan[0]:
                    known = self._compute_whole(chunk, begin)
                else:
                    known = self._compute(chunk, begin, place)
                logits.append(known)
                begin += len(chunk)
        return torch.cat(logits)

    def _compute_whole(self, chunk: list[Row], begin: int) -> Tensor:
        """Compute prompts that share nothing with earlier ones.

        Padded on the right they need no mask, since no token sees what stands to its right: attention is
        faster without one.
        """
        lengths = [len(self.prompts[row.prompt]) for row in chunk]
        ids = torch.zeros(len(chunk), max(lengths), dtype=torch.long)
        last = torch.zeros_like(ids, dtype=torch.bool)
        for row, entry in enumerate(chunk):
            ids[row, : lengths[row]] = torch.tensor(self.prompts[entry.prompt])
            last[row, lengths[row] - 1] = True
        self.cache.look_at(slice(begin, begin + len(chunk)), self.longest, self.longest, lengths)
        inputs = self._inputs(ids, torch.ones_like(ids), torch.arange(ids.shape[1]).expand_as(ids))
        with only_logits_of(self.model, last.to(self.device)):
            logits: Tensor = self.model(**inputs).logits[0].float()
        return logits

    def _compute(self, chunk: list[Row], begin: int, place: dict[int, int]) -> Tensor:
        """Compute the tokens that the rows of a chunk do not share; a row with fewer repeats some that it shares."""
        lengths = [len(self.prompts[row.prompt]) for row in chunk]
        computed = max(length - row.shared for length, row in zip(lengths, chunk, strict=True))
        end = self.longest - computed
        self._copy_shared(chunk, begin, place, end)
        ids = torch.zeros(len(chunk), computed, dtype=torch.long)
        for row, entry in enumerate(chunk):
            tokens = self.prompts[entry.prompt][-computed:]
            ids[row, computed - len(tokens) :] = torch.tensor(tokens)
        return self._forward(ids, torch.tensor(lengths), begin, end, self.longest)

    def _copy_shared(self, chunk: list[Row], begin: int, place: dict[int, int], end: int) -> None:
        """Copy the keys and values that a chunk shares with earlier rows, up to a column."""
        wanted: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row, entry in enumerate(chunk, start=begin):
            if entry.parent is not None:
                wanted[entry.parent, len(self.prompts[entry.prompt])].append(row)
        for (parent, length), rows in wanted.items():
            first = self.longest - length
            if first < end:
                source = self.longest - len(self.prompts[parent])
                self.cache.copy(place[parent], rows, slice(source, source + end - first), slice(first, end))

    def step(self, tokens: Tensor, steps: int) -> Tensor:
        """Append one token to each of the first rows.

        `tokens` are those of the rows still in the batch, of shape (rows, 1) on the model's device; `steps` were
        appended before. Gives the logits after it, of shape (rows, vocabulary), float32.
        """
        column = self.longest + steps
        return self._append(tokens, torch.full((1,), column, device=self.device), self._begin, column + 1, None)

    def fixed_step(self, tokens: Tensor, column: Tensor) -> Tensor:
        """Append as `step` does, in a way whose shapes do not depend on the step: all columns are read, and masked.

        For models all of whose layers attend to whole rows. `column` is where the tokens stand, `longest` and the
        tokens appended before, of shape (1,) on the device.
        """
        return self._append(tokens, column, self._begin // _ALIGNED * _ALIGNED, self.columns, column)

    def _append(self, tokens: Tensor, column: Tensor, start: int, end: int, write_at: Tensor | None) -> Tensor:
        """Compute the tokens of one column, from those between `start` and `end`; nothing here waits for the device."""
        self.cache.look_at(slice(0, len(tokens)), start, end - 1, column=write_at)
        columns = torch.arange(start, end, device=self.device)
        own = (columns >= self.first[:, None]) & (columns <= column)  # (rows, columns)
        return self._logits(self._inputs(tokens, own.long(), column - self.first[:, None]))

    def _forward(self, ids: Tensor, lengths: Tensor, begin: int, end: int, last: int) -> Tensor:
        """Compute the tokens of the columns from `end` to `last`, of rows that have so many tokens by then."""
        return self._logits(self._placed(ids, lengths, begin, end, last))

    def _logits(self, inputs: dict[str, Any]) -> Tensor:
        if "logits_to_keep" in self._parameters:
            inputs["logits_to_keep"] = 1
        logits: Tensor = self.model(**inputs).logits[:, -1].float()
        return logits

    def behind(self, answers: Sequence[list[int]], begin: int) -> Tensor:
        """Compute given tokens behind the prompts of neighbouring rows, instead of `step`.

        `answers` are those of the rows from `begin` on, not all empty. Gives the logits after each token, row after
        row, of shape (tokens, vocabulary), float32.
        """
        longest = max(map(len, answers))
        ids = torch.zeros(len(answers), longest, dtype=torch.long)
        wanted = torch.zeros_like(ids, dtype=torch.bool)
        for row, answer in enumerate(answers):  # padded on the right, which no token before it sees
            ids[row, : len(answer)] = torch.tensor(answer, dtype=torch.long)
            wanted[row, : len(answer)] = True
        prompts = [self.prompts[prompt] for prompt in self.order[begin : begin + len(answers)]]
        lengths = torch.tensor([len(prompt) + longest for prompt in prompts])
        inputs = self._placed(ids, lengths, begin, self.longest, self.longest + longest)
        wanted = wanted.to(self.device)
        inputs["attention_mask"][:, -longest:] *= wanted  # else padding could have places behind the model's window
        if "position_ids" in inputs:
            inputs["position_ids"] *= wanted
        with only_logits_of(self.model, wanted):
            logits: Tensor = self.model(**inputs).logits[0].float()
        return logits

    def _placed(self, ids: Tensor, lengths: Tensor, begin: int, end: int, last: int) -> dict[str, Any]:
        """Give what the model is called with for the tokens of `_forward`, and set the cache to their columns."""
        start = last - int(lengths.max())
        self.cache.look_at(slice(begin, begin + len(ids)), start, end)
        columns = torch.arange(start, last)
        own = columns >= last - lengths[:, None]  # (rows, columns)
        positions = (columns[end - start :] - (last - lengths[:, None])).clamp(min=0)  # (rows, columns from end)
        return self._inputs(ids, own.long(), positions)

    def _inputs(self, ids: Tensor, mask: Tensor, positions: Tensor) -> dict[str, Any]:
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        if "position_ids" not in self._parameters:
            del inputs["position_ids"]
        on_device = {name: value.to(self.device) for name, value in inputs.items()}
        return {**on_device, cache_name(self._parameters): self.cache, "use_cache": True}

    def drop(self, finished: Sequence[int], steps: int) -> list[int]:
        """Let rows leave: the last ones that stay move into their places.

        `finished` are some at least; `steps` tokens were appended. Gives the rows that stay, in their new order.
        """
        leaving = set(finished)
        count = len(self.order) - len(leaving)
        free = [row for row in range(count) if row in leaving]
        moved = [row for row in range(count, len(self.order)) if row not in leaving]
        stay = list(range(count))
        for row, source in zip(free, moved, strict=True):
            stay[row] = source
        if moved:
            # columns before the moved rows' prompts hold nothing
            longest = max(len(self.prompts[self.order[row]]) for row in moved)
            self.cache.move(moved, free, slice(self.longest - longest, self.longest + steps))
        self._set_order([self.order[row] for row in stay])
        return stay

    def _set_order(self, order: list[int]) -> None:
        self.order = order  # prompt of each row of the cache
        first = [self.longest - len(self.prompts[prompt]) for prompt in order]  # column where each row begins
        self._begin = min(first, default=self.longest)
        self.first = torch.tensor(first, device=self.device)


def _chunks(rows: Sequence[Row], prompts: Sequence[list[int]]) -> list[list[Row]]:
    """Split the rows of a round into forward passes with little padding, repeated prompts apart.

    The rows come by ascending number of tokens to compute.
    """
    found: list[list[Row]] = []
    computed = 0  # by the last of them, without padding
    for row in rows:
        tokens = len(prompts[row.prompt]) - row.shared
        padded = (len(found[-1]) + 1) * tokens if found else 0
        full = padded > PREFILL_TOKENS or padded - computed - tokens > LEAST_SAVED
        if not found or full or (tokens and not computed):
            found.append([])
            computed = 0
        found[-1].append(row)
        computed += tokens
    return found


def why_not_in_rows(model: Any) -> str | None:
    """Tell why the engine's own batches do not suit a model; transformers' `generate` suits every one.

    Three short prompts that share tokens are computed, padded and one token appended, and compared with the same tokens
    one row at a time without any cache. That takes a fraction of a second. Gives the reason, with the differences that
    were found and allowed; None where they suit.
    """
    if layers_of(model) is None:
        return "it keeps a state other than the keys and values of each layer"
    first = [token % model.config.get_text_config().vocab_size for token in range(3, 15)]
    prompts = [first, first[:9], [*first[:6], first[0]]]
    plan = [[Row(0)], [Row(2, parent=0, shared=6, round=1), Row(1, parent=0, shared=8, round=1)]]
    try:
        batch = Batch(model, prompts, plan, new_tokens=1)
        appended = torch.full((3, 1), first[1], device=batch.device)
        in_rows = torch.stack([batch.prefill(), batch.step(appended, 0)])  # (2, rows, vocabulary)
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        return f"it fails in them: {type(error).__name__}: {first_line(error)}"  # a model of its own kind
    alone = torch.stack(
        [
            torch.stack([_logits_alone(model, prompts[place]) for place in batch.order]),
            torch.stack([_logits_alone(model, [*prompts[place], first[1]]) for place in batch.order]),
        ]
    )
    if not alone.isfinite().all():
        return None  # nothing can be told apart; drawing says what is wrong
    allowed = allowed_difference(model, alone)
    differences = (in_rows - alone).abs()
    mean, largest = differences.mean(dim=-1).max().item(), differences.max().item()
    if mean <= allowed:
        return None
    return (
        f"a prompt's logits in them differ from those of it alone by {mean:.2g} in the mean, {largest:.2g} at most; "
        f"allowed is a mean of {allowed:.2g}"
    )


def _logits_alone(model: Any, tokens: list[int]) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False).logits
    return logits[0, -1].float()
