"""What will be run, and how long that takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

from isara_pl.align.contestants import ICL, SFT, Contestant
from isara_pl.align.trials import Trial
from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.errors import InputError
from isara_pl.report.contents import duration, listed
from isara_pl.results.ledger import ALL, GROWING, TEACHING, TRAINING
from isara_pl.results.run import Run

FEWEST_FOLDS = 2


@dataclass(frozen=True)
class Speed:
    """What this machine takes with this model and such pairs, in seconds.

    Attributes:
        start: To begin and to end a run.
        item: To measure an item.
        shown_item: To measure one with demonstrations in its prompt.
        candidate: To write and judge a candidate.
        pair: To train on a pair, once.
    """

    start: float
    item: float
    shown_item: float
    candidate: float
    pair: float

    def of(self, trial: Trial) -> float:
        """Estimate what a run takes."""
        data: dict[str, Any] = trial.config["data"]
        if not trial.contestant.trains:
            return self.start + self.shown_item * trial.items
        growth = ("candidates_per_outer_epoch", "outer_epochs", "epochs_per_outer_epoch")
        defaults = signature(IsaraDataModule).parameters
        candidates, outer_epochs, passes = (data.get(name, defaults[name].default) for name in growth)
        kept_back = round(trial.pairs * data.get("validation_share", 0))
        # each outer epoch goes over all there is; that every candidate is accepted errs on the careful side
        trained = sum(trial.pairs - kept_back + candidates * number for number in range(1, outer_epochs + 1)) * passes
        # a teacher reads as much as a step, and measures nothing
        trained += trial.pairs if data.get("distill_on") == "seeds" else 0
        measured = trial.items * (1 + outer_epochs) + kept_back * passes * outer_epochs
        growing = self.candidate * candidates * outer_epochs
        return float(self.start + self.item * measured + growing + self.pair * trained)


def last_run(speed: Speed, trial: Trial) -> float:
    """Estimate what a winner's last run takes: on all pairs, and on the held-out ones.

    One that trains nothing is run only where there is something to measure, beside the pretrained model.
    """
    if trial.contestant.trains:
        return speed.of(trial)
    return speed.of(trial) + speed.start + speed.item * trial.items if trial.items else 0.0


def speed_of(shown: Trial, trial: Trial) -> Speed:
    """Give what two finished runs tell of this machine, from their ledgers.

    Args:
        shown: A run of in-context learning. It was the first in this process, and so began with seconds of imports.
        trial: A run of `fit` after it.
    """
    rows = [row for row in Run(trial.folder).ledger if row.stage != ALL]

    def seconds(wanted: Callable[[str], bool]) -> float:
        return sum(row.wall_seconds for row in rows if wanted(row.stage))

    of_shown = sum(row.wall_seconds for row in Run(shown.folder).ledger if row.stage not in (ALL, "loading"))
    candidates = trial.config["data"]["candidates_per_outer_epoch"]
    trained = sum(row.samples for row in rows if row.stage == TRAINING)
    growing = seconds(lambda stage: stage in (*GROWING, TEACHING))
    training = seconds(lambda stage: stage == TRAINING)
    measuring = seconds(lambda stage: stage not in (*GROWING, TEACHING, TRAINING, "loading"))
    return Speed(
        start=max(0.0, (trial.seconds or 0.0) - growing - training - measuring),
        item=measuring / (2 * trial.items),  # before training and after it
        shown_item=of_shown / shown.items,
        candidate=growing / max(candidates, 1),
        pair=training / max(trained, 1),
    )


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        contestants: Who competes, in their order.
        folds: How many of the folds each is measured on.
        of_folds: How many folds there are.
        seconds: An estimate of what their runs on the folds take.
        last: One of the last run, on all pairs, if the dearest wins; one that trains nothing takes none.
        dropped: Names of those that the budget leaves no time for.
    """

    contestants: Sequence[Contestant]
    folds: int
    of_folds: int
    seconds: float
    last: float
    dropped: Sequence[str]

    def lines(self) -> list[str]:
        """Say what is run, and what the budget leaves out."""
        said = [
            f"plan: {listed([contestant.name for contestant in self.contestants])}, each measured on {self.folds} of "
            f"{self.of_folds} parts of the pairs by a model trained on the others; about {duration(self.seconds)}, and "
            f"up to {duration(self.last)} for the winner on all pairs"
        ]
        if self.folds < self.of_folds:
            left_out = self.of_folds - self.folds
            said.append(f"--budget: {left_out} of {self.of_folds} parts are left out: intervals get wider")
        if self.dropped:
            said.append(f"--budget: no time for {listed([*self.dropped])}; nothing is said about them")
        return said


def plan_within(
    budget: float | None,
    contestants: Sequence[Contestant],
    folds: int,
    seconds: Callable[[Contestant, int], float],
    last: Callable[[Contestant], float],
) -> Plan:
    """Plan within a budget: folds are dropped first, down to 2, then contestants, the dearest first.

    Args:
        budget: Most seconds that all may take, the last run included; None sets no limit.
        contestants: All who could compete; ICL and SFT always do.
        folds: How many folds there are.
        seconds: What a contestant's run on a fold takes.
        last: What its run on all pairs takes.

    Raises:
        InputError: If not even ICL and SFT on 2 folds fit into the budget.
    """
    left = list(contestants)
    kept = folds

    def on_folds() -> float:
        return sum(seconds(contestant, fold) for contestant in left for fold in range(kept))

    def dearest_last() -> float:
        return max(last(contestant) for contestant in left)

    while budget is not None and on_folds() + dearest_last() > budget:
        optional = [contestant for contestant in left if contestant not in (ICL, SFT)]
        if kept > FEWEST_FOLDS:
            kept -= 1
        elif optional:
            left.remove(max(optional, key=lambda contestant: seconds(contestant, 0)))
        else:
            raise InputError(
                f"--budget: {duration(budget)} is too short: {listed([one.name for one in left])} on {kept} parts of "
                f"the pairs take about {duration(on_folds() + dearest_last())} on this machine. Give more"
            )
    dropped = [contestant.name for contestant in contestants if contestant not in left]
    return Plan(left, kept, folds, on_folds(), dearest_last(), dropped)
