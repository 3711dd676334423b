import json
import re
import shutil
from pathlib import Path

import pytest
from helpers.report_runs import accepted, items, rejected, write_run

from isara_pl.evaluation.calibration import NLL_BY_TEMPERATURE, TEMPERATURES
from isara_pl.report.contents import Finding
from isara_pl.report.findings import as_text
from isara_pl.report.gather import gather
from isara_pl.results.items import write_results
from isara_pl.results.ledger import Gain, Usage, ledger_rows, ledger_text
from isara_pl.results.run import Run

NOVEL = [accepted(outer_epoch, number) for outer_epoch in (1, 2) for number in range(3)]
TAKEN = [rejected(1, 3), rejected(2, 3)]


def findings(folder: Path, **baselines: Path) -> list[Finding]:
    return list(gather(Run(folder), [*baselines.items()], None).findings)


def run(tmp_path: Path, *shifts: float, name: str = "run", **options) -> Path:
    options = {"pool": NOVEL, "taken": TAKEN, **options}
    return write_run(tmp_path / name, dict(enumerate(shifts)), **options)


def baseline(tmp_path: Path, shift: float, **options) -> Path:
    return write_run(tmp_path / "sft", {0: 0.5, 1: shift}, taken=None, candidates=0, outer_epochs=1, **options)


def test_planted_effects_are_told_with_their_interval(tmp_path):
    better, worse, same = (findings(run(tmp_path, 0.5, 0.3, last, name=f"run{last}"))[0] for last in (0.2, 0.9, 0.5))
    told = re.match(
        r"answer NLL: outer epoch 2 is better than the pretrained model by (.+) \[(.+), (.+)\]\.$", better.details[1]
    )
    assert told
    assert better.answer == (
        "Use the trained model (outer epoch 2): it was better than the pretrained model on 60 held-out questions. It was "
        "better in how likely it finds the given answers; about how much likelier it finds true answers than false ones "
        "this data tells nothing. Nothing here shows whether it beats training on the given pairs alone."
    )
    assert "They do not mean that what it answers itself is true" in better.details[0]
    by, low, high = map(float, told.groups())
    assert 0.25 < low < by < high < 0.35
    assert (better.tone, worse.tone, same.tone) == ("good", "bad", "unsure")
    assert worse.answer.startswith(
        "Use the pretrained model: the trained model (outer epoch 2) was worse than it on 60 held-out questions, in how "
        "likely it finds the given answers;"
    )
    assert same.answer.startswith(
        "Keep the pretrained model: on 60 held-out questions, nothing tells the trained model (outer epoch 2) from it."
    )
    assert any("configs/baselines/sft_seeds.yaml" in detail for detail in better.details)
    # that of the first is the only one that was best at its end
    assert not any("the last one" in detail for detail in better.details)
    assert any("Outer epoch 1 was better than outer epoch 2, the last one" in detail for detail in worse.details)


def test_another_harness_is_told_too_and_leaves_the_count_of_held_out_questions_as_it_is(tmp_path):
    folder = run(tmp_path, 0.5, 0.3, 0.2)
    for outer_epoch in (0, 2):
        lines = [
            {"id": f"{n}", "question": f"{n}?", "seeds": "abc", "harness_score": 1.0 - outer_epoch} for n in range(5)
        ]
        write_results(folder, "lm-eval_colours_acc", outer_epoch, lines)
    found = findings(folder)[0]
    assert found.answer.startswith(
        "Read its answers before you use the trained model (outer epoch 2): on 60 held-out questions it was better than the "
        "pretrained model in how likely it finds the given answers, but worse in what another harness scores"
    )
    assert any(detail.startswith("lm-eval_colours_acc: score: outer epoch 2 is worse") for detail in found.details)


def test_a_better_baseline_takes_the_good_news_away(tmp_path):
    folder = run(tmp_path, 0.5, 0.3, 0.2)
    found = findings(folder, sft=baseline(tmp_path, 0.0))[0]
    assert found.tone == "unsure"
    assert found.answer == (
        "Use what is simpler, training on the given pairs alone (sft): it was better than the trained model (outer epoch "
        "2) on 60 held-out questions, in how likely it finds the given answers. The trained model itself was better "
        "than the pretrained model."
    )
    assert any(re.match(r"answer NLL: outer epoch 2 is worse than sft by 0\.[12]", detail) for detail in found.details)
    assert not any("sft_seeds.yaml" in detail for detail in found.details)
    curve = gather(Run(folder), [("sft", tmp_path / "sft")], None).curves[0]
    assert curve.baselines == {"sft": 2.0}
    assert str(tmp_path) not in as_text([found])


