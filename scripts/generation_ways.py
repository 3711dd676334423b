"""What the generation of an outer epoch is timed on, and the ways: engine, `generate`, `generate_batch`, servers."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import ContinuousBatchingConfig, GenerationConfig

from isara_pl.generation import plain
from isara_pl.generation.engine import GenerationEngine
from isara_pl.generation.protocol import Sampling
from isara_pl.generation.vllm import VllmEngine
from isara_pl.growth.prompts import prompt_format
from isara_pl.growth.retrieval import PoolIndex, SentenceEncoder
from isara_pl.growth.samples import Sample, read_samples
from isara_pl.models.adapter import MergedWeights
from isara_pl.models.sources import resolve_path
from isara_pl.run.memory import keep_freed_memory


@dataclass(frozen=True)
class Work:
    """What an outer epoch asks of a model.

    Attributes:
        candidates: N: questions, and as many answers.
        demonstrations: K: examples in every context.
        question_tokens: Most new tokens of a question.
        answer_tokens: Most new tokens of an answer.
        speaks: Whether the model says something: random weights write no questions that can be asked, and no ends.
    """

    candidates: int
    demonstrations: int
    question_tokens: int
    answer_tokens: int
    speaks: bool


@dataclass(frozen=True)
class Part:
    """The prompts of the questions or of the answers.

    Attributes:
        prompts: Texts to complete.
        ids: Their tokens.
        sampling: How they are completed.
    """

    prompts: list[str]
    ids: list[list[int]]
    sampling: Sampling


def make_parts(work: Work, engine: GenerationEngine, adapted: PeftModel) -> list[Part]:
    """Make the prompts of one outer epoch as the loop does: anchors with their neighbours, neighbours of questions."""
    seeds = read_samples(resolve_path("package://isara_pl/quickstart/seeds.jsonl", "seeds"))
    index = PoolIndex(SentenceEncoder())
    index.add(seeds)
    form, draw = prompt_format("qa", None), random.Random(0)

    def contexts(questions: Sequence[str]) -> list[list[Sample]]:
        return [found[::-1] for found in index.nearest(questions, work.demonstrations)]

    asked = Sampling(temperature=0.9, top_p=0.95, max_new_tokens=work.question_tokens, stop_at_newline=work.speaks)
    answered = Sampling(max_new_tokens=work.answer_tokens, stop_at_newline=work.speaks)
    anchors = [draw.choice(seeds).question for _ in range(work.candidates)]
    prompts = [form.question_prompt(context) for context in contexts(anchors)]
    with adapted.disable_adapter():
        written = engine.generate(prompts, asked, range(len(prompts))) if work.speaks else []
    # random weights write nothing that can be asked
    held_out = [
        item.question for item in read_samples(resolve_path("package://isara_pl/quickstart/held_out.jsonl", ""))
    ]
    made_up = [f"{held_out[n % len(held_out)]} ({n})" for n in range(work.candidates)]
    questions = [form.parse_question(completion.text) for completion in written] or made_up
    found = zip(questions, contexts(questions), strict=True)
    answers = [form.answer_prompt(question, context) for question, context in found]
    return [
        Part(texts, [engine.tokenizer(text).input_ids for text in texts], sampling)
        for texts, sampling in ((prompts, asked), (answers, answered))
    ]


def by_engine(engine: GenerationEngine, adapted: PeftModel, parts: Sequence[Part]) -> list[list[int]]:
    """Fold the adapter in and complete all prompts with the engine, freed memory kept as the command line does."""
    keep_freed_memory()
    new = []
    with MergedWeights(adapted).in_use():
        for part in parts:
            completions = engine.generate(part.prompts, part.sampling, range(len(part.prompts)))
            new += [list(completion.ids) for completion in completions]
    return new


def by_server(engine: VllmEngine, parts: Sequence[Part]) -> list[list[int]]:
    """Complete all prompts with servers, without an adapter."""
    return [
        list(completion.ids)
        for part in parts
        for completion in engine.generate(part.prompts, part.sampling, range(len(part.prompts)))
    ]


def by_generate(
    model: Any, parts: Sequence[Part], batch_size: int, stops: list[int], pad: int, memory_kept: bool = False
) -> list[list[int]]:
    """Complete all prompts, in their order, with transformers' `generate` on padded batches."""
    if memory_kept:
        keep_freed_memory()
    new = []
    for part in parts:
        for start in range(0, len(part.ids), batch_size):
            chosen = part.ids[start : start + batch_size]
            rows = plain.complete(model, chosen, part.sampling, list(range(len(chosen))), stops, pad)
            new += [[token for token in row if token != pad] for row in rows]
    return new


@torch.inference_mode(False)  # its own thread would be outside, and may then not write into tensors made inside
def by_generate_batch(
    model: Any, parts: Sequence[Part], stops: list[int], pad: int, memory: ContinuousBatchingConfig | None = None
) -> list[list[int]]:
    """Complete all prompts with transformers' continuous batching, in most of the free memory unless that is set.

    Raises:
        RuntimeError: If it gave up on a prompt, of which it only writes to the log.
    """
    new: list[list[int]] = []
    for part in parts:
        config = GenerationConfig(
            max_new_tokens=part.sampling.max_new_tokens,
            do_sample=True,
            temperature=part.sampling.temperature,
            top_p=part.sampling.top_p,
            eos_token_id=stops,
            pad_token_id=pad,
        )
        outputs = [
            *model.generate_batch(inputs=part.ids, generation_config=config, continuous_batching_config=memory).values()
        ]
        failed = [output.error for output in outputs if output.error is not None]
        if failed or len(outputs) < len(part.ids):
            raise RuntimeError(
                f"generate_batch completed {len(outputs) - len(failed)} of {len(part.ids)}: {failed[:1]}"
            )
        new += [output.generated_tokens for output in outputs]
    return new
