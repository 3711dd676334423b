"""The α rule: stop when the model has little new to say."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_info

from isara_pl.datamodule.growing import GrowthCallback
from isara_pl.errors import InputError
from isara_pl.growth.outer_epoch import Growth
from isara_pl.report.contents import to_accept_more
from isara_pl.run.notices import rank_zero_warn
from isara_pl.run.trainer import callbacks_of


def alpha_of(trainer: Trainer) -> float | None:
    """Give the α under which a run stops; None where no AlphaStopping is among its callbacks."""
    rules = [callback for callback in callbacks_of(trainer) if isinstance(callback, AlphaStopping)]
    return rules[0].alpha if rules else None


class AlphaStopping(GrowthCallback):
    """Ends training when the novelty of an outer epoch, accepted ÷ candidates, falls below α.

    The samples of the exhausted outer epoch stay in the pool, but are not trained on
    (arXiv 2401.06785, step 5).

    Args:
        alpha: The novelty below which training stops; 0 never stops.

    Raises:
        InputError: If alpha is outside 0 to 1.

    Example:
        >>> from isara_pl.callbacks import AlphaStopping
        >>> AlphaStopping(alpha=0.2).decide(outer_epoch=2, novelty=0.15)
        (True, 'outer epoch 2: novelty 0.150 is below α = 0.2')
    """

    def __init__(self, alpha: float = 0.1) -> None:
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha_stopping.alpha is {alpha}; allowed: 0 to 1")
        self.alpha = alpha
        self._outer_epoch = 0
        self._novelty: float | None = None

    def decide(self, outer_epoch: int, novelty: float | None) -> tuple[bool, str]:
        """Give whether to stop, and why; a novelty of None is that of a growth without candidates."""
        if novelty is None:
            return False, f"outer epoch {outer_epoch}: no candidates, α does not apply"
        if novelty < self.alpha:
            return True, f"outer epoch {outer_epoch}: novelty {novelty:.3f} is below α = {self.alpha}"
        return False, f"outer epoch {outer_epoch}: novelty {novelty:.3f}, not below α = {self.alpha}"

    def plan(self) -> dict[str, Any]:
        """Give α, for the report."""
        return {"alpha_stopping.alpha": self.alpha}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After a resume of a stopped run, stay stopped unless α was lowered."""
        stop, reason = self.decide(self._outer_epoch, self._novelty)
        if stop:
            rank_zero_info(f"{reason}: this run had stopped already. Lower alpha_stopping.alpha to go on")
            trainer.should_stop = True

    def on_growth_end(self, trainer: Trainer, growth: Growth) -> None:
        """Decide about a finished growth."""
        self._outer_epoch, self._novelty = growth.outer_epoch, growth.novelty
        stop, reason = self.decide(growth.outer_epoch, growth.novelty)
        rank_zero_info(f"{reason}: {'stopping' if stop else 'going on'}")
        if not stop:
            return
        trainer.should_stop = True
        if growth.outer_epoch == 1:
            taken = ", ".join(f"{name} {count}" for name, count in growth.rejected.most_common()) or "none"
            rank_zero_warn(
                f"nothing was trained: {reason} in the very first outer epoch "
                f"({growth.accepted} of {growth.candidates} candidates accepted; rejected by {taken}). "
                f"To change that, {to_accept_more(growth.rejected)}; rejected.jsonl holds every rejected candidate"
            )

    def state_dict(self) -> dict[str, Any]:
        """Give the last growth that was decided on."""
        return {"outer_epoch": self._outer_epoch, "novelty": self._novelty}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the last growth that was decided on."""
        self._outer_epoch, self._novelty = state_dict["outer_epoch"], state_dict["novelty"]