def test_a_simpler_baseline_that_is_no_worse_stands_in_the_first_sentence(tmp_path):
    folder = run(tmp_path, 0.5, 0.3, 0.2)
    shutil.move(baseline(tmp_path, 0.2), tmp_path / "level")
    found = findings(folder, **{"SFT on the seeds": tmp_path / "level"})[0]
    assert found.answer.startswith(
        "Use the trained model (outer epoch 2): it was better than the pretrained model on 60 held-out questions; the "
        "simpler way, training on the given pairs alone, cannot be told from it. "
    )
    assert found.tone == "unsure"
    beaten = findings(folder, sft=baseline(tmp_path, 0.4))[0]
    assert ", and than what is simpler, training on the given pairs alone (sft). " in beaten.answer
    assert beaten.tone == "good"


def test_the_first_sentences_have_none_of_the_fields_words(tmp_path):
    folder = run(tmp_path, 0.5, 0.3, 0.2)
    for shift in (0.0, 0.2, 0.4):
        other = write_run(tmp_path / f"sft{shift}", {0: 0.5, 1: shift}, taken=None, candidates=0, outer_epochs=1)
        said = findings(folder, **{"SFT on the seeds": other})[0].answer
        assert not re.search(r"SFT|ICL|NLL|MC\d|break-even|contaminated|LoRA", said)


def under(folder: Path, **conditions: object) -> Path:
    """Write conditions beside those that a run has."""
    path = folder / "conditions.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **conditions}))
    return folder


def test_early_stopped_sft_and_the_control_stand_in_the_answer(tmp_path):
    taught = {"model.objective": "distill", "data.teacher_demonstrations": 4}
    folder = under(run(tmp_path, 0.5, 0.3, 0.2), **taught)
    early = under(baseline(tmp_path, 0.4), best_epoch=True)
    control = under(run(tmp_path, 0.5, 0.3, 0.0, name="control"), **{**taught, "data.teacher_demonstrations": 0})
    found = findings(folder, early=early, control=control)[0]
    assert "and than what is simpler, training on the given pairs alone, stopped early (early)" in found.answer
    assert found.answer.endswith(
        "In how likely it finds the given answers, the same training without examples for the teacher (control) was "
        "better."
    )
    assert found.tone == "unsure"
    assert "othing here shows" not in as_text([found])
    alone = findings(folder)[0]
    assert alone.answer.endswith("Nothing here shows whether it beats training on the given pairs alone.")
    assert any("teacher is shown no demonstrations" in detail for detail in alone.details)
    stopped = findings(early)[1]
    assert stopped.answer == (
        "It trained on the 4 seeds alone, to the end, and went back to the weights of its best epoch; nothing was to "
        "be generated."
    )


def test_the_scaled_nll_is_one_of_the_other_measures(tmp_path):
    folder = run(tmp_path, 0.5, 0.2)
    for outer_epoch, shift in enumerate((0.5, 0.2)):
        lines = [
            {**line, NLL_BY_TEMPERATURE: [line["answer_nll"]] * len(TEMPERATURES)} for line in items(shift, outer_epoch)
        ]
        write_results(folder, "truthfulness", outer_epoch, lines)
    found = findings(folder)[0]
    assert "Of the other measures this data says: better in scaled NLL." in found.details
    assert "temperature-scaled" not in found.answer
    assert [curve.name for curve in gather(Run(folder), [], None).curves][:1] == ["answer_nll"]


def test_figures_of_other_items_are_not_compared(tmp_path):
    folder, other = run(tmp_path, 0.5, 0.3, 0.2), baseline(tmp_path, 0.0)
    for outer_epoch in (0, 1):
        elsewhere = [{**line, "question": "Other " + line["question"]} for line in items(0, 1)]
        write_results(other, "truthfulness", outer_epoch, elsewhere)
    found = findings(folder, sft=other)[0]
    assert "It could not be compared with sft (SFT on the seeds)." in found.details
    assert "truthfulness: sft was measured on other items, or in another way; there is no comparison." in found.details
    assert str(tmp_path) not in as_text([found])


