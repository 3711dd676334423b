"""Early stopping within an outer epoch: the weights of its best epoch are kept."""

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor

from isara_pl.callbacks.evaluation import data_of
from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.errors import InputError
from isara_pl.evaluation.metrics import AnswerNLL
from isara_pl.module import IsaraModule
from isara_pl.results.metrics import outer_epoch_name
from isara_pl.run.notices import rank_zero_warn
from isara_pl.run.stages import count, stage
from isara_pl.training.pairs import answer_nll


class BestEpoch(Callback):
    """Ends every outer epoch with the weights of its best epoch: the one with the lowest validation NLL.

    That is the negative log-likelihood per answer token on the seeds that `data.validation_share` holds out, measured
    and logged as `validation_nll` after the last training step of every epoch. All epochs are trained, since the
    learning rate's schedule goes over all of them; after the last one the adapter goes back to the best of them, of
    equal ones the first, before anything is measured, saved or exported. Which one it was is logged as `best_epoch`,
    from 1. Where the figure is finite after no epoch, the last weights stay.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._epoch = 0  # the best one of this outer epoch so far, from 1; 0 is none
        self._figure = math.inf
        self._weights: dict[str, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be measured, and forget an earlier fit; a checkpoint's state is loaded after this."""
        _of_ours(pl_module)
        if not data_of(trainer, self).validation:
            raise InputError(
                "BestEpoch chooses by seeds that are held out, and data.validation_share is 0. Give a share above 0 "
                "and below 1, such as 0.2"
            )
        self._forget()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure after the last step of an epoch, before Lightning validates; choose after an outer epoch's last."""
        if batch_idx + 1 < trainer.num_training_batches:
            return
        data = data_of(trainer, self)
        place = trainer.current_epoch % data.epochs_per_outer_epoch
        if place == 0:
            self._forget()
        figure = _measured(trainer, data, _of_ours(pl_module))
        if figure < self._figure:  # NaN never is
            self._epoch, self._figure = place + 1, figure
            self._weights = {name: weight.detach().cpu().clone() for name, weight in pl_module.state_dict().items()}
        if place + 1 == data.epochs_per_outer_epoch:
            figure = self._figure if self._weights else figure
            best = self._epoch or place + 1
            pl_module.log("best_epoch", float(best), on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
            self.keep_best(trainer, pl_module)
        # of the weights as they are now, as for every other figure; one value, since a mean of several would be rounded
        pl_module.log("validation_nll", figure, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def keep_best(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the module the weights of the outer epoch's best epoch."""
        data = data_of(trainer, self)
        outer_epoch = outer_epoch_name(data.outer_epoch_of(trainer.current_epoch))
        if not self._weights:
            rank_zero_warn(f"{outer_epoch}: the validation NLL is finite after no epoch; the last weights are kept")
            return
        pl_module.load_state_dict(self._weights)
        rank_zero_info(
            f"{outer_epoch}: epoch {self._epoch} of {data.epochs_per_outer_epoch} is best in validation NLL "
            f"({self._figure:.3f}); its weights are kept"
        )
        self._forget()

    def state_dict(self) -> dict[str, Any]:
        """Give the best epoch of an outer epoch that is not over yet."""
        if not self._weights:
            return {}
        return {"epoch": self._epoch, "figure": self._figure, "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best epoch so far."""
        self._epoch, self._figure = state_dict["epoch"], state_dict["figure"]
        self._weights = state_dict["weights"]


def _of_ours(module: LightningModule) -> IsaraModule:
    if not isinstance(module, IsaraModule):
        raise InputError(
            f"BestEpoch needs IsaraModule, found {type(module).__name__}. Take it out of trainer.callbacks"
        )
    return module


def _measured(trainer: Trainer, data: IsaraDataModule, module: IsaraModule) -> float:
    """Give the negative log-likelihood per answer token on the validation share, the same in every process.

    Computed as in a validation, and training goes on as if nothing had been.
    """
    nll = AnswerNLL().to(module.device)  # adds up over processes
    module.zero_grad()  # as Lightning does before it validates: of this step nothing is left to learn
    module.adapted.eval()
    module.on_validation_epoch_start()
    try:
        with (
            stage("validation", data.measured_outer_epoch),
            torch.random.fork_rng(devices=[]),  # a loader draws a number
            torch.no_grad(),
            module.measuring(),
        ):
            for batch in data.measuring_loader("validation_nll"):
                on_device = trainer.strategy.batch_to_device(batch, module.device)
                nll.update(*answer_nll(module.adapted, on_device))
                count(done=len(batch["sample_ids"]), prompt_tokens=batch["input_ids"].numel())
    finally:
        module.on_validation_epoch_end()
        module.adapted.train()
    return float(nll.compute())
