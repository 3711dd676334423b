"""Distillation inside a Lightning run: what the teacher is asked, and what a pair is trained on."""

import inspect
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from lightning.pytorch import LightningModule
from transformers import PreTrainedTokenizerBase

from isara_pl.datamodule.growing import fits_window, generating, pretrained_state
from isara_pl.errors import InputError
from isara_pl.generation.distributions import TokenDistributions, TopLogprobs
from isara_pl.generation.protocol import Teacher
from isara_pl.growth.hub_data import source_of
from isara_pl.growth.outer_epoch import Answered, GrowthPlan, Recording
from isara_pl.growth.pool import SamplePool
from isara_pl.growth.samples import Sample, read_questions, seeds_hash
from isara_pl.growth.shapes import Columns
from isara_pl.growth.words import wording
from isara_pl.run.randomness import derive_seed
from isara_pl.run.stages import stage
from isara_pl.run.trainer import Processes
from isara_pl.training.pairs import EncodedPair, PairEncoder
from isara_pl.training.step import Objective
from isara_pl.training.teacher_files import CURE, TeacherFiles

DistillOn = Literal["generated", "seeds", "file"]
TeacherWeights = Literal["current", "pretrained"]


@dataclass(frozen=True)
class Distillation:
    """What is distilled, and from which teacher.

    Attributes:
        objective: What is learned from the samples that are distilled on, as of `IsaraModule`.
        on: Samples that are distilled on; the others, and the seeds in any case, are learned as they stand.
        teacher: Weights of the teacher.
        demonstrations: Whether the teacher is shown any.
        top_logprobs: k, likeliest tokens that are kept of each of its distributions.
    """

    objective: Objective
    on: DistillOn
    teacher: TeacherWeights
    demonstrations: bool
    top_logprobs: int

    def teaches(self, sample: Sample) -> bool:
        """Whether a sample is distilled on."""
        return self.objective != "sft" and (sample.outer_epoch == 0) == (self.on == "seeds")

    def learns(self, sample: Sample) -> bool:
        """Whether a sample's answer is learned as it stands."""
        return sample.outer_epoch == 0 or self.objective != "distill" or not self.teaches(sample)

    def check(self, tokenizer: PreTrainedTokenizerBase | None, candidates: int) -> None:
        """Refuse to distill without tokens, or without samples to distill on."""
        if self.objective == "sft":
            return
        if tokenizer is None:
            raise InputError(
                f"model.objective is {self.objective}, which needs tokens: give data.tokenizer, or use sft"
            )
        if candidates == 0 and self.on != "seeds":
            raise InputError(
                f"model.objective is {self.objective} and data.distill_on {self.on}, but "
                "data.candidates_per_outer_epoch is 0, so there is nothing to distill on. Use data.distill_on seeds, "
                "or more candidates"
            )

    def check_module(self, module: Any) -> None:
        """Refuse a module that cannot be the teacher, or has another objective, before hours are spent on growing."""
        own = getattr(module, "objective", self.objective)
        if own != self.objective:
            raise InputError(
                f"model.objective is {own}, but data.objective {self.objective}. Give IsaraModule and IsaraDataModule "
                "the same objective, as the command line does"
            )
        if self.objective == "sft":
            return
        self._check_method(module, "distributions", ("prompts", "answers", "sampling", "top"))
        if self.records:
            self._check_method(module, "generate", ("prompts", "sampling", "seeds", "top"))
        if self.teacher == "pretrained":
            pretrained_state(module, "data.teacher")

    def _check_method(self, module: Any, name: str, parameters: tuple[str, ...]) -> None:
        try:
            inspect.signature(getattr(module, name, None)).bind(*parameters)  # type: ignore[arg-type]  # None is refused
        except TypeError:
            raise InputError(
                f"model.objective is {self.objective}, but {type(module).__name__} has no "
                f"{name}({', '.join(parameters)}), as IsaraModule has; use sft"
            ) from None

    def conditions(self, unlabelled: Sequence[Sample]) -> dict[str, Any]:
        """Give what the trained model depends on here, by the names of the options."""
        questions = {"data.unlabelled_questions": f"{len(unlabelled)} with the hash {seeds_hash(unlabelled)}"}
        if self.objective == "sft":
            return questions
        return {
            "data.distill_on": self.on,
            "data.teacher": self.teacher,
            "data.teacher_demonstrations": self.demonstrations,
            "data.top_logprobs": self.top_logprobs,
            **questions,
        }

    @property
    def records(self) -> bool:
        """Whether the teacher is the very model that answers: then its distributions are known once it has answered."""
        return self.objective != "sft" and self.on != "seeds" and self.teacher == "current" and self.demonstrations

    @property
    def finds_seeds(self) -> bool:
        """Whether seeds are taught from the seeds nearest to them."""
        return self.objective != "sft" and self.on == "seeds" and self.demonstrations


