"""One outer epoch of growth: questions, retrieval, answers, filters, pool (arXiv 2401.06785, section 3)."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

from isara_pl.errors import InputError
from isara_pl.generation.distributions import TopLogprobs
from isara_pl.generation.protocol import Completion, Sampling, TextGenerator, completions_of
from isara_pl.growth.filtering import CandidateFilter, announce, judge
from isara_pl.growth.pool import NoRoom, Rejected, SamplePool
from isara_pl.growth.prompts import PromptFormat
from isara_pl.growth.retrieval import Context, PoolIndex, draw_samples
from isara_pl.growth.samples import Sample
from isara_pl.run.randomness import derive_seed
from isara_pl.run.stages import count, stage
from isara_pl.run.trainer import ALONE, Processes

QuestionWriter = Literal["current", "pretrained"]


@dataclass(frozen=True)
class Growth:
    """What an outer epoch of growth gave.

    Attributes:
        outer_epoch: Which one, from 1.
        candidates: How many were generated.
        accepted: How many of them entered the pool.
        rejected: How many each filter took.
        shortened: Contexts with fewer demonstrations than asked for, since the model's window is short.
        seconds: Wall time that this process spent on it.
        left_out: Samples that stood in no context: by themselves they leave no room for a new question there.
    """

    outer_epoch: int
    candidates: int
    accepted: int
    rejected: Counter[str]
    shortened: int
    seconds: float
    left_out: int = 0

    @property
    def novelty(self) -> float | None:
        """Share of the candidates that were accepted, |Dₜ| / N; None without candidates."""
        return self.accepted / self.candidates if self.candidates else None


@dataclass(frozen=True)
class GrowthSettings:
    """The options of growth, as `IsaraDataModule` documents them; `candidates` are those of an outer epoch."""

    candidates: int = 512
    demonstrations: int = 8
    question_context: Context = "knn"
    answer_context: Context = "knn"
    per_source_quota: int | None = None
    question_sampling: Sampling = Sampling(temperature=0.9, top_p=0.95, max_new_tokens=200)
    answer_sampling: Sampling = Sampling(max_new_tokens=100)
    candidates_per_batch: int = 64
    question_writer: QuestionWriter = "current"


@dataclass(frozen=True)
class GrowthPlan:
    """All that is the same in every outer epoch of a run.

    Attributes:
        settings: The options of growth.
        prompt_format: How pairs become prompts.
        index: Finds samples by their questions; what the pool has since gained is added to it.
        seed: The run's seed.
        questions: Given questions, one for each candidate of the whole run; without any, the model writes them.
    """

    settings: GrowthSettings
    prompt_format: PromptFormat
    index: PoolIndex
    seed: int = 0
    questions: Sequence[str] = ()

    @property
    def question_sampling(self) -> Sampling:
        """How questions are drawn in this prompt format."""
        return replace(self.settings.question_sampling, stop_at_newline=self.prompt_format.single_line)

    @property
    def answer_sampling(self) -> Sampling:
        """How answers are drawn in this prompt format."""
        return replace(self.settings.answer_sampling, stop_at_newline=self.prompt_format.single_line)


@dataclass(frozen=True)
class Asked:
    """A candidate's question: whether the model ended it, and what it was written from; nothing where it was given."""

    text: str
    finished: bool = True
    demonstrations: Sequence[Sample] = ()


@dataclass(frozen=True)
class Answered:
    """A candidate, and its answer as the generator gave it: an empty one where its question has no room for any."""

    sample: Sample
    completion: Completion
    has_room: bool = True


@dataclass(frozen=True)
class Recording:
    """What becomes of the distributions that answers are drawn from.

    Attributes:
        top: What to keep of them; only a Teacher is asked for it.
        keep: Called with the accepted of a batch, in the first process alone, before they are on disk; of a batch
            that an earlier process did not finish, also with those that are there already.
    """

    top: TopLogprobs
    keep: Callable[[Sequence[Answered]], None]


