"""Which errors of a run a user can mend, and what to tell about them."""

from lightning.fabric.utilities.exceptions import MisconfigurationException

from isara_pl.errors import InputError, first_line
from isara_pl.run.memory import is_out_of_memory

OUT_OF_MEMORY = (
    "the memory does not suffice. Where it trained: lower data.batch_size or data.max_length, or set "
    "model.gradient_checkpointing true. Where it measured: lower an evaluation's batch_size, or set "
    "model.evaluation_precision trainer. A run that goes on needs --data.on_change continue for a changed batch or "
    "length. In a new --run_dir: model.quantization nf4, or a smaller model"
)


def users_fault(error: BaseException | None) -> str | None:
    """Say what the user can mend behind an error; jsonargparse wraps what a callback raises.

    Args:
        error: What ended the run.

    Returns:
        The message, or None where the fault is not the user's.
    """
    while error is not None:
        if isinstance(error, InputError | MisconfigurationException | OSError):
            return str(error)
        if isinstance(error, ModuleNotFoundError) and "pip install" in str(error):  # how Lightning's loggers say it
            return f"{first_line(error)} They come with: pip install 'isara_pl[loggers]'"
        if type(error).__module__.startswith("wandb.errors"):
            return f"W&B: {error} Without an account: --trainer.logger.offline true"
        if isinstance(error, Exception) and is_out_of_memory(error):
            return f"{OUT_OF_MEMORY} ({first_line(error)})"
        error = error.__cause__
    return None
