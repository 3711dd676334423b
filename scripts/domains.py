"""Domains of a study: each is trained on, and all are measured."""

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from isara_pl.align.request import HELD_OUT, SEEDS
from isara_pl.align.trials import write_rows
from isara_pl.errors import InputError
from isara_pl.evaluation.contamination import overlapping
from isara_pl.growth.samples import Sample, pair_row, read_preferences, read_samples
from isara_pl.report.overview import write_overview
from isara_pl.results.compare import as_markdown, as_text
from isara_pl.results.run import measured_run
from isara_pl.results.transfer import matrices, transfer

FEWEST = 20  # items of a domain
MATRIX = "What training on a domain, a row, did to each domain that was measured, a column."


def read_domains(files: Sequence[Path], seeds: int) -> dict[str, list[Sample]]:
    """Give the pairs of each domain by its name: of each file, or of each category of a single one.

    Categories with fewer pairs than the seeds and 20 items are left out.
    """
    if len({path.stem for path in files}) < len(files):
        sys.exit("error: --domains: two files have the same name, by which domains are told apart; rename one")
    found = {path.stem: _read(path) for path in files}
    if len(files) == 1:
        (samples,) = found.values()
        found = {}
        for sample in samples:
            found.setdefault(sample.category or "no category", []).append(sample)
    few = {name: len(samples) for name, samples in found.items() if len(samples) < seeds + FEWEST}
    domains = {name: samples for name, samples in found.items() if name not in few}
    told = ", ".join(f"{name} ({count})" for name, count in few.items())
    if len(domains) < 2 or (few and len(files) > 1):
        sys.exit(
            f"error: --domains: of two or more domains each needs --seeds {seeds} pairs and {FEWEST} items more"
            + (f"; too few in {told}" if few else "")
        )
    if few:
        print(f"left out, for they have fewer than {seeds} seeds and {FEWEST} items: {told}")
    return domains


def write_domain_set(
    domains: dict[str, list[Sample]], own: str, folder: Path, number: int, seeds: int, items: int, other_items: int
) -> None:
    """Split a domain into seeds and items, and draw items of the others; a domain is the category of its items."""
    folder.mkdir(parents=True, exist_ok=True)
    shuffled = {name: random.Random(number).sample(samples, len(samples)) for name, samples in domains.items()}
    chosen = shuffled[own][:seeds]
    lines = []
    for name, samples in shuffled.items():
        candidates, most = (samples[seeds:], items) if name == own else (samples, other_items)
        same = {item for _, item in overlapping(chosen, candidates)}
        lines += [
            {**pair_row(sample), "category": name}
            for sample in [sample for sample in candidates if sample.id not in same][:most]
        ]
    pairs = [{"question": seed.question, "answer": seed.answer} for seed in chosen]
    # the seeds last: with them a set is whole
    for name, rows in ((HELD_OUT, lines), (SEEDS, pairs)):
        write_rows(folder / name, rows)


def write_matrices(runs: Sequence[tuple[str, str, Path]], to: Path) -> None:
    """Write and print what training on each domain did to all; a run is given with its domain and its method."""
    cells = transfer([(domain, method, measured_run(folder)) for domain, method, folder in runs], "truthfulness")
    sections = matrices(cells)
    (to / "transfer.md").write_text(as_markdown(sections), encoding="utf-8")
    (to / "transfer.json").write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n", encoding="utf-8")
    print(as_text(sections))
    about = [("Domains", ", ".join(dict.fromkeys(domain for domain, _, _ in runs))), ("Runs", str(len(runs)))]
    print(write_overview(to, "study of domains", about, [MATRIX], sections, [folder for _, _, folder in runs]))


def _read(path: Path) -> list[Sample]:
    """Read preferences, the better answer of which is learned, or pairs."""
    try:
        return read_preferences(path, path.stem)
    except InputError:
        return read_samples(path, path.stem)
