"""All that a report shows, from the files of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from isara_pl.errors import InputError
from isara_pl.growth.pool import Rejected
from isara_pl.growth.retrieval import Encoder
from isara_pl.growth.samples import Sample
from isara_pl.report.claims import claims_of
from isara_pl.report.contents import TRAINED, Report, SampleRow, Status
from isara_pl.report.curves import (
    Embeddings,
    Rows,
    curves,
    drift,
    grown_outer_epochs,
    nearest_seed_cosines,
    nearest_seeds,
    on_plane,
)
from isara_pl.report.findings import about, cost, facts, look_first, stopped, without_place
from isara_pl.report.helped import helped
from isara_pl.report.suspicious import Look, traits_of, worth_a_look
from isara_pl.results.categories import OfCategory, by_category
from isara_pl.results.ledger import ALL
from isara_pl.results.run import PRETRAINED, Run, measured_run
from isara_pl.results.statistics import finite
from isara_pl.run.files import POOL


def gather(run: Run, baselines: Sequence[tuple[str, Path]], encoder: Encoder | None) -> Report:
    """Give what a report shows of a run, which may be going on, beside other runs by their names.

    The same files give the same report. It holds texts as they are in the files, and no path. Runs of one name are
    pooled. Without the run's sentence encoder there is no map, nor what else needs embeddings.

    Raises:
        InputError: If the run has no pool, a baseline was not measured, or a file is damaged.
    """
    _refuse_no_pool(run.folder)
    samples = run.samples
    places: dict[int, list[int]] = {}
    for place, sample in enumerate(samples):
        places.setdefault(sample.outer_epoch, []).append(place)
    grown = grown_outer_epochs(samples, run.rejected, run.options.get("filters"), run.trained)
    others = [(name, measured_run(path)) for name, path in baselines]
    rows_of_others: dict[str, list[Rows]] = {}
    for name, other in others:
        rows_of_others.setdefault(name, []).append(other.own_metrics())
    findings = [helped(run, others), stopped(run, grown), cost(run, grown)]
    traits, touches, answers = traits_of(samples), run.touches, run.answers
    # all files are read by now: embedding may take minutes, in which a run goes on
    embeddings, map_note = _embeddings(samples, places, encoder, str(run.options.get("data.encoder", "")))
    seed_cosines = None if embeddings is None else nearest_seed_cosines(embeddings, places)
    points, map_note = _points(embeddings, map_note)
    cosines = None if seed_cosines is None else seed_cosines.tolist()
    seeds_nearest = None if embeddings is None else nearest_seeds(embeddings, places)
    look = worth_a_look(samples, traits, touches, cosines, claims_of(samples, seeds_nearest, cosines))
    diversity = drift(samples, traits, places, embeddings, seed_cosines)
    return Report(
        title=run.folder.resolve().name,
        about=about(run),
        answers=answers,
        findings=[*findings, look_first(run, look)],
        curves=curves(run.own_metrics(), rows_of_others, [*diversity[0].figures] if diversity else []),
        grown=grown,
        alpha=finite(run.options.get("alpha_stopping.alpha")),
        spent=[row for row in run.ledger if row.stage != ALL],
        totals=[row for row in run.ledger if row.stage == ALL],
        diversity=diversity,
        samples=_rows(samples, run.rejected, look, points),
        worth_a_look=look.worst_first,
        map_note=map_note,
        facts=facts(run.options, run.conditions),
        categories=_categories(run),
    )


def _categories(run: Run) -> dict[str, list[OfCategory]]:
    """Give what training did in each category of each evaluation's items; nothing before it was measured."""
    before, after = run.at(0), run.last()
    lines = {name: {PRETRAINED: before[name], TRAINED: after[name]} for name in after if run.trained_outer_epochs}
    found = {name: by_category(of_one, PRETRAINED) for name, of_one in lines.items()}
    return {name: categories for name, categories in found.items() if categories}


def _refuse_no_pool(run_dir: Path) -> None:
    if not (run_dir / POOL).exists():
        runs = sorted(str(path.parent) for path in run_dir.glob(f"*/{POOL}"))
        inside = f" These folders inside of it have one: {', '.join(runs[:5])}." if runs else ""
        raise InputError(f"{run_dir}: no {POOL}.{inside} A report needs the folder of a run of `isara-pl fit`")


def _embeddings(
    samples: Sequence[Sample], places: Mapping[int, Sequence[int]], encoder: Encoder | None, name: str
) -> tuple[Embeddings | None, str]:
    """Embed the questions, each outer epoch in one go as growing does it; else say why not."""
    name = without_place(name) or "of the run"
    if len(places) < 2 or 0 not in places:
        return None, "No map: nothing was generated."
    if encoder is None:
        return None, f"No map: the sentence encoder {name} was not at hand when this report was written."
    try:
        parts = {number: encoder.encode([samples[place].question for place in own]) for number, own in places.items()}
    except InputError:  # its message may name folders
        return None, f"No map: the sentence encoder {name} could not be loaded when this report was written."
    embeddings = np.empty((len(samples), parts[0].shape[1]), dtype=np.float32)
    for number, own in places.items():
        embeddings[own] = parts[number]
    return embeddings, f"Questions of the pool, embedded by the sentence encoder {name}"


def _points(embeddings: Embeddings | None, note: str) -> tuple[list[list[float]], str]:
    """Give the place of each sample on the map, and how it was made, or why there is none."""
    if embeddings is None:
        return [], note
    found = on_plane(embeddings)
    if found is None:
        return [], "No map: there are fewer than three different questions."
    points, kept = found
    how = f"projected on the two directions in which they differ most (PCA, {kept:.0%} of the variance)"
    return points.tolist(), f"{note} and {how}. Questions that lie near each other are mostly alike."


def _rows(
    samples: Sequence[Sample], rejected: Sequence[Rejected], look: Look, points: Sequence[Sequence[float]]
) -> list[SampleRow]:
    places = {sample.id: place for place, sample in enumerate(samples)}
    rows = [
        _row(
            sample,
            places,
            status="accepted" if sample.outer_epoch else "seed",
            flags=look.reasons.get(place, ()),
            point=points[place] if points else None,
        )
        for place, sample in enumerate(samples)
    ]
    return [*rows, *(_row(entry.candidate, places, status="rejected", entry=entry) for entry in rejected)]


def _row(
    sample: Sample,
    places: Mapping[str, int],
    status: Status,
    entry: Rejected | None = None,
    flags: Sequence[str] = (),
    point: Sequence[float] | None = None,
) -> SampleRow:
    return SampleRow(
        id=sample.id,
        status=status,
        outer_epoch=sample.outer_epoch,
        question=sample.question,
        answer=sample.answer,
        category=sample.category,
        filter=entry.filter if entry else None,
        reason=entry.verdict.reason if entry else None,
        figure=finite(entry.verdict.figure) if entry else None,
        scores={name: figure for name, score in sample.scores.items() if (figure := finite(score)) is not None},
        question_demonstrations=[places.get(name, -1) for name in sample.question_demonstrations],
        answer_demonstrations=[places.get(name, -1) for name in sample.answer_demonstrations],
        flags=flags,
        x=point[0] if point else None,
        y=point[1] if point else None,
    )
