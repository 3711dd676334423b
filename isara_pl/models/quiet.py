"""Other libraries' chatter is kept off the screen; nothing that tells of a fault is among it."""

import logging
import os
import warnings


def quieten() -> None:
    """Silence what is said in every run and helps nobody."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns whenever a process forks
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # nothing phones home
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # neither does a logger that says it is offline
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # a bar for each load
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # batches are lists of ids: workers would only cost
        ".*Checkpoint directory .* exists and is not empty.*",  # so it is after every resume
        ".*The number of training batches .* is smaller than the logging interval.*",
        ".*Total length of `list` across ranks is zero.*",  # no held-out pairs, which is allowed
        ".*LeafSpec.*",  # a deprecation inside lightning 2.6 with torch 2.13
        # the newer name is not in every transformers that is admitted
        ".*`(is_gradient_checkpointing|gradient_checkpointing_enable)` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message)
    # an advertisement
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "litlogger" not in record.getMessage()
    )
