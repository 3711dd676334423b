"""Growth inside a Lightning run: its module writes, its callbacks judge and hear of it."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy
from lightning_utilities.core.rank_zero import rank_zero_info
from transformers import PreTrainedTokenizerBase

from isara_pl.errors import InputError
from isara_pl.generation.distributions import TopLogprobs
from isara_pl.generation.protocol import TextGenerator
from isara_pl.growth.empty import Empty
from isara_pl.growth.outer_epoch import Answered, CandidateFilter, Growth, GrowthSettings, OuterEpoch
from isara_pl.growth.pool import SamplePool
from isara_pl.growth.prompts import PromptFormat
from isara_pl.growth.retrieval import PoolIndex
from isara_pl.models.tokens import encode_prompt
from isara_pl.run.memory import give_back_freed_memory
from isara_pl.run.processes import Processes
from isara_pl.run.stages import stage
from isara_pl.run.trainer import callbacks_of, is_trial
from isara_pl.training.pairs import TooLong

QuestionWriter = Literal["current", "pretrained"]


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
    index: PoolIndex,
    tokenizer: PreTrainedTokenizerBase | None,
    prompt_format: PromptFormat,
    settings: GrowthSettings,
    question_writer: QuestionWriter,
    longest_pair: int,
    seed: int,
    questions: Sequence[str] | None = None,
    top: TopLogprobs | None = None,
    on_accepted: Callable[[Sequence[Answered]], None] | None = None,
) -> None:
    """Grow one outer epoch, or what is left of it, with the trainer's module, and tell its callbacks.

    Args:
        trainer: The trainer, in `fit`.
        outer_epoch: Which one, from 1.
        pool: The pool to grow.
        index: Finds samples by their questions.
        tokenizer: Counts tokens; None counts nothing.
        prompt_format: How pairs become prompts.
        settings: How to grow.
        question_writer: Model that writes the questions.
        longest_pair: Most tokens of a pair that is trained on.
        seed: The run's seed.
        questions: Given questions, one for each candidate; None lets the model write them.
        top: What to keep of the distributions that answers are drawn from, where a teacher is the model that answers.
        on_accepted: Called with what a batch adds to the pool, before it is on disk.

    Raises:
        InputError: If the module cannot generate, or has no pretrained state to switch to.
    """
    module = trainer.lightning_module
    generator = text_generator(module, "the loop")
    if is_trial(trainer):
        settings = replace(settings, candidates=min(settings.candidates, 2))
    filters = candidate_filters(trainer)
    filters.append(Empty())  # the built-in ones last: what others reject should count as theirs
    if tokenizer is not None:
        filters.append(TooLong(prompt_format, tokenizer, longest_pair))

    def on_batch(judged: int, accepted: int) -> None:
        rank_zero_info(f"outer epoch {outer_epoch}: {judged}/{settings.candidates} candidates, {accepted} accepted")
        _tell(trainer, "on_growth_batch_end", judged, accepted)

    _tell(trainer, "on_growth_start", outer_epoch)
    growth = OuterEpoch(
        number=outer_epoch,
        pool=pool,
        index=index,
        generator=generator,
        filters=filters,
        prompt_format=prompt_format,
        settings=settings,
        seed=seed,
        fits=fits_window(module, tokenizer),
        question_writer=(
            pretrained_state(module, "data.question_writer") if question_writer == "pretrained" else nullcontext
        ),
        on_batch=on_batch,
        processes=Processes.of(trainer),
        questions=questions,
        top=top,
        on_accepted=on_accepted,
    )
    left = max(settings.candidates - len(pool.judged(outer_epoch)), 0)  # a resume may ask for fewer than there are
    with stage("growth", outer_epoch, total=left), generating(trainer):
        grown = growth.grow()
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
    """Give the trainer's callbacks that judge candidates, in their order.

    Args:
        trainer: The trainer.
    """
    return [callback for callback in callbacks_of(trainer) if isinstance(callback, CandidateFilter)]


def check_processes(trainer: Any, batch_size: int) -> None:
    """Refuse several processes that could not split growing, training and measuring.

    Args:
        trainer: The trainer.
        batch_size: Pairs of a training batch, over all processes.

    Raises:
        InputError: If the model would not be whole in each of them, Lightning would split the data once more,
            or there are more processes than pairs of a batch.
    """
    strategy, count = trainer.strategy, trainer.world_size
    if count == 1:
        return
    # spawned and forked processes take what the data module knows with them when they end
    whole = isinstance(strategy, DDPStrategy) and not isinstance(strategy, DeepSpeedStrategy)
    if not whole or strategy._start_method != "popen":
        raise InputError(
            f"trainer.strategy is {type(strategy).__name__} with {count} processes. Allowed: ddp (not ddp_spawn, "
            "ddp_fork or ddp_notebook), where each process generates with a whole model; or trainer.devices 1"
        )
    if trainer._accelerator_connector.use_distributed_sampler:
        raise InputError(
            f"trainer.use_distributed_sampler is true with {count} processes, but IsaraDataModule splits its batches "
            "itself; use Trainer(use_distributed_sampler=False)"
        )
    if batch_size < count:
        raise InputError(
            f"data.batch_size is {batch_size}, the pairs of a batch over all processes, of which there are {count}; "
            f"allowed: at least {count}"
        )


def check_reloading(trainer: Any) -> None:
    """Refuse a trainer that would ask for the training set only once.

    Args:
        trainer: The trainer.

    Raises:
        InputError: If it does not ask for it in every epoch.
    """
    if trainer.reload_dataloaders_every_n_epochs != 1:
        raise InputError(
            "IsaraDataModule needs Trainer(reload_dataloaders_every_n_epochs=1), found "
            f"{trainer.reload_dataloaders_every_n_epochs}: otherwise later outer epochs would never be grown"
        )


def check_epochs(trainer: Any, outer_epochs: int, epochs_per_outer_epoch: int) -> None:
    """Refuse a trainer or a module that would count other outer epochs than the data, or not stop where it is told to.

    Args:
        trainer: The trainer.
        outer_epochs: Those of the data.
        epochs_per_outer_epoch: That of the data.

    Raises:
        InputError: If the trainer has other epochs or a least number of them, or the module another number for each
            outer epoch.
    """
    of_module = getattr(trainer.lightning_module, "epochs_per_outer_epoch", epochs_per_outer_epoch)
    if of_module != epochs_per_outer_epoch:
        raise InputError(
            f"{type(trainer.lightning_module).__name__} has epochs_per_outer_epoch={of_module} and IsaraDataModule "
            f"{epochs_per_outer_epoch}: learning rate and optimiser would begin anew at other places than the pool "
            "grows. Give both the same"
        )
    epochs = outer_epochs * epochs_per_outer_epoch
    if trainer.max_epochs != epochs and not trainer.fast_dev_run:  # which has one epoch, whatever was asked for
        raise InputError(
            f"IsaraDataModule needs Trainer(max_epochs={epochs}), found {trainer.max_epochs}: it has outer_epochs="
            f"{outer_epochs} with epochs_per_outer_epoch={epochs_per_outer_epoch}"
        )
    if trainer.min_epochs or trainer.min_steps:
        raise InputError(
            f"trainer.min_epochs is {trainer.min_epochs} and trainer.min_steps {trainer.min_steps}: where α or another "
            "callback ends the run, Lightning would train on, on a pool that does not grow any more. Leave both out; "
            "a run goes on longer with a lower alpha_stopping.alpha, or with more patience of what else stops it"
        )


def pool_of_first(processes: Processes, opened: Callable[[], SamplePool | None]) -> SamplePool | None:
    """Let the first process open the pool; every other one gets a copy that writes nothing.

    Args:
        processes: The run's processes.
        opened: Opens the pool in the run folder, if there is one.
    """
    pool = processes.from_first(opened)
    if pool is not None and not processes.is_first:
        pool.folder = None
    return pool


def text_generator(module: LightningModule, user: str) -> TextGenerator:
    """Give a module as what completes prompts.

    Args:
        module: The module.
        user: What needs it, for the error's text.

    Raises:
        InputError: If it has no `generate(prompts, sampling, seeds)`.
    """
    generate = getattr(module, "generate", None)
    try:
        inspect.signature(generate).bind([], None, [])  # type: ignore[arg-type]  # None is refused as well
    except TypeError:
        raise InputError(
            f"{type(module).__name__} has no generate(prompts, sampling, seeds), which {user} needs"
        ) from None
    return cast(TextGenerator, module)


def fits_window(
    module: LightningModule, tokenizer: PreTrainedTokenizerBase | None
) -> Callable[[str, int], bool] | None:
    """Give what tells whether a prompt and so many further tokens fit into the module's window.

    Args:
        module: The module; its `context_window` is asked, if it has one.
        tokenizer: Counts the tokens.

    Returns:
        A function of the prompt and the number of tokens; None where window or tokenizer is unknown.
    """
    window = getattr(module, "context_window", None)
    if window is None or tokenizer is None:
        return None
    return lambda prompt, new_tokens: len(encode_prompt(tokenizer, prompt)) + new_tokens <= window


def pretrained_state(module: LightningModule, option: str) -> Callable[[], AbstractContextManager[object]]:
    """Give what switches a module to its pretrained weights.

    Args:
        module: The module.
        option: Which option asks for that, for the error's text.

    Raises:
        InputError: If it has no method `pretrained`.
    """
    pretrained: Callable[[], AbstractContextManager[object]] | None = getattr(module, "pretrained", None)
    if pretrained is None:
        raise InputError(
            f"{option} is pretrained, but {type(module).__name__} has no method pretrained() "
            "that switches its adapter off; use current"
        )
    return pretrained


@contextmanager
def generating(trainer: Trainer) -> Iterator[None]:
    """Let the trainer's module generate inside the block: in eval mode, in the trainer's precision, adapter merged.

    Args:
        trainer: The trainer.
    """
    module = trainer.lightning_module
    with _eval_mode(module), trainer.precision_plugin.forward_context(), _merged(module):
        yield
    give_back_freed_memory()  # keys and values of the largest batch, before training needs its own


def _merged(module: LightningModule) -> AbstractContextManager[object]:
    """Let a module that can do so prepare its weights for generation once, for the whole growth."""
    merged: Callable[[], AbstractContextManager[object]] = getattr(module, "merged", nullcontext)
    return merged()


@contextmanager
def _eval_mode(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into eval mode inside the block, and every part of it back into its own mode after."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