@dataclass(eq=False)
class OuterEpoch:
    """Grows a pool by one outer epoch, in batches of candidates.

    Every batch is on disk before the next begins. Batches whose candidates were all judged by an
    earlier process are not generated again.

    Several processes split each batch: all generate, the first one alone filters and writes, and every
    process has the same pool afterwards.

    Attributes:
        number: Which outer epoch, from 1.
        pool: The pool to grow.
        plan: How to grow.
        generator: Writes questions and answers.
        filters: Judge the candidates, in this order; the first that rejects is the one that counts.
        fits: Whether a prompt and so many new tokens fit into the model's window; None if any does.
        question_writer: Entered while questions are written, e.g. to switch the adapter off.
        on_batch: Called after each batch with the candidates judged and accepted so far.
        recording: Keeps distributions; None keeps none.
        processes: Those that grow it together. Each has the same pool, only the first one's with a folder.
    """

    number: int
    pool: SamplePool
    plan: GrowthPlan
    generator: TextGenerator
    filters: Sequence[CandidateFilter] = ()
    fits: Callable[[str, int], bool] | None = None
    question_writer: Callable[[], AbstractContextManager[object]] = nullcontext
    on_batch: Callable[[int, int], None] | None = None
    recording: Recording | None = None
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        self._settings = self.plan.settings
        begun_with = self.pool.up_to(self.number - 1)
        self._known = [sample for sample in begun_with if self._stands_in_a_prompt(sample)]  # contexts are from these
        self._left_out = len(begun_with) - len(self._known)
        self._shortened = 0

    def grow(self) -> Growth:
        """Grow the pool.

        Raises:
            InputError: If not even one demonstration fits into the model's window, or the generator gives another
                number of completions than prompts.
        """
        began = time.perf_counter()
        if not self._known and not self.plan.questions:
            raise InputError(
                f"a prompt with the sample {self.pool.samples[0].id} alone and "
                f"{self.plan.question_sampling.max_new_tokens} new tokens does not fit into the model's window, nor "
                "with any other. Shorten the samples, lower max_new_tokens, or use a model with a longer window"
            )
        judged = self.pool.judged(self.number)
        accepted = len(self.pool.accepted(self.number))
        total, step = self._settings.candidates, self._settings.candidates_per_batch
        batches = [range(start, min(start + step, total)) for start in range(0, total, step)]
        missing = [numbers for numbers in batches if any(self._id(number) not in judged for number in numbers)]
        if missing and "knn" in (self._settings.question_context, self._settings.answer_context):
            self.processes.gathered(self._embedded)
        for numbers in missing:
            candidates = self.processes.gathered(partial(self._candidates, self.processes.share(numbers)))
            accepted += self._judge(candidates, judged)
            new = sum(answered.sample.id not in judged for answered in candidates)
            count(done=new if self.processes.is_first else 0)  # it judges for all
            if self.on_batch:
                self.on_batch(numbers.stop, accepted)
        return Growth(
            outer_epoch=self.number,
            candidates=len(self.pool.judged(self.number)),
            accepted=accepted,
            rejected=self.pool.rejected(self.number),
            shortened=sum(self.processes.gathered(lambda: [self._shortened])),
            seconds=time.perf_counter() - began,
            left_out=self._left_out,
        )

    def _embedded(self) -> list[None]:
        """Embed what contexts are drawn from, in every process; an error in one is then one in all."""
        self.plan.index.add(self._known)
        return []

    def _id(self, number: int) -> str:
        return f"{self.number}-{number:05d}"

    def _candidates(self, numbers: Sequence[int]) -> list[Answered]:
        """Write the questions of a batch, or of this process's part of it, then their answers."""
        if not numbers:
            return []
        seeds = [derive_seed(self.plan.seed, "candidate", self.number, number) for number in numbers]
        if self.plan.questions:
            first = (self.number - 1) * self._settings.candidates
            asked = [Asked(self.plan.questions[first + number]) for number in numbers]
        else:
            asked = self._written_questions(numbers, seeds)
        questions = [question.text for question in asked]
        answer_contexts = self._answer_contexts(numbers, questions)
        sampling = self.plan.answer_sampling
        prompts = [
            self._prompt(context, partial(self.plan.prompt_format.answer_prompt, question), sampling)
            for question, context in zip(questions, answer_contexts, strict=True)
        ]
        top = self.recording.top if self.recording else None
        asking = [place for place, prompt in enumerate(prompts) if prompt is not None]
        given = self._generate(
            [prompt[0] for prompt in prompts if prompt], sampling, [seeds[place] for place in asking], "answer", top
        )
        completions = dict(zip(asking, given, strict=True))
        answers = [completions.get(place, Completion("", finished=False)) for place in range(len(numbers))]
        return [
            Answered(
                Sample(
                    id=self._id(number),
                    question=question.text,
                    answer=_writable(self.plan.prompt_format.parse_answer(completion.text)),
                    outer_epoch=self.number,
                    question_demonstrations=tuple(sample.id for sample in question.demonstrations),
                    answer_demonstrations=tuple(sample.id for sample in prompt[1]) if prompt else (),
                    sampling_seed=seed,
                    question_finished=question.finished,
                    answer_finished=completion.finished,
                ),
                completion,
                has_room=prompt is not None,
            )
            for number, seed, question, prompt, completion in zip(numbers, seeds, asked, prompts, answers, strict=True)
        ]

    def _written_questions(self, numbers: Sequence[int], seeds: Sequence[int]) -> list[Asked]:
        """Let the model write a question for each candidate."""
        question_contexts = self._question_contexts(numbers)
        sampling = self.plan.question_sampling
        write = self.plan.prompt_format.question_prompt
        # there always is one: whatever stands in a context fits by itself
        prompts = [prompt for each in question_contexts if (prompt := self._prompt(each, write, sampling, fewest=1))]
        with self.question_writer():
            completions = self._generate([text for text, _ in prompts], sampling, seeds, "question")
        questions = [_writable(self.plan.prompt_format.parse_question(completion.text)) for completion in completions]
        # what the parser cut off came after the question's end
        ended = [
            completion.finished or question != completion.text.strip()
            for question, completion in zip(questions, completions, strict=True)
        ]
        return [
            Asked(question, finished, used)
            for question, finished, (_, used) in zip(questions, ended, prompts, strict=True)
        ]

    def _question_contexts(self, numbers: Sequence[int]) -> list[list[Sample]]:
        """Draw the demonstrations from which each question is written, the anchor last."""
        count, quota = self._settings.demonstrations, self._settings.per_source_quota
        if self._settings.question_context == "random":
            draws = [self._draw("context", number) for number in numbers]
            return [draw_samples(self._known, count, quota, draw) for draw in draws]
        anchors = [self._known[self._anchors[number]] for number in numbers]
        return [
            [*[sample for sample in neighbours[::-1] if sample.id != anchor.id][-(count - 1) :], anchor]
            if count > 1
            else [anchor]
            for anchor, neighbours in zip(anchors, self._nearest([anchor.question for anchor in anchors]), strict=True)
        ]

    def _answer_contexts(self, numbers: Sequence[int], questions: Sequence[str]) -> list[list[Sample]]:
        """Find the demonstrations from which each question is answered, the nearest last: next to the question."""
        count, quota = self._settings.demonstrations, self._settings.per_source_quota
        if self._settings.answer_context == "knn":
            return [neighbours[::-1] for neighbours in self._nearest(questions)]
        draws = [self._draw("answer context", number) for number in numbers]
        return [draw_samples(self._known, count, quota, draw) for draw in draws]

    @cached_property
    def _anchors(self) -> list[int]:
        """The place of each candidate's anchor: drawn at random, then sorted, so that it depends on N as well.

        Candidates of one anchor have one context; next to each other they need it computed only once.
        """
        return sorted(
            self._draw("context", number).randrange(len(self._known)) for number in range(self._settings.candidates)
        )

    def _draw(self, purpose: str, number: int) -> random.Random:
        return random.Random(derive_seed(self.plan.seed, purpose, self.number, number))

    def _nearest(self, questions: Sequence[str]) -> list[list[Sample]]:
        count, quota = self._settings.demonstrations, self._settings.per_source_quota
        return self.plan.index.nearest(questions, count, quota, up_to=self.number - 1)

    def _stands_in_a_prompt(self, sample: Sample) -> bool:
        """Whether a sample by itself leaves room in the model's window for what is written first: else it is no use."""
        texts = self.plan.prompt_format
        if self.plan.questions:
            text, sampling = texts.answer_prompt("a", [sample]), self.plan.answer_sampling
        else:
            text, sampling = texts.question_prompt([sample]), self.plan.question_sampling
        return self.fits is None or self.fits(text, sampling.max_new_tokens)

    def _prompt(
        self, context: list[Sample], write: Callable[[Sequence[Sample]], str], sampling: Sampling, fewest: int = 0
    ) -> tuple[str, list[Sample]] | None:
        """Write a prompt, dropping the farthest demonstrations until it fits into the window; None where it never does.

        At least the `fewest` last ones stay.
        """
        for dropped in range(len(context) - fewest + 1):
            shown = context[dropped:]
            text = write(shown)
            if self.fits is None or self.fits(text, sampling.max_new_tokens):
                self._shortened += dropped > 0
                return text, shown
        return None

    def _generate(
        self, prompts: list[str], sampling: Sampling, seeds: Sequence[int], part: str, top: TopLogprobs | None = None
    ) -> Sequence[Completion]:
        """Generate for the questions or the answers of a batch; each candidate has its own randomness."""
        if not prompts:
            return []
        with stage(f"{part}s", total=len(prompts)) as generating:
            given = completions_of(self.generator, prompts, sampling, [derive_seed(seed, part) for seed in seeds], top)
            count(done=len(prompts) - generating.done)  # not every generator counts by itself
        return given

    def _judge(self, candidates: list[Answered], judged: set[str]) -> int:
        """Put each new candidate into the pool or among the rejected, in every process, and count the accepted."""
        accepted, rejected = self.processes.from_first(partial(self._filtered, candidates, judged))
        if not self.processes.is_first:
            for sample in accepted:
                self.pool.add(sample)
            self.pool.record(accepted, rejected)
        return len(accepted)

    def _filtered(self, candidates: list[Answered], judged: set[str]) -> tuple[list[Sample], list[Rejected]]:
        """Let the filters judge what is new, and write the batch to disk."""
        accepted: list[Sample] = []
        rejected: list[Rejected] = []
        new = [answered for answered in candidates if answered.sample.id not in judged]
        with stage("filtering", total=len(new)):
            announce([answered.sample for answered in candidates if answered.has_room], self.filters, self.pool)
            for answered in new:
                found = judge(answered.sample, self.filters if answered.has_room else [NoRoom()], self.pool)
                if isinstance(found, Rejected):
                    rejected.append(found)
                else:
                    accepted.append(found)
                    self.pool.add(found)
                count(done=1)
        if self.recording:
            in_pool = {sample.id: sample for sample in self.pool.accepted(self.number)}
            every = [(in_pool.get(answered.sample.id), answered.completion) for answered in candidates]
            self.recording.keep([Answered(sample, completion) for sample, completion in every if sample])
        self.pool.record(accepted, rejected)
        return accepted, rejected


def _writable(text: str) -> str:
    """Replace halves of characters (lone surrogates), which an engine may give and no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
