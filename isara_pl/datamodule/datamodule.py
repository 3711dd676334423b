"""The LightningDataModule: when the pool grows, and the loaders over it."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from isara_pl.datamodule.growing import grow, window_of
from isara_pl.datamodule.pooled_data import PooledDataModule
from isara_pl.datamodule.teaching import Distillation, DistillOn, Lessons, TeacherWeights, given_questions
from isara_pl.errors import InputError
from isara_pl.evaluation.contamination import refuse_overlap
from isara_pl.generation.protocol import Sampling
from isara_pl.growth.hub_data import origin_of, source_of
from isara_pl.growth.outer_epoch import GrowthPlan, GrowthSettings, QuestionWriter
from isara_pl.growth.pool import SamplePool, is_grown
from isara_pl.growth.prompts import FormatName, PromptFormat, notes, prompt_format
from isara_pl.growth.retrieval import EMBEDDED_ENCODER, Context, EncoderUser, PoolIndex, SentenceEncoder
from isara_pl.growth.samples import Sample, read_questions, read_samples, seeds_hash
from isara_pl.growth.shapes import Columns
from isara_pl.models.loading import check_tokens, load_tokenizer
from isara_pl.models.sources import is_local, resolve_path
from isara_pl.module import IsaraModule
from isara_pl.run.conditions import OnChange
from isara_pl.run.folder import run_folder
from isara_pl.run.notices import rank_zero_warn
from isara_pl.run.options import options_of
from isara_pl.run.randomness import derive_seed
from isara_pl.run.trainer import measures_in_full
from isara_pl.training.loaders import (
    Figure,
    held_out_loader,
    in_file_order,
    left_out,
    loader_without_pairs,
    question_loader,
    text_loader,
    training_loader,
    training_part,
)
from isara_pl.training.pairs import PairEncoder
from isara_pl.training.step import Objective
from isara_pl.training.teacher_files import TeacherFiles

# options, beside those of growth, that decide what the pool becomes
ALSO_DECISIVE = ("epochs_per_outer_epoch", "train_on", "batch_size", "max_length")


class IsaraDataModule(PooledDataModule):
    """A training set that the model itself writes, outer epoch by outer epoch (arXiv 2401.06785).

    Whenever Lightning asks for the training set, the pool is grown if the outer epoch of the current
    epoch is not in it yet: the LightningModule's own `generate(prompts, sampling, seeds)` writes questions
    and answers, and every callback with a `verdict(candidate, pool)` filters them. The pool lies in
    `trainer.default_root_dir` as pool.jsonl and rejected.jsonl.

    The Trainer must be made with `reload_dataloaders_every_n_epochs=1` and
    `max_epochs=outer_epochs * epochs_per_outer_epoch`; the CLI does both.

    Args:
        seeds: File of the given question-answer pairs: CSV, JSON, JSON lines, Parquet or .xlsx with question/answer,
            prompt/completion, instruction[/input]/output, messages or another form of docs/DATA.md. A path,
            package://module/path, or a data set of the hub: hf://OWNER/NAME?split=train.
        held_out: File of pairs that are only measured on: answer_nll, and MC1 and MC2 where they have
            correct_answers and incorrect_answers.
        validation_share: Share of the seeds that is held out to validate on: never trained on nor shown as
            demonstration; 0 holds out none.
        questions: File of the questions that `predict` answers.
        unlabelled_questions: File of questions without answers, your own, for distill_on `file`.
        columns: Other names that fields have in these files: question=Frage,answer=Antwort, or a mapping.
        tokenizer: Whose tokens the batches hold: a model's name; the CLI takes model.name. Null takes IsaraModule's
            own, and gives any other module batches of text, dicts of the lists id, question, answer, prompt and
            completion (the pair in the prompt format), to encode itself.
        encoder: The sentence encoder for retrieval: a hub id, a folder, or package://module/path.
        prompt_format: How pairs become text: `qa` (Question: / Answer:), `chat` (the tokenizer's chat
            template), `safe-rlhf` (BEGINNING OF CONVERSATION: USER: / ASSISTANT:). Only `chat` keeps
            newlines inside a question or answer.
        candidates_per_outer_epoch: N, candidates that are generated in an outer epoch; 0 trains on the
            seeds alone.
        outer_epochs: Most outer epochs; the α rule may stop earlier.
        epochs_per_outer_epoch: Passes over the training set in each outer epoch.
        demonstrations: K, examples in a context; fewer where the model's window is short.
        question_context: `knn` is a random anchor and its nearest neighbours, `random` are K random samples.
        answer_context: `knn` are the nearest neighbours of the question, `random` are K random samples.
        per_source_quota: At most so many demonstrations from each earlier outer epoch, the rest seeds
            (released code: 1); null sets no limit.
        question_writer: Model that writes the questions: `current`, or `pretrained` without the adapter.
        question_sampling: How questions are drawn.
        answer_sampling: How answers are drawn.
        candidates_per_batch: Candidates that are generated, judged and written to disk at once.
        train_on: `all` is seeds and everything accepted, `newest` is seeds and the newest outer epoch.
        objective: What is learned from the samples of distill_on; the CLI takes it from the model.
        distill_on: Samples that a teacher, the same model with demonstrations, is asked about where the objective
            says so: `generated` are the accepted ones; `seeds` the seeds, with the nearest other seeds as
            demonstrations; `file` accepted ones whose questions come from unlabelled_questions in place of the
            model, in random order and each once.
        teacher: Weights of the teacher: `current`, or `pretrained` without the adapter.
        teacher_demonstrations: Whether the teacher is shown demonstrations; without, it is a control: what it then
            teaches does not come from them.
        top_logprobs: k, likeliest tokens that are kept of each of the teacher's distributions; the others count as one.
        batch_size: Pairs of a training batch, over all processes; an optimiser step takes
            trainer.accumulate_grad_batches of these batches.
        max_length: Most tokens of a pair, where the model's window is not shorter; longer answers are cut.
        on_change: What a resume does whose options differ from those that the pool was grown with: `refuse`, or
            `continue` with the new ones, where what is there stays, its seeds included.
        allow_overlap: Whether a seed may ask what an evaluation item asks; otherwise that is refused.
        trust_remote_code: Whether code that comes with the tokenizer may run; the CLI takes it from the model.
        seed: Decides every draw; the CLI takes it from seed_everything.

    Raises:
        InputError: If a file or a number cannot be used.
    """

    def __init__(
        self,
        seeds: str,
        held_out: str | None = None,
        validation_share: float = 0.0,
        questions: str | None = None,
        unlabelled_questions: str | None = None,
        columns: Columns = None,
        tokenizer: str | None = None,
        encoder: str = EMBEDDED_ENCODER,
        prompt_format: FormatName = "qa",
        candidates_per_outer_epoch: int = 512,
        outer_epochs: int = 4,
        epochs_per_outer_epoch: int = 1,
        demonstrations: int = 8,
        question_context: Context = "knn",
        answer_context: Context = "knn",
        per_source_quota: int | None = None,
        question_writer: QuestionWriter = "current",
        question_sampling: Sampling = Sampling(temperature=0.9, top_p=0.95, max_new_tokens=200),
        answer_sampling: Sampling = Sampling(max_new_tokens=100),
        candidates_per_batch: int = 64,
        train_on: Literal["all", "newest"] = "all",
        objective: Objective = "sft",
        distill_on: DistillOn = "generated",
        teacher: TeacherWeights = "current",
        teacher_demonstrations: bool = True,
        top_logprobs: int = 64,
        batch_size: int = 8,
        max_length: int = 2048,
        on_change: OnChange = "refuse",
        allow_overlap: bool = False,
        trust_remote_code: bool = False,
        seed: int = 0,
    ) -> None:
        for option, value, least in (
            ("candidates_per_outer_epoch", candidates_per_outer_epoch, 0),
            ("outer_epochs", outer_epochs, 1),
            ("epochs_per_outer_epoch", epochs_per_outer_epoch, 1),
            ("demonstrations", demonstrations, 1),
            ("per_source_quota", 0 if per_source_quota is None else per_source_quota, 0),
            ("candidates_per_batch", candidates_per_batch, 1),
            ("batch_size", batch_size, 1),
            ("max_length", max_length, 2),
            ("top_logprobs", top_logprobs, 1),
        ):
            if value < least:
                raise InputError(f"data.{option} is {value}; allowed: at least {least}")
        if candidates_per_outer_epoch == 0 and outer_epochs > 1:
            raise InputError(
                f"data.candidates_per_outer_epoch is 0, so nothing grows, but data.outer_epochs is {outer_epochs}; "
                "use outer_epochs 1 and epochs_per_outer_epoch for more passes over the seeds"
            )
        # files are read now: a bad line is told before any model is loaded
        given = read_samples(source := source_of(seeds, "data.seeds"), columns=columns)
        used = training_part(given, validation_share, seed)
        super().__init__(used, outer_epochs, epochs_per_outer_epoch, batch_size, on_change)
        self._given = given
        self._origin = origin_of(source)
        self.validation_share = validation_share
        self.train_on = train_on
        self.max_length = max_length
        self.seed = seed
        self.settings = GrowthSettings(
            candidates=candidates_per_outer_epoch,
            demonstrations=demonstrations,
            question_context=question_context,
            answer_context=answer_context,
            per_source_quota=per_source_quota,
            question_sampling=options_of(Sampling, question_sampling, "data.question_sampling"),
            answer_sampling=options_of(Sampling, answer_sampling, "data.answer_sampling"),
            candidates_per_batch=candidates_per_batch,
            question_writer=question_writer,
        )
        if is_local(encoder):
            resolve_path(encoder, "data.encoder")
        self.encoder_name = encoder
        self.fit_follows = False  # upon a validation, which measures the pretrained model for it
        self.held_out = read_samples(source_of(held_out, "data.held_out"), "held-out", columns) if held_out else []
        self.allow_overlap = allow_overlap
        self.questions = read_questions(source_of(questions, "data.questions"), columns=columns) if questions else []
        self._given_tokenizer = (
            load_tokenizer(tokenizer, trust_remote_code, option="data.tokenizer") if tokenizer else None
        )
        self.prompt_format_name = prompt_format
        self._use_tokenizer(self._given_tokenizer)
        self.distillation = Distillation(objective, distill_on, teacher, teacher_demonstrations, top_logprobs)
        self.distillation.check(self.tokenizer, candidates_per_outer_epoch)
        self.unlabelled = given_questions(
            unlabelled_questions, columns, distill_on, candidates_per_outer_epoch * outer_epochs, seed
        )
        self.check_overlap(self.held_out, "data.held_out")
        if not allow_overlap:
            refuse_overlap(self.unlabelled, self.validation, "data.validation_share", "unlabelled questions")
        for note in notes(self.prompt_format, prompt_format, given):
            rank_zero_warn(note)

    def _use_tokenizer(self, tokenizer: PreTrainedTokenizerBase | None) -> None:
        """Let batches hold its tokens and the prompt format know it; None gives batches of texts."""
        self.tokenizer = tokenizer
        self.prompt_format: PromptFormat = prompt_format(self.prompt_format_name, tokenizer)
        self._encode: PairEncoder | None = None
        vars(self).pop("plan", None)  # holds the prompt format

    def setup(self, stage: str) -> None:
        """Take IsaraModule's tokenizer where none was given, and open the pool in the trainer's folder."""
        module = getattr(self.trainer, "lightning_module", None)
        if self._given_tokenizer is None:
            self._use_tokenizer(module.tokenizer if isinstance(module, IsaraModule) else None)
        super().setup(stage)

    def check_overlap(self, items: Sequence[Sample], option: str) -> None:
        """Refuse evaluation items of an option, by an InputError, that ask what a seed asks, unless `allow_overlap`."""
        if not self.allow_overlap:
            refuse_overlap([*self.seeds, *self.validation], items, option)
            refuse_overlap(self.unlabelled, items, option, "unlabelled questions")

    @property
    def validation(self) -> list[Sample]:
        """The seeds that are held out to validate on."""
        return left_out(self._given, self.seeds) if self.validation_share else []

    @property
    def seeds_hash(self) -> str:
        """A short hash of all seeds' questions and answers: which runs had the same ones."""
        return seeds_hash(in_file_order([*self.seeds, *self.validation]))

    # -- outer epochs

    def train_dataloader(self) -> Any:
        """Grow the pool if this epoch's outer epoch is not in it yet, and give the epoch's batches.

        Returns:
            A loader of `isara_pl.training.pairs.Batch`, or of dicts of texts where no tokenizer was given.
        """
        trainer = self._checked_trainer()
        self._check_tokens()
        self._load_encoder()
        pool = self._known_pool()
        self.distillation.check_module(trainer.lightning_module)
        self._refuse_other_pool(pool)
        epoch = trainer.current_epoch
        outer_epoch = self.outer_epoch_of(epoch)
        self.lessons = self.lessons or self._first_lessons(trainer, pool)
        if self.settings.candidates and not trainer.should_stop and outer_epoch not in self._grown:
            self._grow(trainer, pool, outer_epoch)
        if self.lessons is not None and not trainer.should_stop:
            self.lessons.ask(trainer, outer_epoch, pool, self._taught)
        if trainer.should_stop:  # the α rule: Lightning counts this epoch, but nothing is trained in it
            self._exhausted_epoch = epoch
        samples, encode = self.training_samples(outer_epoch), self._pair_encoder()
        seed = derive_seed(self.seed, "batches", epoch)
        if encode is None:
            return text_loader(samples, self.prompt_format, self.batch_size, seed, self.processes)
        pair_of = self.lessons.taught if self.lessons and not trainer.should_stop else encode
        pairs = [pair_of(sample) for sample in samples]
        return training_loader(pairs, self.batch_size, epoch, seed, self.processes, encode.pad_token_id)

    def training_samples(self, outer_epoch: int) -> list[Sample]:
        """Give what an outer epoch trains on: exactly what the pool holds by then."""
        pool = self._known_pool()
        return pool.up_to(outer_epoch) if self.train_on == "all" else [*pool.up_to(0), *pool.accepted(outer_epoch)]

    def conditions(self) -> dict[str, Any]:
        """Give what the pool depends on here, by the names of the options."""
        growth = asdict(self.settings)
        del growth["candidates_per_batch"]  # changes nothing but rounding
        return {
            "data.seeds": f"{len(self.seeds + self.validation)} pairs with the hash {self.seeds_hash}{self._origin}",
            "data.validation_share": self.validation_share,
            "data.encoder": self.encoder_name,
            "data.prompt_format": self.prompt_format_name,
            "a pair in data.prompt_format": self._rendered("a question", "an answer"),
            "data.candidates_per_outer_epoch": growth.pop("candidates"),
            **{f"data.{name}": value for name, value in growth.items()},
            **{f"data.{name}": getattr(self, name) for name in ALSO_DECISIVE},
            **self.distillation.conditions(self.unlabelled),
            "seed_everything": self.seed,
        }

    def _first_lessons(self, trainer: Any, pool: SamplePool) -> Lessons | None:
        """Begin or go on with what the teacher said, where something is distilled."""
        encode = self._pair_encoder()
        if encode is None or self.distillation.objective == "sft":
            return None
        folder = run_folder(trainer)
        # what was killed before it grew or trained may have had other options
        begins = not self._checkpointed and not (folder and is_grown(folder))
        files = TeacherFiles(folder, [] if begins else [sample.id for sample in pool.samples])
        return Lessons(self.distillation, files, encode, self.plan)

    def _grow(self, trainer: Any, pool: SamplePool, outer_epoch: int) -> None:
        encode = self._pair_encoder()
        if encode is not None and not self._grown:
            for seed in self.seeds:  # one that cannot be trained on is refused before hours are spent on growing
                encode(seed)
        grow(trainer, outer_epoch, pool, self.plan, encode, self.lessons.recording if self.lessons else None)
        self._grown.add(outer_epoch)

    @cached_property
    def plan(self) -> GrowthPlan:
        """How every outer epoch grows."""
        questions = [question.question for question in self.unlabelled]
        return GrowthPlan(self.settings, self.prompt_format, self.index, self.seed, questions)

    @cached_property
    def encoder(self) -> SentenceEncoder:
        """The sentence encoder, on the trainer's device."""
        trainer: Any = self.trainer
        # not the module's, which Lightning moves there only after some of the hooks
        return SentenceEncoder(self.encoder_name, device=str(trainer.strategy.root_device) if trainer else "cpu")

    @cached_property
    def index(self) -> PoolIndex:
        """Finds samples by their questions; kept over the outer epochs, so that each is embedded once."""
        return PoolIndex(self.encoder, self.encoder.device)

    def _pair_encoder(self) -> PairEncoder | None:
        """Give what encodes pairs, each once, up to what the module's window holds; None gives batches of texts."""
        if self.tokenizer is None:
            return None
        trainer: Any = self.trainer
        window = window_of(trainer.lightning_module) if trainer else None
        longest = min(self.max_length, window or self.max_length)
        if self._encode is None or self._encode.max_length != longest:
            self._encode = PairEncoder(self.prompt_format, self.tokenizer, longest)
        return self._encode

    def _check_tokens(self) -> None:
        """Find out before anything runs whether the model has an embedding for all that the tokenizer gives."""
        trainer: Any = self.trainer
        rows = getattr(trainer.lightning_module, "embedding_rows", None) if trainer else None
        if self.tokenizer is not None and rows:
            check_tokens(self.tokenizer, self._rendered("a", "a"), rows)

    def _rendered(self, question: str, answer: str) -> str:
        texts = self.prompt_format
        return texts.answer_prompt(question) + texts.answer_text(answer) + texts.ending

    def _load_encoder(self) -> None:
        """Load the encoder before anything runs that will need it: one that does not work is told now."""
        trainer: Any = self.trainer
        fits = self.fit_follows or (trainer is not None and trainer.state.fn == "fit")
        users = [callback for callback in trainer.callbacks if isinstance(callback, EncoderUser)] if trainer else []
        grows = self.settings.candidates > 0 or self.distillation.finds_seeds
        if (fits and grows) or any(user.embeds(fits) for user in users):
            self.encoder.load()

    # -- measuring and predicting

    def val_dataloader(self) -> Any:
        """Give the held-out pairs and the validation share, a loader of each, or nothing where there is neither.

        Where callbacks measure on items of their own, an empty batch stands for no pairs.
        """
        self._check_tokens()
        self._load_encoder()
        loaders = [self.measuring_loader("answer_nll"), self.measuring_loader("validation_nll")]
        return [loader for loader in loaders if loader is not None] or loader_without_pairs(self.trainer)

    def measuring_loader(self, figure: Figure) -> Any:
        """Give in batches what a figure is measured on, held-out pairs or the validation share; None for no pairs."""
        samples = self.held_out if figure == "answer_nll" else self.validation
        encode = self._pair_encoder() if samples else None
        if encode is None:
            return None
        # without their end, which a pretrained model writes in another way
        pairs = [encode(sample, end=False) for sample in samples]
        in_full = self.trainer is None or measures_in_full(self.trainer)
        return held_out_loader(pairs, self.batch_size, self.processes, encode.pad_token_id, figure, in_full)

    def test_dataloader(self) -> Any:
        """Give the same as `val_dataloader`."""
        return self.val_dataloader()

    def predict_dataloader(self) -> Any:
        """Give the questions as prompts in the form that was trained on.

        Raises:
            InputError: If no questions were given.
        """
        if not self.questions:
            raise InputError("data.questions: predict needs a file of questions to answer")
        self._check_tokens()
        return question_loader(self.questions, self.prompt_format, self.settings.candidates_per_batch, self.processes)
