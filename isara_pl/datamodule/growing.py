"""Growth inside a Lightning run: its module writes, its callbacks judge and hear of it."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_info
from transformers import PreTrainedTokenizerBase

from isara_pl.errors import InputError
from isara_pl.generation.protocol import TextGenerator
from isara_pl.growth.filtering import CandidateFilter
from isara_pl.growth.outer_epoch import Growth, GrowthPlan, OuterEpoch, Recording
from isara_pl.growth.pool import Empty, SamplePool
from isara_pl.models.loading import context_window, eval_mode
from isara_pl.models.tokens import count_tokens
from isara_pl.module import IsaraModule
from isara_pl.run.memory import give_back_freed_memory
from isara_pl.run.notices import rank_zero_warn
from isara_pl.run.stages import stage
from isara_pl.run.trainer import Processes, callbacks_of, is_trial
from isara_pl.training.pairs import PairEncoder, TooLong


class GrowthCallback(Callback):
    """A callback that hears of growth, in the hooks that it fills in. What one raises ends the growth, and the fit.

    Callbacks of another base are called as well, for those of the hooks that they have.
    """

    def on_growth_start(self, trainer: Trainer, outer_epoch: int) -> None:
        """Hear that an outer epoch begins to grow."""

    def on_growth_batch_end(self, trainer: Trainer, judged: int, accepted: int) -> None:
        """Hear of a batch of candidates that is on disk; the counts are those of the outer epoch so far."""

    def on_growth_end(self, trainer: Trainer, growth: Growth) -> None:
        """Hear of a finished growth before any training on it, which setting `trainer.should_stop` here prevents."""


def grow(
    trainer: Trainer,
    outer_epoch: int,
    pool: SamplePool,
    plan: GrowthPlan,
    encode: PairEncoder | None,
    recording: Recording | None,
) -> None:
    """Grow one outer epoch, or what is left of it, with the trainer's module, and tell its callbacks.

    Without an encoder of pairs no question is too long; prompts are counted by the module's own tokenizer, if any.

    Raises:
        InputError: If the module cannot generate, or has no pretrained state to switch to.
    """
    module = trainer.lightning_module
    generator = text_generator(module, "the loop")
    if is_trial(trainer):
        plan = replace(plan, settings=replace(plan.settings, candidates=min(plan.settings.candidates, 2)))
    settings = plan.settings
    filters = candidate_filters(trainer)
    filters.append(Empty())  # the built-in ones last: what others reject should count as theirs
    if encode is not None:
        filters.append(TooLong(encode.prompt_format, encode.tokenizer, encode.max_length))

    def on_batch(judged: int, accepted: int) -> None:
        rank_zero_info(f"outer epoch {outer_epoch}: {judged}/{settings.candidates} candidates, {accepted} accepted")
        _tell(trainer, "on_growth_batch_end", judged, accepted)

    _tell(trainer, "on_growth_start", outer_epoch)
    growth = OuterEpoch(
        number=outer_epoch,
        pool=pool,
        plan=plan,
        generator=generator,
        filters=filters,
        fits=fits_window(module, encode.tokenizer if encode else None, growing=True),
        question_writer=(
            pretrained_state(module, "data.question_writer")
            if settings.question_writer == "pretrained"
            else nullcontext
        ),
        on_batch=on_batch,
        recording=recording,
        processes=Processes.of(trainer),
    )
    left = max(settings.candidates - len(pool.judged(outer_epoch)), 0)  # a resume may ask for fewer than there are
    with stage("growth", outer_epoch, total=left), generating(trainer, plan, recording):
        grown = growth.grow()
    if grown.left_out:
        rank_zero_warn(
            f"outer epoch {outer_epoch}: {grown.left_out} samples of the pool stand in no context: by themselves they "
            "leave no room for a new question in the model's window. They are trained on all the same"
        )
    if grown.shortened:
        rank_zero_info(
            f"outer epoch {outer_epoch}: {grown.shortened} contexts hold fewer than {settings.demonstrations} "
            "demonstrations, since the model's window is short"
        )
    _tell(trainer, "on_growth_end", grown)


def _tell(trainer: Trainer, hook: str, *told: object) -> None:
    """Call a hook of GrowthCallback in every callback that has it."""
    for callback in callbacks_of(trainer):
        if hasattr(callback, hook):
            getattr(callback, hook)(trainer, *told)


def candidate_filters(trainer: Trainer) -> list[CandidateFilter]:
    """Give the trainer's callbacks that judge candidates, in their order."""
    return [callback for callback in callbacks_of(trainer) if isinstance(callback, CandidateFilter)]


