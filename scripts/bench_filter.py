"""Time what a candidate costs besides the model: the ROUGE-L decision, the lookup of demonstrations, the rest.

All ways are timed in turn, in one process. The pool is made of the packaged questions with words exchanged, the
embeddings of the pool are drawn at random around 400 centres, and the candidates are embedded by the real encoder.

    python scripts/bench_filter.py --sizes 64 1000 10000 100000 --json filter.json
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmark import machine, print_table, summary, time_alternately, write_json
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer

from isara_pl.callbacks import NearDuplicate
from isara_pl.generation.protocol import Completion, Sampling
from isara_pl.growth.outer_epoch import GrowthPlan, GrowthSettings, OuterEpoch
from isara_pl.growth.pool import SamplePool
from isara_pl.growth.prompts import prompt_format
from isara_pl.growth.retrieval import EMBEDDED_ENCODER, PoolIndex, SentenceEncoder, import_faiss
from isara_pl.growth.samples import Sample, read_samples
from isara_pl.growth.words import RougeLIndex
from isara_pl.models.sources import resolve_path

DIMENSION = 384  # of all-MiniLM-L6-v2
BATCH = 64  # candidates that are looked up at once
GROWN = 4 * BATCH  # candidates of the outer epoch that is timed
DEMONSTRATIONS = 8
REFERENCE_TEXTS, REFERENCE_CANDIDATES = 1000, 4  # what rouge_score is timed on: it takes seconds for a large pool
PROBES = 8  # lists that an IVF index looks through


class RandomEncoder:
    """Draws embeddings in place of the seconds that the real ones of a large pool would take."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.centres = self.random.normal(size=(400, DIMENSION))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Give a vector of length 1 for each text."""
        centres = self.centres[self.random.integers(0, len(self.centres), len(texts))]
        rows = centres + 0.8 * self.random.normal(size=(len(texts), DIMENSION))
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


