"""What a person looks at: report.html."""

from lightning.pytorch import LightningModule, Trainer

from isara_pl.callbacks.evaluation import data_of
from isara_pl.datamodule.growing import GrowthCallback
from isara_pl.errors import first_line
from isara_pl.report.curves import EmbeddedOnce
from isara_pl.report.page import FILE, write_report
from isara_pl.results.compare import named_run
from isara_pl.results.run import Run, measured_run
from isara_pl.run.files import POOL
from isara_pl.run.folder import run_folder
from isara_pl.run.notices import rank_zero_warn
from isara_pl.run.stages import stage


class ReportWriter(GrowthCallback):
    """Writes `report.html` to the run folder: whether the run helped, why it stopped, and every sample.

    It is one file that opens from disk, in any browser, without a network. It is written anew after each outer epoch,
    at the end of `fit`, also where the α rule is that end, and after `validate` in a folder with a pool. Place it
    behind the callbacks whose files it shows. `python -m isara_pl report RUN` writes it at any time.

    Args:
        baselines: Run folders to compare with, as RUN or NAME=RUN, such as SFT on the seeds.

    Raises:
        InputError: If a baseline is no folder, or nothing was measured there.
    """

    def __init__(self, baselines: list[str] | None = None) -> None:
        self.baselines = [named_run(text, "ReportWriter: baselines") for text in baselines or []]
        for _, path in self.baselines:
            measured_run(path)  # refused now, not after hours
        self._encoder: EmbeddedOnce | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse another data module, and forget the embeddings of an earlier run."""
        data_of(trainer, self)
        self._encoder = None

    def on_growth_start(self, trainer: Trainer, outer_epoch: int) -> None:
        """Write that of the outer epoch before: not at its end, where a checkpoint would have to wait for it."""
        if outer_epoch > 1:
            self._write(trainer, outer_epoch - 1)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it when all is done."""
        self._write(trainer, data_of(trainer, self).trained_outer_epochs)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it after a validation outside of `fit`."""
        if trainer.state.fn == "validate":
            self._write(trainer, data_of(trainer, self).trained_outer_epochs)

    def _write(self, trainer: Trainer, outer_epoch: int) -> None:
        run_dir = run_folder(trainer)
        if run_dir is None or not (run_dir / POOL).exists():
            return
        self._encoder = self._encoder or EmbeddedOnce(data_of(trainer, self).encoder)
        try:
            with stage("report", outer_epoch):
                write_report(Run(run_dir), self.baselines, self._encoder, run_dir / FILE)
        except Exception as error:  # a night's run must not end for a picture of it
            rank_zero_warn(
                f"{FILE} could not be written ({type(error).__name__}: {first_line(error)}). The run goes on; "
                "`python -m isara_pl report` with its folder writes it"
            )