def taken_by_filters(trainer: Trainer, growth: Growth) -> dict[str, int]:
    """Give what each filter rejected, in their order; those that are no callbacks come last."""
    names = [type(candidate_filter).__name__ for candidate_filter in candidate_filters(trainer)]
    return {name: growth.rejected.get(name, 0) for name in dict.fromkeys([*names, *sorted(growth.rejected)])}


def text_generator(module: LightningModule, user: str) -> TextGenerator:
    """Give a module as what completes prompts, or refuse it with an InputError that names its user."""
    generate = getattr(module, "generate", None)
    try:
        inspect.signature(generate).bind([], None, [])  # type: ignore[arg-type]  # None is refused as well
    except TypeError:
        raise InputError(
            f"{type(module).__name__} has no generate(prompts, sampling, seeds), which {user} needs"
        ) from None
    return cast(TextGenerator, module)


def fits_window(
    module: LightningModule, tokenizer: PreTrainedTokenizerBase | None, growing: bool = False
) -> Callable[[str, int], bool] | None:
    """Give what tells whether a prompt and so many new tokens fit; for growing, also on the servers that generate.

    None where window or tokenizer is unknown. The tokenizer is the given one, or else the module's own.
    """
    served = module.served if growing and isinstance(module, IsaraModule) else None
    windows = [window_of(module), served.window if served else None]
    window = min((each for each in windows if each is not None), default=None)
    known = getattr(module, "tokenizer", None) if tokenizer is None else tokenizer
    if window is None or not hasattr(known, "encode"):
        return None
    return lambda prompt, new_tokens: count_tokens(known, prompt) + new_tokens <= window


def window_of(module: LightningModule) -> int | None:
    """Give the most tokens that a module attends to: its `context_window`, or else what the config of its `model` says.

    None where neither tells.
    """
    own: int | None = getattr(module, "context_window", None)
    return own or context_window(getattr(module, "model", None))


def pretrained_state(module: LightningModule, option: str) -> Callable[[], AbstractContextManager[object]]:
    """Give what switches a module to its pretrained weights, or refuse it with an InputError that names the option."""
    pretrained: Callable[[], AbstractContextManager[object]] | None = getattr(module, "pretrained", None)
    if pretrained is None:
        raise InputError(
            f"{option} is pretrained, but {type(module).__name__} has no method pretrained() "
            "that switches its adapter off; use current"
        )
    return pretrained


@contextmanager
def generating(trainer: Trainer, plan: GrowthPlan | None = None, recording: Recording | None = None) -> Iterator[None]:
    """Let the trainer's module generate inside the block: in eval mode, in the trainer's precision, adapter merged.

    With a plan it is for growing, where a module may let another engine generate.
    """
    module = trainer.lightning_module
    with eval_mode(module), trainer.precision_plugin.forward_context(), _prepared(module, plan, recording):
        yield
    give_back_freed_memory()  # keys and values of the largest batch, before training needs its own


def _prepared(
    module: LightningModule, plan: GrowthPlan | None, recording: Recording | None
) -> AbstractContextManager[object]:
    """Let a module that can do so prepare its weights, or another engine, for generation once for the whole growth."""
    growing: Callable[..., AbstractContextManager[object]] | None = getattr(module, "growing", None)
    if plan is not None and growing is not None:
        samplings = (plan.question_sampling, plan.answer_sampling)
        return growing(samplings, recording.top if recording else None)
    merged: Callable[[], AbstractContextManager[object]] = getattr(module, "merged", nullcontext)
    return merged()