def test_a_measure_that_rises_is_better(tmp_path):
    folder = run(tmp_path, 0, 0, 0)
    for outer_epoch, rise in enumerate((0, 0.3, 0.1)):
        lines = [
            {**line, "mc2": line["mc2"] + rise, "contaminated": place < 5} for place, line in enumerate(items(0, 1))
        ]
        lines = [{name: value for name, value in line.items() if name != "answer_nll"} for line in lines]
        write_results(folder, "truthfulness", outer_epoch, lines)
    found = findings(folder)[0]
    assert found.answer.startswith(
        "Use the trained model (outer epoch 2): it was better than the pretrained model on 60"
    )
    assert "MC2: outer epoch 2 is better than the pretrained model by 0.100 [0.100, 0.100]." in found.details
    assert any("Outer epoch 1 was better than outer epoch 2, the last one, in MC2 by 0.200" in d for d in found.details)
    assert any(
        detail.startswith("truthfulness: of its 60 questions, 5 nearly stand in what") for detail in found.details
    )


def test_of_several_evaluations_each_is_named(tmp_path):
    folder = run(tmp_path, 0.5, 0.2, pool=NOVEL[:3])
    for outer_epoch, shift in enumerate((0.2, 0.5)):
        write_results(folder, "other", outer_epoch, items(shift, outer_epoch))
    found = findings(folder)[0]
    assert found.answer.startswith("Read its answers before you use the trained model (outer epoch 1)")
    for name, conclusion in (("truthfulness", "better"), ("other", "worse")):
        said = f"{name}: answer NLL: outer epoch 1 is {conclusion} than the pretrained model by 0."
        assert any(detail.startswith(said) for detail in found.details)


def test_few_items_are_not_trusted(tmp_path):
    found = findings(run(tmp_path, 0.5, 0.3, 0.2, count=10))[0]
    assert "All of it from 10 questions only" in found.answer
    assert found.tone == "unsure"


def test_without_measurements_nothing_is_claimed(tmp_path):
    nothing = findings(write_run(tmp_path / "none", pool=NOVEL, taken=TAKEN))[0]
    assert nothing.answer == "Nothing shows whether it helped: it was not measured."
    assert "TruthfulnessEvaluation" in nothing.details[0]
    before = findings(run(tmp_path, 0.5, name="before"))[0]
    assert before.answer == "Nothing shows it: no model was measured after training."
    no_items = run(tmp_path, 0.5, 0.3, 0.2, name="no_items")
    (no_items / "evaluation" / "truthfulness.jsonl").unlink()
    found = findings(no_items)[0]
    assert found.answer.startswith("The answer NLL is 2.200 after outer epoch 2, and was 2.500 before")
    assert {nothing.tone, before.tone, found.tone} == {"unsure"}


def test_the_alpha_rule_is_named_where_it_ended_the_run(tmp_path):
    exhausted = [*[accepted(1, n) for n in range(3)], accepted(2, 0)]
    taken = [rejected(1, 3), *[rejected(2, n) for n in (1, 2)], rejected(2, 3, taken_by="TooShort")]
    later = findings(run(tmp_path, 0.5, 0.3, pool=exhausted, taken=taken, alpha=0.3, outer_epochs=4))[1]
    assert later.answer == (
        "The model had little new to say in outer epoch 2: 1 of 4 candidates accepted, a novelty of 0.250, which is "
        "below α = 0.3."
    )
    assert "The others were rejected by NearDuplicate 2 and TooShort 1." in later.details
    assert "nothing was trained on them" in later.details[0]
    first = findings(run(tmp_path, 0.5, name="first", pool=[], taken=[rejected(1, n) for n in range(4)]))[1]
    assert "in the very first outer epoch, so nothing was trained" in first.answer
    assert "loosen the filter that took most" in first.details[-1]
    taken = [rejected(1, n, taken_by="Unfinished") for n in range(4)]
    cut = findings(run(tmp_path, 0.5, name="cut", pool=[], taken=taken))[1]
    assert "raise max_new_tokens of data.question_sampling and data.answer_sampling" in cut.details[-1]
    assert (later.tone, first.tone) == ("neutral", "bad")


