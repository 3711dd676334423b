"""What evaluations of given answers share: their log-probabilities, and the question-blind control."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule
from lightning_utilities.core.rank_zero import rank_zero_info

from isara_pl.callbacks.evaluation import Evaluation, Line, check_choice
from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.errors import InputError
from isara_pl.evaluation.blind import BLIND, CONTROLS, EMPTY, Blind, drawn, others_of
from isara_pl.evaluation.choice_scores import ChoiceScore, Question, Scorer, choice_scores, scores_by
from isara_pl.evaluation.prompting import ItemPrompts
from isara_pl.growth.retrieval import Context
from isara_pl.growth.samples import Sample
from isara_pl.models.tokens import count_continuation
from isara_pl.module import IsaraModule
from isara_pl.run.randomness import derive_seed

ASKED = ""  # beside its controls: the item's own question


class AnswerScoring(Evaluation):
    """An evaluation of given answers by their log-probabilities, with the question-blind control of its figures.

    Args:
        default_name: As of `Evaluation`, and so are the others.
        blind: What the answers are scored after as well: `another` item's question, `both` that and an empty
            question, or `none`.
        blind_items: Most items that have a control; None takes all.
    """

    def __init__(
        self,
        default_name: str,
        name: str | None,
        items: str | None,
        demonstrations: int,
        context: Context,
        batch_size: int,
        blind: Blind,
        blind_items: int | None,
    ) -> None:
        kind = type(self).__name__
        check_choice(f"{kind}: blind", blind, Blind)
        if blind_items is not None and blind_items < 1:
            raise InputError(f"{kind}: blind_items is {blind_items}; allowed: at least 1, or null for all items")
        self.blind = blind
        self.blind_items = blind_items
        super().__init__(default_name, name, items, demonstrations, context, batch_size)

    def others(self, data: IsaraDataModule, items: Sequence[Sample]) -> Mapping[str, Sample]:
        """Give an item with another question for each item that has a control, by its id."""
        questions = [item.question for item in items]
        places = others_of(questions, derive_seed(data.seed, "another question")) if CONTROLS[self.blind] else []
        chosen = sorted(drawn(questions, self.blind_items)) if places else []
        return {items[place].id: items[places[place]] for place in chosen}

    def steps(self, items: Sequence[Sample], others: Mapping[str, Sample]) -> int:
        """Scoring, and scoring after each control."""
        return len(items) + len(CONTROLS[self.blind]) * sum(item.id in others for item in items)

    def check_module(self, module: LightningModule) -> None:
        """Refuse a module whose probabilities cannot be asked for."""
        super().check_module(module)
        check_scores(module, self)

    def scored(
        self,
        module: LightningModule,
        items: Sequence[Sample],
        prompts: ItemPrompts,
        answers: Sequence[Sequence[str]],
        asked: Sequence[Callable[[str], str]] | None = None,
    ) -> list[dict[str, list[ChoiceScore]]]:
        """Score the answers of each item after its question, by `ASKED`, and after each control that it has.

        Args:
            module: Whose probabilities they are.
            items: Items.
            prompts: Their prompts.
            answers: Of each item, at least one.
            asked: Of each item, what is asked with its question or another's; None asks the question itself, whose
                prompt then is the one that the item's line tells of.

        Returns:
            For each item the scores by control, without those whose prompt does not fit the window.
        """
        tokenizer: Any = module.tokenizer
        texts = [tuple(prompts.prompt_format.answer_text(answer) for answer in of_item) for of_item in answers]
        longest = [max(count_continuation(tokenizer, "", text) for text in of_item) for of_item in texts]
        found: list[dict[str, list[ChoiceScore]]] = [{} for _ in items]
        for control in (ASKED, *CONTROLS[self.blind]):
            questions = {
                place: Question(prompt, texts[place])
                for place, item in enumerate(items)
                if (prompt := _prompt(prompts, item, longest[place], control, asked[place] if asked else None))
                is not None
            }
            if control == EMPTY and items and not questions:
                rank_zero_info(
                    f"{self.name}: nothing is scored after an empty question: there is no other item, or the model's "
                    "chat template writes an empty turn in its own way"
                )
            # a call of its own for each: a control moves no last digit of the figure that it stands beside
            by_temperature = control == ASKED and asked is None
            scores = scores_of(module, [*questions.values()], self.batch_size, by_temperature)
            for place, of_item in zip(questions, scores, strict=True):
                found[place][control] = of_item
        return found


def _prompt(
    prompts: ItemPrompts, item: Sample, following: int, control: str, asked: Callable[[str], str] | None
) -> str | None:
    if control == ASKED:
        return prompts.prompt(item, following) if asked is None else prompts.beside(item, following, asked)
    return prompts.control_prompt(item, following, control, asked)


def log_probability(control: str) -> str:
    """Give how the log-probability of an answer is called after a control."""
    return f"log_probability_{control}" if control else "log_probability"


def blind_question(prompts: ItemPrompts, item: Sample, scores: Mapping[str, object]) -> Line:
    """Give the field of a line that says which question was asked instead; nothing where none was."""
    return {"blind_question": prompts.others[item.id].question} if BLIND in scores else {}


def check_scores(module: LightningModule, callback: Callback) -> None:
    """Refuse a module whose probabilities cannot be asked for, with an InputError that says how they could be."""
    own = type(module).__name__
    if not isinstance(module, IsaraModule):
        try:
            inspect.signature(getattr(module, "score", None)).bind([], [])  # type: ignore[arg-type]  # None is refused
        except TypeError:
            raise InputError(
                f"{type(callback).__name__} needs the log-probabilities of answers, and {own} has no score(prompts, "
                "answers), which gives for each prompt that of its answer. Give it one, in ten lines "
                "(docs/LIGHTNING.md), or use IsaraModule"
            ) from None
        if not hasattr(getattr(module, "tokenizer", None), "encode"):
            raise InputError(
                f"{type(callback).__name__} counts the tokens of answers, and {own} has no `tokenizer` with "
                "encode(text). Give it one, before the Trainer starts"
            )


def scores_of(
    module: LightningModule, questions: Sequence[Question], batch_size: int, by_temperature: bool
) -> list[list[ChoiceScore]]:
    """Give the score of every choice of every question; so many questions, or choices, are scored at once."""
    if isinstance(module, IsaraModule):
        return choice_scores(module.adapted, module.tokenizer, questions, batch_size, by_temperature)
    return scores_by(cast(Scorer, module), questions, batch_size)
