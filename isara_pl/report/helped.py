"""Did it help? What the figures of every item say, in plain sentences."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from isara_pl.errors import InputError
from isara_pl.report.contents import Finding, counted, listed
from isara_pl.report.curves import TELLING
from isara_pl.report.verdict import BEFORE, NLL_MEANS, NLL_OF_THE_QUESTION, Against, style_alone, verdict
from isara_pl.results.comparison import BASELINES, FEW_ITEMS, Contrast, Evaluated, evaluate, gains, sentence, style
from isara_pl.results.items import INFORMED_PART, MEASURES
from isara_pl.results.methods import Entry, pool_runs
from isara_pl.results.metrics import Row
from isara_pl.results.run import CLAIMED, CONTROL, DISTILLATION, OF_SEEDS, PRETRAINED, SFT, Run
from isara_pl.results.statistics import weighted_mean

QUESTION = "Did it help?"
MEASURE_IT = (
    "To measure it: `python -m isara_pl validate --ckpt_path last` with the options of this run, pairs that are not "
    "seeds (--data.held_out FILE) and the callback TruthfulnessEvaluation, or another evaluation."
)
SFT_MISSING = (
    f"Without a run of {SFT}, nothing here shows whether this one beats it. Such a run: `python -m isara_pl "
    f"{BASELINES[SFT]}` with this run's model, seeds and items; then `python -m isara_pl report RUN "
    "--baselines sft=ITS_FOLDER`."
)
CONTROL_MISSING = (
    "Without a run whose teacher is shown no demonstrations, nothing here shows whether what helps or harms comes from "
    "the demonstrations. Such a run: this one's command with data.teacher_demonstrations off; then give it among the "
    "baselines."
)
SMALL = 0.001  # a difference that three decimals do not show
BRACKETS = (
    "In brackets: 95 % intervals from a paired bootstrap over the questions. They cover the choice of questions, not "
    "that of seeds or of training runs, and are not corrected for the number of comparisons."
)


@dataclass(frozen=True)
class _Compared:
    """What a model and another one differ by in an evaluation; the measures that tell most come first."""

    evaluation: Evaluated
    contrasts: list[Contrast]
    alone: bool  # whether there is no other evaluation, so that its name need not be said

    @property
    def telling(self) -> list[Contrast]:
        """Those that decide about the headline; where none of these was measured, all."""
        return [contrast for contrast in self.contrasts if contrast.measure in TELLING] or self.contrasts

    @property
    def sentences(self) -> list[str]:
        """What they say, and which gains are style alone."""
        return [self.say(text) for text in (*map(sentence, self.telling), *style(self.contrasts))]

    def say(self, text: str) -> str:
        """Begin a sentence with the evaluation, where there are several."""
        return text if self.alone else f"{self.evaluation.name}: {text}"


def helped(run: Run, baselines: Sequence[tuple[str, Run]]) -> Finding:
    """Say whether the last model that was measured is better than the pretrained one, and than measured baselines.

    Raises:
        InputError: If baselines of one name are of different kinds, or have different evaluations.
    """
    if not run.items:
        return _without_items(run.metrics)
    trained = sorted(run.trained_outer_epochs)
    if not trained:
        return Finding(QUESTION, "Nothing shows it: no model was measured after training.", [MEASURE_IT], "unsure")
    after, before = _entry(run, trained[-1]), _entry(run, 0)
    compared, notes = _compare(after, before)
    if not compared:
        answer = f"Nothing shows it: {BEFORE} was not measured in the same way."
        return Finding(QUESTION, answer, [*notes, MEASURE_IT], "unsure")
    baseline_of, more = _against(run, after, baselines) if run.kind in CLAIMED else ([], [])
    told = [contrast for each in compared for contrast in each.telling]
    own = [each for each in compared if any(one.measure in TELLING for one in each.contrasts)]
    fewest = min(each.evaluation.items for each in own or compared)  # a harness's tasks have items of their own
    answer, tone = verdict(trained[-1], told, baseline_of, fewest)
    if run.kind in CLAIMED and not any(one.baseline.kind in OF_SEEDS for one in baseline_of):
        answer += " Nothing here shows whether it beats training on the given pairs alone."
    found = [gain for each in compared for gain in gains(each.contrasts)]
    flattering = style_alone(found)
    if flattering:
        answer += f" {flattering}"
        tone = "unsure" if tone == "good" else tone
    if fewest < FEW_ITEMS:
        answer += f" All of it from {counted(fewest, 'question')} only: that is too few to trust."
        tone = "unsure"
    of_question = any(gain.measure == "answer_nll" and left.conclusion == "better" for gain, left in found)
    nll_means = NLL_OF_THE_QUESTION if of_question else NLL_MEANS
    means = [nll_means] if any(contrast.measure == "answer_nll" for contrast in told) else []
    figures = [text for each in compared for text in each.sentences]
    details = [*means, *figures, *_others(compared), *notes, *_earlier(run, trained, compared), *more]
    return Finding(QUESTION, answer, [*details, *_contamination(compared), BRACKETS], tone)


def _without_items(rows: Mapping[int, Row]) -> Finding:
    """Say what metrics.csv alone can tell."""
    having = [number for number in sorted(rows) if "answer_nll" in rows[number]]
    if len(having) < 2 or having[0] != 0:
        return Finding(QUESTION, "Nothing shows whether it helped: it was not measured.", [MEASURE_IT], "unsure")
    first, last = rows[0]["answer_nll"], rows[having[-1]]["answer_nll"]
    return Finding(
        QUESTION,
        f"The answer NLL is {last:.3f} after outer epoch {having[-1]}, and was {first:.3f} before (lower is better). "
        "Without the figures of every item nothing shows whether that is more than chance.",
        [MEASURE_IT],
        "unsure",
    )


def _entry(run: Run, outer_epoch: int) -> Entry:
    name, kind = (f"outer epoch {outer_epoch}", run.kind) if outer_epoch else (BEFORE, PRETRAINED)
    return Entry(name, name, kind, [(run.folder, run.at(outer_epoch))])


def _compare(entry: Entry, other: Entry, measures: Collection[str] = MEASURES) -> tuple[list[_Compared], list[str]]:
    """Compare two entries in every evaluation that both have, and say where they cannot be compared."""
    compared, notes = [], []
    pair = [_with_only(other, measures), _with_only(entry, measures)]
    for name in dict.fromkeys(name for _, lines in entry.runs for name in lines):
        if not entry.lines(name) or not other.lines(name):
            continue
        try:
            evaluated = evaluate(name, pair, pair[0])
        except InputError:  # its message names folders
            notes.append(
                f"{name}: {other.name} was measured on other items, or in another way; there is no comparison."
            )
            continue
        contrasts = [contrast for contrast in evaluated.contrasts if contrast.method == entry.name]
        if contrasts:
            compared.append((evaluated, sorted(contrasts, key=_order)))
    return [_Compared(*each, alone=len(compared) == 1) for each in compared], notes


def _with_only(entry: Entry, measures: Collection[str]) -> Entry:
    """Leave out other measures: every one takes its own resamples."""
    runs = []
    for path, evaluations in entry.runs:
        kept = {
            name: [
                replace(line, figures={m: figure for m, figure in line.figures.items() if m in measures})
                for line in lines
            ]
            for name, lines in evaluations.items()
        }
        runs.append((path, kept))
    return replace(entry, runs=runs)


def _order(contrast: Contrast) -> int:
    return [*TELLING, *MEASURES].index(contrast.measure)


def _amount(contrast: Contrast) -> str:
    found = contrast.difference
    if found is None:
        raise ValueError("a contrast without a difference has no amount")
    if abs(found.difference) < SMALL:
        return f"less than {SMALL}"
    low, high = sorted((abs(found.low), abs(found.high)))
    return f"{abs(found.difference):.3f} [{low:.3f}, {high:.3f}]"


def _others(compared: Sequence[_Compared]) -> list[str]:
    """Say in short what the other measures show."""
    sentences = []
    for each in compared:
        told = [*each.telling, *(informed for _, informed in gains(each.contrasts))]
        others = [contrast for contrast in each.contrasts if contrast not in told]
        said = []
        for conclusion, words in (("better", "better"), ("worse", "worse"), ("cannot tell", "it cannot tell")):
            labels = [MEASURES[contrast.measure].label for contrast in others if contrast.conclusion == conclusion]
            said += [f"{words} in {listed(labels)}"] if labels else []
        sentences += [each.say(f"Of the other measures this data says: {'; '.join(said)}.")] if said else []
    return sentences


def _earlier(run: Run, trained: Sequence[int], compared: Sequence[_Compared]) -> list[str]:
    """Say whether an earlier outer epoch was better than the last one, in the measure that tells most."""
    found = [(each.evaluation.name, contrast.measure) for each in compared for contrast in each.telling]
    name, measure = min(found, key=lambda pair: [*TELLING, *MEASURES].index(pair[1]))
    upwards = 1 if MEASURES[measure].higher_is_better else -1
    means = {}
    for outer_epoch in trained:
        lines = run.at(outer_epoch)[name]
        mean = weighted_mean(line.figures[measure] for line in lines if measure in line.figures)
        if mean is not None:
            means[outer_epoch] = mean
    best = max(means, key=lambda number: (upwards * means[number], number), default=trained[-1])
    if best == trained[-1]:
        return []
    contrasts = [
        contrast
        for each in _compare(_entry(run, best), _entry(run, trained[-1]), [measure])[0]
        if each.evaluation.name == name
        for contrast in each.contrasts
    ]
    label = MEASURES[measure].label
    if contrasts and contrasts[0].conclusion == "better":
        return [
            f"Outer epoch {best} was better than outer epoch {trained[-1]}, the last one, in {label} by "
            f"{_amount(contrasts[0])}; checkpoints/ may still have its adapter."
        ]
    return [
        f"Outer epoch {best} measured better than outer epoch {trained[-1]}, the last one, in {label} "
        f"({means[best]:.3f} against {means.get(trained[-1], float('nan')):.3f}), but this data cannot tell them apart."
    ]


def _against(run: Run, after: Entry, baselines: Sequence[tuple[str, Run]]) -> tuple[list[Against], list[str]]:
    """Compare it with every baseline: what decides, and the figures in sentences."""
    names = [name for name, _ in baselines]
    # with the run among them: whether a baseline had its seeds is told from it
    entries = [entry for entry in pool_runs([(after.name, run), *baselines], False) if entry.name in names]
    found, details = [], []
    for entry in entries:
        compared, notes = _compare(after, entry, (*TELLING, *INFORMED_PART.values()))
        found.append(Against(entry, [contrast for each in compared for contrast in each.telling]))
        details += notes
        details += [text for each in compared for text in each.sentences]
        details += [] if compared else [f"It could not be compared with {entry.described}."]
    kinds = {entry.kind for entry in entries}
    if run.kind == DISTILLATION and CONTROL not in kinds:
        details.append(CONTROL_MISSING)
    if kinds.isdisjoint(OF_SEEDS):
        details.append(SFT_MISSING)
    return found, details


def _contamination(compared: Sequence[_Compared]) -> list[str]:
    """Say how many items training samples touch."""
    return [
        f"{each.evaluation.name}: of its {counted(each.evaluation.items, 'question')}, "
        f"{each.evaluation.contaminated} nearly stand in what the model was trained on, so that it may know their "
        "answers by heart; figures whose names end in _clean leave these out."
        for each in compared
        if each.evaluation.contaminated
    ]
