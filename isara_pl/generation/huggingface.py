"""The engine: Hugging Face `generate` on padded batches of prompts of like length."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from isara_pl.errors import InputError
from isara_pl.generation.protocol import Completion, Sampling
from isara_pl.models import context_window
from isara_pl.randomness import derive_seed
from isara_pl.tokens import encode_prompt


class HuggingFaceGenerator:
    """Completes prompts with a Hugging Face causal LM.

    Args:
        model: The causal LM, with or without an adapter.
        tokenizer: Its tokenizer, with a padding token.
        batch_size: Prompts that are generated for at once.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size

    @torch.inference_mode()
    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[Completion]:
        """Complete each prompt.

        What is drawn depends on `sampling.seed`, the prompts and the batch size, and on nothing else;
        the process's own random state is as before afterwards.

        Args:
            prompts: Texts to complete.
            sampling: How to draw.

        Returns:
            One completion for each prompt, in their order.
        """
        encoded = [encode_prompt(self.tokenizer, prompt) for prompt in prompts]
        self._check_window(encoded, sampling)
        by_length = sorted(range(len(encoded)), key=lambda i: (len(encoded[i]), i))
        completions: dict[int, Completion] = {}
        device = self.model.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for start in range(0, len(by_length), self.batch_size):
                chosen = by_length[start : start + self.batch_size]
                torch.manual_seed(derive_seed(sampling.seed, "generate", start))
                texts = self._complete([encoded[i] for i in chosen], sampling)
                completions.update(zip(chosen, texts, strict=True))
        return [completions[i] for i in range(len(prompts))]

    def _check_window(self, encoded: list[list[int]], sampling: Sampling) -> None:
        window = context_window(self.model)
        longest = max(map(len, encoded), default=0)
        if window and longest + sampling.max_new_tokens > window:
            raise InputError(
                f"a prompt of {longest} tokens and {sampling.max_new_tokens} new ones do not fit into the model's "
                f"window of {window}. Lower max_new_tokens, shorten the text, or use a model with a longer window"
            )

    def _complete(self, encoded: list[list[int]], sampling: Sampling) -> list[Completion]:
        longest = max(len(ids) for ids in encoded)
        pad = self.tokenizer.pad_token_id
        padded = [[pad] * (longest - len(ids)) + ids for ids in encoded]
        # from lengths: the padding token is often EOS, which may also stand inside a prompt
        mask = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in encoded]
        stops = self._stop_ids(sampling)
        output = self.model.generate(
            input_ids=torch.tensor(padded, device=self.model.device),  # (batch, longest)
            attention_mask=torch.tensor(mask, device=self.model.device),  # (batch, longest)
            generation_config=self._generation_config(sampling, stops),
        )
        stop_set = set(stops)
        return [self._completion(ids, stop_set) for ids in output[:, longest:].tolist()]

    def _completion(self, ids: list[int], stops: set[int]) -> Completion:
        for place, token in enumerate(ids):
            if token in stops:
                # a token that holds a newline may begin with text: "?\n" in some vocabularies
                end = [] if token in self._end_ids else [token]
                return Completion(self._decode(ids[:place] + end).rstrip(), finished=True)
        return Completion(self._decode(ids), finished=False)

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _generation_config(self, sampling: Sampling, stops: list[int]) -> GenerationConfig:
        drawing: dict[str, Any] = (
            {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
            if sampling.do_sample
            else {}
        )
        return GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=sampling.do_sample,
            num_beams=sampling.num_beams,
            repetition_penalty=sampling.repetition_penalty,
            no_repeat_ngram_size=sampling.no_repeat_ngram_size,
            eos_token_id=stops,
            # no filter and no reader wants an empty completion; instruct models give one after a
            # bare question
            begin_suppress_tokens=stops,
            pad_token_id=self.tokenizer.pad_token_id,
            bos_token_id=self.tokenizer.bos_token_id,
            **drawing,
        )

    def _stop_ids(self, sampling: Sampling) -> list[int]:
        return sorted(self._end_ids | self._newline_ids) if sampling.stop_at_newline else sorted(self._end_ids)

    @cached_property
    def _end_ids(self) -> set[int]:
        """The tokens that end a text: the tokenizer's EOS and the model's own (end of turn, …)."""
        own = getattr(self.model.generation_config, "eos_token_id", None)
        ends = own if isinstance(own, list) else [own]
        return {token for token in [self.tokenizer.eos_token_id, *ends] if token is not None}

    @cached_property
    def _newline_ids(self) -> set[int]:
        texts = self.tokenizer.batch_decode([[token] for token in range(len(self.tokenizer))])
        return {token for token, text in enumerate(texts) if "\n" in text}
