"""The prompts of evaluation items, with demonstrations or without, and the answers to them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from isara_pl.generation.protocol import Completion, Sampling, TextGenerator, completions_of
from isara_pl.growth.prompts import PromptFormat
from isara_pl.growth.samples import Sample
from isara_pl.run.randomness import derive_seed


class ItemPrompts:
    """Items in the form that is trained on, after their demonstrations.

    Args:
        prompt_format: How pairs become text.
        demonstrations: Those of each item, by the item's id, the nearest last. Where a prompt is too long
            for the model's window, the farthest are dropped from here.
        generator: Answers.
        fits: Whether a prompt and so many further tokens fit into the model's window; None if any does.
        seed: Seed of the answers, which are greedy: only ties depend on it.
    """

    def __init__(
        self,
        prompt_format: PromptFormat,
        demonstrations: Mapping[str, list[Sample]],
        generator: TextGenerator,
        fits: Callable[[str, int], bool] | None,
        seed: int,
    ) -> None:
        self.prompt_format = prompt_format
        self.demonstrations = dict(demonstrations)
        self.generator = generator
        self.fits = fits
        self.seed = seed

    def prompt(self, item: Sample, following: int) -> str:
        """Give the prompt of an item.

        Args:
            item: The item.
            following: Tokens that will follow the prompt.
        """
        write = partial(self.prompt_format.answer_prompt, item.question)
        context = self.demonstrations[item.id]
        while context and self.fits is not None and not self.fits(write(context), following):
            context = context[1:]
        self.demonstrations[item.id] = context
        return write(context)

    def answers(self, items: Sequence[Sample], max_new_tokens: int) -> list[str]:
        """Answer items, greedily.

        Args:
            items: The items.
            max_new_tokens: Most tokens of an answer.
        """
        prompts = [self.prompt(item, max_new_tokens) for item in items]
        completions = self.complete(prompts, max_new_tokens, self.prompt_format.single_line)
        return [self.prompt_format.parse_answer(completion.text) for completion in completions]

    def complete(self, prompts: Sequence[str], max_new_tokens: int, single_line: bool) -> Sequence[Completion]:
        """Complete prompts, greedily.

        Args:
            prompts: Texts to complete.
            max_new_tokens: Most tokens of a completion.
            single_line: Whether a newline ends a completion.
        """
        sampling = Sampling(max_new_tokens=max_new_tokens, do_sample=False, stop_at_newline=single_line)
        seeds = [derive_seed(self.seed, "answer", prompt) for prompt in prompts]
        return completions_of(self.generator, prompts, sampling, seeds)