def given_questions(path: str | None, columns: Columns, on: DistillOn, needed: int, seed: int) -> list[Sample]:
    """Read the user's own questions, in the random order in which outer epochs take the `needed` ones.

    Raises:
        InputError: If there are too few of them, or they are given or missing where `on` says otherwise.
    """
    if (path is not None) != (on == "file"):
        raise InputError(
            "data.unlabelled_questions and data.distill_on file belong together: give both, or neither "
            f"(distill_on is {on}, unlabelled_questions {'null' if path is None else path})"
        )
    if path is None:
        return []
    file = source_of(path, "data.unlabelled_questions")
    questions = read_questions(file, "unlabelled", columns)
    if len(questions) < needed:
        raise InputError(
            f"{file}: {len(questions)} questions, but data.candidates_per_outer_epoch times data.outer_epochs takes "
            f"{needed}, each once. Lower one of them, or give more questions"
        )
    random.Random(derive_seed(seed, "unlabelled questions")).shuffle(questions)
    return questions


class Lessons:
    """Asks the teacher, keeps what it says, and gives it to the pairs that are trained on."""

    def __init__(self, distillation: Distillation, files: TeacherFiles, encode: PairEncoder, plan: GrowthPlan) -> None:
        self.distillation = distillation
        self.files = files
        self.encode = encode
        self.plan = plan
        self.sampling = plan.answer_sampling  # which decides what ends an answer
        self.top = TopLogprobs(distillation.top_logprobs, encode.end_id)
        self._told: set[str] = set()

    @property
    def recording(self) -> Recording | None:
        """What to keep while accepted samples are answered, where the teacher is the very model that answers."""
        return Recording(self.top, self.keep) if self.distillation.records else None

    def keep(self, accepted: Sequence[Answered]) -> None:
        """Keep what was recorded while samples were answered, where it is of the very tokens of the pair."""
        found = {}
        for answered in accepted:
            distributions, ids = answered.completion.distributions, answered.completion.ids
            pair = self.encode(answered.sample)
            tokens = pair.input_ids[pair.prompt_length :]
            # an unfinished answer has no distribution of its end
            if distributions is not None and len(distributions) == len(tokens) and tokens == [*ids, self.top.end_id]:
                found[answered.sample.id] = distributions
        if found:
            self.files.add(found)

    def ask(self, trainer: Any, outer_epoch: int, pool: SamplePool, before: Sequence[str]) -> None:
        """Ask the trainer's module for what is not known yet of the samples that an outer epoch begins to train on.

        Raises:
            InputError: If any of those `before` is not known any more: known when the checkpoint was written, it is of
                a model that has changed since.
        """
        processes, computing = Processes.of(trainer), Processes.computing(trainer)
        # the first one alone reads and records; what it told before is not sent again
        untold = {name: each for name, each in self.files.known.items() if name not in self._told}
        self.files.known.update(processes.from_first(lambda: untold))
        self._told = set(self.files.known)
        lost = [name for name in before if name not in self.files.known]
        if lost:
            raise InputError(
                f"{self.files.folder}: the teacher's distributions for {len(lost)} samples ({lost[0]}, …) are missing, "
                f"which were there when the checkpoint was written. {CURE}"
            )
        wanted = [sample for sample in pool.up_to(outer_epoch) if self.distillation.teaches(sample)]
        missing = [sample for sample in wanted if sample.id not in self.files.known]
        if not missing:
            return
        module = trainer.lightning_module
        weights = pretrained_state(module, "data.teacher") if self.distillation.teacher == "pretrained" else nullcontext

        def asked() -> list[TokenDistributions]:
            share = computing.share(missing)
            return self._asked(module, share, self._contexts(share, pool)) if share else []

        with stage("teaching", outer_epoch, total=len(computing.share(missing))), generating(trainer), weights():
            given = computing.gathered(asked)
        damaged = [one.id for one, found in zip(missing, given, strict=True) if not found.rest.isfinite().all()]
        if damaged:
            raise InputError(
                f"the teacher's distributions for {', '.join(damaged[:5])} are not numbers: training diverged (lower "
                "model.learning_rate), or the model's weights are damaged or overflow in this trainer.precision"
            )
        self.files.add({sample.id: distributions for sample, distributions in zip(missing, given, strict=True)})
        self._told = set(self.files.known)

    def _asked(
        self, module: Teacher, samples: Sequence[Sample], contexts: Sequence[Sequence[Sample]]
    ) -> list[TokenDistributions]:
        """Let the module read each question behind its demonstrations, and its answer."""
        pairs = [self.encode(sample) for sample in samples]
        # the last token of a pair is what its last distribution foretells
        answers = [pair.input_ids[pair.prompt_length : -1] for pair in pairs]
        fits = fits_window(cast(LightningModule, module), self.encode.tokenizer)
        write, prompts = self.plan.prompt_format.answer_prompt, []
        for sample, context, answer in zip(samples, contexts, answers, strict=True):
            shown = [write(sample.question, context[i:]) for i in range(len(context) + 1)]
            prompts.append(next((text for text in shown if fits is None or fits(text, len(answer))), shown[-1]))
        return [*module.distributions(prompts, answers, self.sampling, self.top)]

    def _contexts(self, samples: Sequence[Sample], pool: SamplePool) -> list[list[Sample]]:
        """Give the demonstrations of each sample: those that it was answered from; of a seed, the nearest others."""
        if not self.distillation.demonstrations:
            return [[] for _ in samples]
        if self.distillation.on != "seeds":
            known = {sample.id: sample for sample in pool.samples}
            return [[known[name] for name in sample.answer_demonstrations] for sample in samples]
        seeds, index, count = pool.up_to(0), self.plan.index, self.plan.settings.demonstrations
        index.add(seeds)
        # seeds that ask the same are left out together: else the teacher would read the answer that it teaches
        asking = Counter(wording(seed.question) for seed in seeds)
        nearest = index.nearest([sample.question for sample in samples], count + max(asking.values()), up_to=0)
        return [
            [other for other in found[::-1] if wording(other.question) != wording(sample.question)][-count:]
            for sample, found in zip(samples, nearest, strict=True)
        ]

    # -- training

    def taught(self, sample: Sample) -> EncodedPair:
        """Give a sample's pair as it is trained on.

        Raises:
            InputError: If its distributions are lost.
        """
        pair = self.encode(sample)
        if not self.distillation.teaches(sample):
            return pair
        distributions, tokens = self.files.known.get(sample.id), len(pair.input_ids) - pair.prompt_length
        if distributions is None or len(distributions) != tokens:
            lost = "are missing" if distributions is None else f"are {len(distributions)}, not {tokens}"
            raise InputError(
                f"{self.files.folder}: the teacher's distributions for the answer of sample {sample.id} {lost}. {CURE}"
            )
        return replace(pair, distributions=distributions, learned=self.distillation.learns(sample))