class Answering:
    """Gives made questions and answers at once, so that what is left is everything but the model."""

    def __init__(self, questions: Sequence[str]) -> None:
        self.questions = iter(questions)

    def generate(self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """Complete every prompt: those for a question end with an empty one."""
        texts = [next(self.questions) if prompt.endswith("Question:") else "It is so." for prompt in prompts]
        return [Completion(text, finished=True) for text in texts]


def main() -> None:
    """Read the command line, time every size and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[64, 1000, 10_000, 100_000], help="Samples in the pool."
    )
    parser.add_argument("--outer_epochs", type=int, default=10, help="How many outer epochs the pool was grown in.")
    parser.add_argument("--encoder", default=EMBEDDED_ENCODER)
    parser.add_argument("--rounds", type=int, default=5, help="How often each way is timed.")
    parser.add_argument("--device", default="cpu", help="Where questions are embedded and looked up.")
    parser.add_argument("--json", help="File for the same figures.")
    arguments = parser.parse_args()
    encoder = SentenceEncoder(arguments.encoder, arguments.device)
    sizes: dict[int, dict[str, Any]] = {}
    for size in arguments.sizes:
        draw = random.Random(size)
        questions = made_questions(size + GROWN * (arguments.rounds + 1), draw)
        pool, candidates = questions[:size], questions[size:]
        sizes[size] = {
            "rouge_l": rouge_l(pool, candidates[:BATCH], arguments.rounds),
            "search": search(size, arguments.rounds, arguments.device),
            "growth": growth(pool, candidates, encoder, arguments),
        }
    write_json(arguments.json, machine(arguments.device), {"sizes": sizes})


def made_questions(count: int, draw: random.Random) -> list[str]:
    """Give the packaged questions with every third word exchanged, and a year in some of them."""
    given = [
        sample.question
        for name in ("seeds", "held_out")
        for sample in read_samples(resolve_path(f"package://isara_pl/quickstart/{name}.jsonl", name))
    ]
    words = [word for question in given for word in question.rstrip("?").split()]
    made = []
    for _ in range(count):
        question = [
            draw.choice(words) if draw.random() < 1 / 3 else word for word in draw.choice(given).rstrip("?").split()
        ]
        year = f" in {draw.randint(1, 2000)}" if draw.random() < 1 / 3 else ""
        made.append(" ".join(question) + year + "?")
    return made


def rouge_l(pool: Sequence[str], candidates: Sequence[str], rounds: int) -> dict[str, Any]:
    """Time the highest ROUGE-L of a candidate against the whole pool."""
    index = RougeLIndex()
    began = time.perf_counter()
    index.add(pool)
    add = (time.perf_counter() - began) / len(pool) * 1e3
    scorer = RougeScorer(["rougeL"])
    part, few = pool[:REFERENCE_TEXTS], candidates[:REFERENCE_CANDIDATES]
    ours, plain, reference = "bounds, then rapidfuzz", "rapidfuzz on all", f"rouge_score, from {len(part)} texts"
    results: dict[str, list[float]] = {}

    def run(name: str, texts: Sequence[str], known: Sequence[str]) -> None:
        highest: Callable[[str], float] = {
            ours: index.highest,
            plain: lambda text: float(index.scores(text).max()),
            reference: lambda text: max(scorer.score(text, other)["rougeL"].fmeasure for other in known),
        }[name]
        results[name] = [highest(text) for text in texts]

    seconds = time_alternately(
        {
            ours: lambda: run(ours, candidates, pool),
            plain: lambda: run(plain, candidates, pool),
            reference: lambda: run(reference, few, part),
        },
        rounds,
    )
    if results[ours] != results[plain] or (len(part) == len(pool) and results[reference] != results[ours][: len(few)]):
        raise RuntimeError("the highest ROUGE-L is not the same in every way")
    # rouge_score compares with one text after the other: its time is that of a part, times so many
    scale = len(candidates) / len(few) * len(pool) / len(part)
    seconds[reference] = [taken * scale for taken in seconds[reference]]
    print_table(f"ROUGE-L of a candidate, pool of {len(pool)}", seconds, reference, per=len(candidates))
    print(f"  adding a text: {add:.3f} ms")
    return {**summary(seconds, reference, per=len(candidates)), "add_ms": add}


def search(size: int, rounds: int, device: str) -> dict[str, Any]:
    """Time the search for the nearest of a batch, with what an IVF index would take to build and find."""
    faiss = import_faiss()
    vectors = RandomEncoder().encode([""] * (size + BATCH))
    known, asked = vectors[:size], vectors[size:]
    flat = faiss.IndexFlatIP(DIMENSION)
    flat.add(known)
    count = min(DEMONSTRATIONS, size)

    def one_by_one() -> Any:
        threshold = faiss.cvar.distance_compute_blas_threshold
        faiss.cvar.distance_compute_blas_threshold = 2**31 - 1
        found = flat.search(asked, count)
        faiss.cvar.distance_compute_blas_threshold = threshold
        return found

    ways = {"flat": lambda: flat.search(asked, count), "flat, query by query": one_by_one}
    build = found_too = None
    if size >= 10_000:  # fewer cannot be clustered sensibly
        lists = int(4 * size**0.5)
        ivf = faiss.IndexIVFFlat(faiss.IndexFlatIP(DIMENSION), DIMENSION, lists, faiss.METRIC_INNER_PRODUCT)
        ivf.nprobe = PROBES
        began = time.perf_counter()
        ivf.train(known[: 64 * lists])
        ivf.add(known)
        build = time.perf_counter() - began
        ways["IVF"] = lambda: ivf.search(asked, count)
        pairs = zip(flat.search(asked, count)[1], ivf.search(asked, count)[1], strict=True)
        found_too = float(np.mean([len({*exact} & {*near}) / count for exact, near in pairs]))
    seconds = time_alternately(ways, rounds)
    print_table(f"search of the {count} nearest, batches of {BATCH}, {size} embeddings, CPU", seconds, "flat", BATCH)
    if build is not None:
        print(f"  building the IVF index: {build:.2f} s; it finds {found_too:.1%} of the nearest")
    return {**summary(seconds, "flat", BATCH), "ivf_build_s": build, "ivf_recall": found_too}


def growth(
    pool: Sequence[str], candidates: Sequence[str], encoder: SentenceEncoder, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Time everything of an outer epoch but the model, and in it the embedding of the new questions."""
    number = arguments.outer_epochs + 1
    # the seeds, then equal outer epochs
    grown = [
        Sample(f"{i}", text, "It is so.", 0 if i < 64 else 1 + (i - 64) * arguments.outer_epochs // (len(pool) - 64))
        for i, text in enumerate(pool)
    ]
    index = PoolIndex(RandomEncoder(), arguments.device)
    began = time.perf_counter()
    index.add(grown)
    add = (time.perf_counter() - began) / len(pool) * 1e3
    index.encoder = encoder
    sampling = Sampling(max_new_tokens=32)
    settings = GrowthSettings(GROWN, DEMONSTRATIONS, "knn", "knn", None, sampling, sampling, BATCH)
    plan = GrowthPlan(settings, prompt_format("qa", None), index, seed=0)
    questions = iter(candidates)
    near_duplicate = NearDuplicate()
    with tempfile.TemporaryDirectory() as folder:
        held = SamplePool([sample for sample in grown if sample.outer_epoch == 0], Path(folder))
        held.samples += grown[len(held) :]
        near_duplicate.verdict(grown[0], held)  # once a run: the filter reads the pool

        def grow() -> None:
            nonlocal number
            batch = [next(questions) for _ in range(GROWN)]
            OuterEpoch(number, held, plan, Answering(batch), [near_duplicate]).grow()
            number += 1

        def embed() -> None:
            for start in range(0, GROWN, BATCH):
                encoder.encode(candidates[start : start + BATCH])

        seconds = time_alternately(
            {"all but the model": grow, "of it, embedding the new questions once": embed},
            arguments.rounds,
            device=arguments.device,
        )
    print_table(
        f"a candidate in an outer epoch of {GROWN}, pool of {len(pool)} from {arguments.outer_epochs} outer epochs",
        seconds, "all but the model", GROWN,
    )  # fmt: skip
    print(f"  adding a sample to the index, its embedding not counted: {add:.3f} ms")
    return {**summary(seconds, "all but the model", GROWN), "add_to_index_ms": add}


if __name__ == "__main__":
    main()
