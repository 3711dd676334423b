"""The teacher's distributions in the run folder: written before the samples that they belong to are trained on."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from isara_pl.errors import InputError
from isara_pl.generation.distributions import TokenDistributions, joined
from isara_pl.run.files import save_whole

FOLDER = "teacher"
CURE = "Restore the file from a copy, or start anew in another folder"


class TeacherFiles:
    """What the teacher gave for each sample, kept in `teacher/*.safetensors` of the run folder.

    A file holds `ids`, `log_probs` and `rest`, as of `TokenDistributions`, of several samples one after the other; its
    metadata, under `samples`, how many tokens each has. Without a run folder all is kept in memory.
    """

    def __init__(self, run_dir: Path | None, samples: Collection[str]) -> None:
        """Read what is known of these samples, by their ids, or raise an InputError where a file is damaged.

        What a killed process left of others is forgotten: candidates that it did not put into the pool may be others
        now.
        """
        self.folder = run_dir / FOLDER if run_dir else None
        self.known: dict[str, TokenDistributions] = {}
        for path in sorted(self.folder.glob("*.safetensors")) if self.folder else []:
            found = {name: distributions for name, distributions in _read(path).items() if name in samples}
            if not found:
                path.unlink()
            self.known.update(found)

    def add(self, found: Mapping[str, TokenDistributions]) -> None:
        """Keep the distributions of at least one sample, on disk when this returns, in a file named after the first.

        Raises:
            InputError: If another number of tokens was kept of each so far, or that id cannot name a file.
        """
        numbers = {distributions.ids.shape[1] for distributions in (*self.known.values(), *found.values())}
        if len(numbers) > 1:
            raise InputError(
                f"data.top_logprobs: {self.folder} and the new distributions of the teacher hold other numbers of "
                f"tokens, {' and '.join(map(str, sorted(numbers)))}. Give the number of then, or start anew in another "
                "folder"
            )
        first = next(iter(found))
        if Path(first).name != first:  # a pool.jsonl from elsewhere may hold any id
            raise InputError(f"{self.folder}: the sample id {first!r} cannot name a file there. Start anew elsewhere")
        if self.folder is not None:
            every = joined([*found.values()])
            tensors = {"ids": every.ids, "log_probs": every.log_probs, "rest": every.rest}
            tokens = json.dumps({name: len(distributions) for name, distributions in found.items()})
            content = save({name: values.contiguous() for name, values in tensors.items()}, {"samples": tokens})
            save_whole(self.folder / f"{first}.safetensors", content)
        self.known.update(found)


def _read(path: Path) -> dict[str, TokenDistributions]:
    try:
        with safe_open(path, framework="pt") as file:
            tokens = json.loads(file.metadata()["samples"])
            every = TokenDistributions(*(file.get_tensor(name) for name in ("ids", "log_probs", "rest")))
        found, end = {}, 0
        for name, count in tokens.items():
            begin, end = end, end + count
            # copies: a view is sent to another process with all that it is a view of
            found[str(name)] = joined([every.rows(begin, end)])
        shape = (end, every.ids.shape[-1])
        types = (every.ids.dtype, every.log_probs.dtype, every.rest.dtype)
        fits = (every.ids.shape, every.log_probs.shape, every.rest.shape) == (shape, shape, (end,))
        if not fits or types != (torch.int32, torch.float32, torch.float32) or min(tokens.values(), default=0) < 0:
            raise ValueError("its parts do not fit together")
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}). {CURE}") from None
    return found