def test_an_end_without_the_alpha_rule_is_told_from_none(tmp_path):
    whole = findings(run(tmp_path, 0.5, 0.3, 0.2))[1]
    assert whole.answer == "All 2 outer epochs were done; the novelty, at least 0.750, never fell below α = 0.2."
    off = findings(run(tmp_path, 0.5, 0.3, 0.2, name="off", alpha=0))[1]
    assert off.answer == "All 2 outer epochs were done; the α rule was off (α = 0)."
    raised = findings(run(tmp_path, 0.5, 0.3, 0.2, name="raised", alpha=0.9))[1]  # on a resume, say
    assert "All 2 outer epochs were done; the novelty was down to 0.750" in raised.answer
    # one candidate of outer epoch 2 is judged so far, and rejected: that is no novelty of 0
    begun = run(tmp_path, 0.5, 0.3, name="begun", pool=NOVEL[:3], taken=TAKEN)
    metrics = (begun / "metrics.csv").read_text().splitlines(keepends=True)
    (begun / "metrics.csv").write_text("".join(metrics[:-1]))
    found = findings(begun)[1]
    assert found.answer.startswith("It is not finished: 1 of 2 outer epochs trained.")
    assert "In outer epoch 2, 0 of 1 candidates are accepted so far." in found.details
    seeds = findings(baseline(tmp_path, 0.0))
    assert seeds[1].answer == "It trained on the 4 seeds alone, to the end; nothing was to be generated."
    assert seeds[3].answer == "Nothing was generated: the pool holds the seeds alone."
    assert "SFT on the seeds" not in as_text(seeds)  # it is that itself


def test_the_cost_is_that_of_the_ledger(tmp_path):
    folder = run(tmp_path, 0.5, 0.3, 0.2)
    assert findings(folder)[2].answer == "1 min 30 s for 6 accepted samples."  # 3 times 30 s in metrics.csv
    usages = {
        (0, "truthfulness"): Usage(wall_seconds=100),
        (1, "answers"): Usage(wall_seconds=600, generated_tokens=5000, flops=10**12),
        (1, "training"): Usage(wall_seconds=200, flops=10**12),
        (2, "answers"): Usage(wall_seconds=1200, generated_tokens=7000),
    }
    gains = {1: Gain(3, 10**9), 2: Gain(3, 10**9)}
    (folder / "ledger.csv").write_text(ledger_text(ledger_rows(usages, gains, price_per_hour=3.6)))
    report = gather(Run(folder), [], None)
    found = report.findings[2]
    assert found.answer == (
        "35 min 0 s for 6 accepted samples, 5 min 0 s of growing for each. It cost 2.1 at the given price of an hour, "
        "0.3 of growing for each accepted sample."
    )
    assert found.details == [
        "Most of the time went into answers 86%, training 10% and truthfulness 5%.",
        "12,000 tokens were generated.",
        "After 2,000 questions, growing and training took fewer FLOPs than demonstrations in the prompt of every "
        "question would have.",
    ]
    assert {(one.outer_epoch, one.stage): one.wall_seconds for one in report.spent} == {
        key: usage.wall_seconds for key, usage in usages.items()
    }
    assert [(one.outer_epoch, one.wall_seconds, one.break_even_queries) for one in report.totals] == [
        (0, 100, None),
        (1, 800, 2000),
        (2, 1200, 2000),
    ]


def test_one_sample_is_shown_with_its_origin(tmp_path):
    strange = accepted(2, 9, answer="I'm sorry, but as an AI I cannot tell what comes of that in the end, ever.")
    found = findings(run(tmp_path, 0.5, 0.3, 0.2, pool=[*NOVEL, strange]))[3]
    assert found.answer == (
        "2-00009 of outer epoch 2, “Why does thing 9 fall in year 2?”, answered “I'm sorry, but as an AI I cannot tell "
        "what comes of that in the end, ever.”: it refuses to answer, by its first words. The question was written from "
        "seed-00001 and seed-00000. The answer was written from seed-00002."
    )
    assert found.details == [
        "Among the accepted samples: 1 refusing to answer and 1 with an answer far longer or shorter than any seed's.",
        "NearDuplicate rejected most, 2 of 2 rejected candidates, e.g. 2-00003, “Why does thing 3 fall in year 2?”: "
        "ROUGE-L above 0.7.",
    ]


@pytest.mark.parametrize("taken", [[rejected(1, 0)], []])
def test_where_nothing_was_accepted_there_is_nothing_to_look_at(tmp_path, taken):
    found = findings(write_run(tmp_path / "run", taken=taken))[3]
    assert found.answer.startswith("No candidate was accepted" if taken else "Nothing was generated")
