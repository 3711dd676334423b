import csv
import json
import math
import re
from pathlib import Path

import pytest
from helpers.compare import FAST, ITEMS, contrast, items, only, row, write_run

from isara_pl.cli.commands import run_command
from isara_pl.errors import InputError
from isara_pl.results.compare import WIDTH
from isara_pl.results.items import write_results


@pytest.fixture
def runs(tmp_path) -> list[str]:
    """Self-generation, SFT and ICL under two seed sets: better in MC2 and worse in NLL than SFT, like ICL in MC2."""
    paths = []
    for seeds in (1, 2):
        name, noise = f"seeds-{seeds}", 10 * seeds
        before = items(-0.2, 0.5, noise, name)
        isara = {0: before, 1: items(0, 0, noise + 1, name), 2: items(0.1, 0.2, noise + 2, name)}
        paths += [
            write_run(tmp_path / f"isara-seed{seeds}", isara, generated=3),
            write_run(tmp_path / f"sft_seeds_s{seeds}", {0: before, 1: items(0, 0, noise + 3, name)}, generated=0),
            write_run(tmp_path / f"icl_knn-s{seeds}", {0: items(0.1, 0.5, noise + 4, name, demonstrations=True)}),
        ]
    return paths


def compare(tmp_path: Path, *args: str) -> dict:
    run_command("compare", [*args, *FAST, "--json", str(tmp_path / "out" / "found.json")])
    return json.loads((tmp_path / "out" / "found.json").read_text())


def test_means_and_differences_are_those_computed_by_hand(runs, tmp_path):
    found = compare(tmp_path, *runs)
    isara, sft = (
        [line for seeds in (1, 2) for line in items(mc2, nll, 10 * seeds + add, f"seeds-{seeds}")]
        for mc2, nll, add in ((0.1, 0.2, 2), (0, 0, 3))
    )
    means = [sum(line["mc2"] for line in lines) / len(lines) for lines in (isara, sft)]
    assert row(found, "isara")["values"]["mc2"] == pytest.approx(means[0])
    assert contrast(found, "isara", "sft_seeds", "mc2")["difference"]["difference"] == pytest.approx(
        means[0] - means[1]
    )
    tokens = sum(line["answer_tokens"] for line in isara)
    weighted = sum(line["answer_nll"] * line["answer_tokens"] for line in isara) / tokens
    assert row(found, "isara")["values"]["answer_nll"] == pytest.approx(weighted)
    assert contrast(found, "isara", "sft_seeds", "mc2")["difference"]["questions"] == ITEMS


def test_kinds_pooling_and_last_outer_epoch(runs, tmp_path):
    found = compare(tmp_path, *runs)
    kinds = {row["method"]: (row["kind"], len(row["runs"]), row["outer_epochs"]) for row in only(found)["rows"]}
    assert kinds == {
        "pretrained": ("pretrained", 4, [0]),  # from the fitted runs
        "isara": ("self-generation", 2, [2]),
        "sft_seeds": ("SFT on the seeds", 2, [1]),
        "icl_knn": ("ICL", 2, [0]),
    }
    assert found["reference"] == "sft_seeds"
    assert set(contrast(found, "isara", "sft_seeds", "mc2")["by_seed_set"]) == {"seeds-1", "seeds-2"}


def taught(objective: str, demonstrations: int = 4) -> dict:
    return {"model.objective": objective, "data.teacher_demonstrations": demonstrations}


@pytest.fixture
def all_kinds(tmp_path) -> dict[str, str]:
    """A run of every kind, with the seeds `seeds-a` but for `more`."""
    before, after = items(-0.2, 0.5, 1), items(0, 0, 2)
    better, other = items(0.1, -0.2, 3), items(0, 0, 4, "other seeds")
    measured = {
        "isara": ({0: before, 1: better}, 3, {"model.objective": "sft", "best_epoch": True}),
        "teacher": ({0: before, 1: better}, 3, taught("distill")),
        "both": ({0: before, 1: better}, 0, taught("sft+distill")),
        "control": ({0: before, 1: after}, 3, taught("distill", 0)),
        "early": ({0: before, 1: after}, 0, {"model.objective": "sft", "best_epoch": True}),
        "sft": ({0: before, 1: after}, 0, {"model.objective": "sft", "best_epoch": False}),
        "older": ({0: before, 1: after}, 0, None),
        "more": ({0: other, 1: other}, 0, {"best_epoch": True}),
        "icl": ({0: items(0, 0, 5, demonstrations=True)}, None, None),
    }
    return {name: write_run(tmp_path / name, *given) for name, given in measured.items()}


def test_kinds_are_told_by_the_conditions_of_the_run(all_kinds, tmp_path):
    found = compare(tmp_path, *all_kinds.values())
    assert {row["method"]: row["kind"] for row in only(found)["rows"]} == {
        "pretrained": "pretrained",
        "isara": "self-generation",
        "teacher": "distillation",
        "both": "distillation",
        "control": "distillation, no demonstrations",
        "early": "SFT on the seeds, early-stopped",
        "sft": "SFT on the seeds",
        "older": "SFT on the seeds",
        "more": "SFT on other pairs",
        "icl": "ICL",
    }
    assert len(row(found, "pretrained")["runs"]) == 8  # all but ICL
    assert found["reference"] == "sft"


def test_distillation_is_claimed_against_every_baseline(all_kinds, tmp_path, capsys):
    compare(tmp_path, *(all_kinds[name] for name in ("teacher", "early", "icl", "control")))
    text = " ".join(capsys.readouterr().out.split())
    for other in (
        "early (SFT on the seeds, early-stopped)",
        "icl (ICL)",
        "control (distillation, no demonstrations)",
    ):
        assert f"teacher against {other}: better in MC2, answer NLL." in text
    assert text.count("is among these") == 1
    assert "No run of SFT on the seeds is among these" in text
    assert "control against" not in text
    compare(tmp_path, all_kinds["teacher"], all_kinds["isara"])
    text = " ".join(capsys.readouterr().out.split())
    assert "isara against pretrained: better in" in text
    assert "teacher against pretrained: better in" in text
    assert "No run of distillation, no demonstrations is among these" in text
    assert "nothing here says whether self-generation or distillation beats it" in text


def test_sft_on_other_pairs_is_told_from_distillation_too(all_kinds, tmp_path):
    for loop in ("teacher", "control"):
        found = compare(tmp_path, all_kinds[loop], all_kinds["more"], all_kinds["early"])
        kinds = {row["method"]: row["kind"] for row in only(found)["rows"]}
        assert (kinds["more"], kinds["early"]) == ("SFT on other pairs", "SFT on the seeds, early-stopped")
        assert found["reference"] == "early"


def test_damaged_conditions_are_named(all_kinds, tmp_path):
    (tmp_path / "teacher/conditions.json").write_text("[]")
    with pytest.raises(InputError, match=r"teacher/conditions\.json: damaged"):
        run_command("compare", [all_kinds["teacher"], *FAST])


def test_planted_effects_are_found_in_their_direction(runs, tmp_path, capsys):
    found = compare(tmp_path, *runs)
    text = capsys.readouterr().out
    readings = {
        (measure, other): contrast(found, "isara", other, measure)["conclusion"]
        for measure in ("mc2", "answer_nll")
        for other in ("sft_seeds", "icl_knn")
    }
    assert readings == {
        ("mc2", "sft_seeds"): "better",
        ("answer_nll", "sft_seeds"): "worse",  # higher, and lower is better
        ("mc2", "icl_knn"): "cannot tell",
        ("answer_nll", "icl_knn"): "better",
    }
    assert "MC2: isara is better than sft_seeds by 0.1" in text
    assert "answer NLL: isara is worse than sft_seeds by 0." in text
    assert "answer NLL: isara is better than icl_knn by 0." in text
    assert "MC2: this data cannot tell isara from icl_knn: difference " in text
    assert re.search(r"MC2: isara is better than sft_seeds by .* in 2 of 2 seed sets\.\n", text)
    assert re.search(r"answer NLL: isara is worse than sft_seeds by .* in 2 of 2 seed sets\.\n", text)
    assert all(len(line) <= WIDTH for line in text.splitlines() if "written" not in line)


def test_what_would_be_detected_is_named(runs, tmp_path, capsys):
    detectable = contrast(compare(tmp_path, *runs), "isara", "icl_knn", "mc2")["difference"][
        "minimum_detectable_effect"
    ]
    assert f"would show a difference from {detectable:.3f} up" in " ".join(capsys.readouterr().out.split())


def test_random_seeds_of_one_seed_set_are_no_new_seed_sets(tmp_path):
    paths = [
        write_run(tmp_path / f"{name}-seed{seed}", {1: items(mc2, 0, noise)}, generated)
        for name, mc2, generated in (("isara", 0.1, 1), ("sft", 0.0, 0))
        for seed, noise in ((1, 1 + generated), (2, 11 + generated))
    ]
    found = contrast(compare(tmp_path, *paths), "isara", "sft", "mc2")
    assert list(found["by_seed_set"]) == ["seeds-a"]
    assert found["by_seed_set"]["seeds-a"] == pytest.approx(found["difference"]["difference"])


def test_a_method_without_the_seed_sets_of_another_is_paired_by_question(runs, tmp_path, capsys):
    named = write_run(tmp_path / "base", {0: items(-0.2, 0.5, 77, "other seeds")})
    found = compare(tmp_path, *runs, f"base={named}", "--reference", "base")
    assert "pretrained" not in {line["method"] for line in only(found)["rows"]}  # it was named
    isara = contrast(found, "isara", "base", "mc2")
    assert isara["conclusion"] == "better"
    assert isara["by_seed_set"] == {}
    said = " ".join(capsys.readouterr().out.split())
    assert "MC2, answer NLL: isara and base have no seed set in common, so they are paired by question alone." in said
    values = [row(found, name)["values"]["mc2"] for name in ("isara", "base")]
    assert isara["difference"]["difference"] == pytest.approx(values[0] - values[1])


@pytest.fixture
def unequal(tmp_path) -> dict[str, str]:
    """Equal methods over an easy and a hard seed set; `short` lacks the hard one."""
    easy, hard = items(0.2, 0, 1, "easy"), items(-0.2, 0, 2, "hard")
    measured = {
        "isara-seed1": ({0: easy, 1: easy, 2: easy}, 3),
        "isara-seed2": ({0: hard, 1: hard}, 3),
        "sft-seed1": ({0: easy, 1: easy}, 0),
        "sft-seed2": ({1: hard}, 0),
        "short-seed1": ({1: easy}, 0),
    }
    return {name: write_run(tmp_path / name, *given) for name, given in measured.items()}


def test_methods_are_compared_on_the_seed_sets_that_both_have(unequal, tmp_path, capsys):
    """Each pair is equal where both were measured: a method, an outer epoch and a pretrained model that lack a set."""
    for names, args, method, reference, left_out in (
        (["isara-seed1", "isara-seed2", "short-seed1"], [], "isara", "short", "isara-seed2"),
        (["short-seed1", "isara-seed2", "isara-seed1"], ["--reference", "isara"], "short", "isara", "isara-seed2"),
        (
            *(["isara-seed1", "isara-seed2", "sft-seed1", "sft-seed2"], ["--outer_epochs", "all"]),
            *("isara, outer epoch 2", "sft, outer epoch 1", "sft-seed2"),
        ),
        (["sft-seed1", "sft-seed2"], ["--reference", "pretrained"], "sft", "pretrained", "sft-seed2"),
    ):
        found = compare(tmp_path, *(unequal[name] for name in names), *args)
        for measure in ("mc2", "answer_nll"):
            one = contrast(found, method, reference, measure)
            assert one["conclusion"] == "cannot tell", (method, measure)
            assert one["difference"]["difference"] == 0, (method, measure)
            assert (list(one["by_seed_set"]), one["unpaired"]) == (["easy"], ["hard"])
        said = " ".join(capsys.readouterr().out.split())
        assert f"{method} and {reference} are compared on the seed sets that both have (1)" in said
        assert f"lacks theirs: {unequal[left_out]}." in said


def test_a_measure_that_one_seed_set_lacks_is_paired_on_the_others(tmp_path, capsys):
    easy, hard = items(0.2, 0, 1, "easy"), items(-0.2, 0, 2, "hard")
    without = [{key: value for key, value in line.items() if key != "mc2"} for line in hard]
    paths = [
        write_run(tmp_path / f"{name}-seed{seed}", {1: lines}, generated)
        for name, generated, per_seed in (("isara", 1, (easy, hard)), ("sft", 0, (easy, without)))
        for seed, lines in enumerate(per_seed)
    ]
    found = compare(tmp_path, *paths)
    assert contrast(found, "isara", "sft", "mc2")["difference"]["difference"] == 0
    assert contrast(found, "isara", "sft", "answer_nll")["unpaired"] == []
    assert "MC2: isara and sft are compared on the seed sets that both have (1)" in capsys.readouterr().out


def test_every_outer_epoch_as_a_row(runs, tmp_path):
    found = compare(tmp_path, *runs, "--outer_epochs", "all", "--reference", "sft_seeds")
    assert [row["method"] for row in only(found)["rows"]] == [
        *("pretrained", "isara, outer epoch 1", "isara, outer epoch 2", "sft_seeds, outer epoch 1", "icl_knn")
    ]
    assert row(found, "isara, outer epoch 1")["values"]["mc2"] < row(found, "isara, outer epoch 2")["values"]["mc2"]
    first, second = (
        contrast(found, f"isara, outer epoch {outer_epoch}", "sft_seeds, outer epoch 1", "mc2")["difference"]
        for outer_epoch in (1, 2)
    )
    assert first["difference"] == pytest.approx(0, abs=0.03)
    assert second["difference"] == pytest.approx(0.1, abs=0.03)


def test_pooled_runs_count_with_their_own_last_outer_epoch(tmp_path, capsys):
    sft = write_run(tmp_path / "sft", {1: items(0, 0, 1)}, generated=0)
    long = write_run(tmp_path / "isara-seed1", {0: items(0, 0, 2), 3: items(0.2, 0, 3)}, generated=2)
    short = write_run(tmp_path / "isara-seed2", {0: items(0, 0, 4)}, generated=2)
    found = compare(tmp_path, sft, long, short)
    assert row(found, "isara")["outer_epochs"] == [0, 3]
    mean = sum(line["mc2"] for line in (*items(0.2, 0, 3), *items(0, 0, 4))) / (2 * ITEMS)
    assert row(found, "isara")["values"]["mc2"] == pytest.approx(mean)
    assert "isara-seed2 was not measured after training" in " ".join(capsys.readouterr().out.split())


def test_an_evaluation_of_the_pretrained_model_alone_is_no_figure_of_the_trained_one(tmp_path):
    isara = write_run(tmp_path / "isara", {0: items(0, 0, 1), 1: items(0, 0, 2)}, generated=1)
    harm = [{"question": f"Question {number}?", "harm_preference": 1.0} for number in range(ITEMS)]
    write_results(tmp_path / "isara", "harm_preference", 0, harm)
    found = compare(tmp_path, isara)
    rows = {each["name"]: [row["method"] for row in each["rows"]] for each in found["evaluations"]}
    assert rows == {"harm_preference": ["pretrained"], "truthfulness": ["pretrained", "isara"]}


@pytest.mark.parametrize("more", [[], ["--outer_epochs", "all"]])
def test_without_a_reference_the_first_sft_is_taken(tmp_path, more):
    measured = {0: items(0, 0, 1), 1: items(0, 0, 2), 2: items(0, 0, 3)}
    short, long = (write_run(tmp_path / name, measured, generated=0) for name in ("short", "long"))
    last = ", outer epoch 2" if more else ""
    assert compare(tmp_path, short, long, *more)["reference"] == f"short{last}"
    assert compare(tmp_path, long, short, *more)["reference"] == f"long{last}"


def test_figures_that_are_not_finite_are_counted_and_never_rewarded(tmp_path, capsys):
    lines = items(0.1, 0, 1)
    for line in lines[:20]:
        line["mc2"] = line["answer_nll"] = math.nan
    isara = write_run(tmp_path / "isara", {1: lines}, generated=1)
    sft = write_run(tmp_path / "sft", {1: items(0, 0, 2)}, generated=0)
    found = compare(tmp_path, isara, sft)
    assert row(found, "isara")["not_finite"] == {"mc2": 20, "answer_nll": 20}
    assert row(found, "isara")["values"]["mc2"] == pytest.approx(sum(line["mc2"] for line in lines[20:]) / ITEMS)
    assert contrast(found, "isara", "sft", "mc2")["conclusion"] == "worse"
    nll = contrast(found, "isara", "sft", "answer_nll")
    assert nll["not_finite"] == 20
    assert nll["difference"]["questions"] == ITEMS - 20
    assert abs(nll["difference"]["difference"]) < 0.1
    assert "not finite: 20" in capsys.readouterr().out


def test_clean_leaves_out_what_any_run_was_trained_on(tmp_path, capsys):
    seen = items(0, 0, 1)
    for line in seen[:10]:
        line.update(contaminated=True, mc2=1.0)
    isara = write_run(tmp_path / "isara", {1: seen}, generated=1)
    sft = write_run(tmp_path / "sft", {1: items(0, 0, 2)}, generated=0)
    assert contrast(compare(tmp_path, isara, sft), "isara", "sft", "mc2")["conclusion"] == "better"
    assert f"{ITEMS} items, 10 of them contaminated (--clean leaves them out)" in capsys.readouterr().out
    found = compare(tmp_path, isara, sft, "--clean")
    assert contrast(found, "isara", "sft", "mc2")["conclusion"] == "cannot tell"
    assert {row["method"]: row["items"] for row in only(found)["rows"]} == {"isara": ITEMS - 10, "sft": ITEMS - 10}


def test_items_that_share_a_question_all_count(tmp_path):
    shared = items(0, 0, 1)
    for number, line in enumerate(shared):
        line["question"] = f"Question {number // 3}?"
    sft = write_run(tmp_path / "sft", {1: shared}, generated=0)
    isara = write_run(tmp_path / "isara", {1: [line | {"mc2": line["mc2"] + 0.1} for line in shared]}, generated=1)
    found = compare(tmp_path, sft, isara)
    assert row(found, "sft")["items"] == ITEMS
    assert row(found, "sft")["values"]["mc2"] == pytest.approx(sum(line["mc2"] for line in shared) / ITEMS)
    assert contrast(found, "isara", "sft", "mc2")["difference"]["questions"] == ITEMS // 3


def test_csv_and_markdown_hold_the_same_figures(runs, tmp_path):
    paths = {name: tmp_path / "new" / f"table.{name}" for name in ("csv", "markdown")}
    found = compare(tmp_path, *runs, "--csv", str(paths["csv"]), "--markdown", str(paths["markdown"]))
    with paths["csv"].open(newline="") as file:
        lines = {(line["method"], line["measure"]): line for line in csv.DictReader(file)}
    assert len(lines) == 4 * 2
    isara, expected = lines["isara", "mc2"], contrast(found, "isara", "sft_seeds", "mc2")["difference"]
    assert (isara["evaluation"], isara["kind"], isara["runs"], isara["items"]) == (
        *("truthfulness", "self-generation", "2", str(ITEMS)),
    )
    for column in ("difference", "low", "high", "minimum_detectable_effect"):
        assert float(isara[column]) == pytest.approx(expected[column])
    assert (lines["sft_seeds", "mc2"]["difference"], lines["sft_seeds", "mc2"]["reference"]) == ("", "")
    markdown = paths["markdown"].read_text()
    interval = f"{expected['difference']:+.3f} [{expected['low']:+.3f}, {expected['high']:+.3f}]"
    assert f"| isara | MC2 ↑ | {interval} | better |" in markdown
    assert "- MC2: isara is better than sft_seeds by" in markdown
    assert found["command"]["resamples"] == 1000
    assert not list(tmp_path.rglob("*.unfinished"))


def grown(folder: Path, nll: float, candidates: list[int], **conditions) -> str:
    """Write a run of self-generation: its last outer epoch is measured, each with so many candidates."""
    measured = {len(candidates): items(0.0, nll, round(10 * nll))}
    recipe = {"data.candidates_per_outer_epoch": candidates[0], "model.objective": "sft", **conditions}
    path = write_run(folder, measured, generated=1, conditions=recipe)
    table = ["outer_epoch,candidates", *(f"{number},{count}" for number, count in enumerate(candidates, start=1))]
    (folder / "metrics.csv").write_text("\n".join(table) + "\n")
    return path


@pytest.mark.parametrize(
    ("one_shot", "conditions", "said"),
    [
        ([12], {}, True),
        ([12], {"seed_everything": 3}, True),
        ([11], {}, False),  # another budget
        ([12], {"data.question_context": "random"}, False),  # another method
        ([6, 6], {}, False),
    ],
)
def test_iterative_and_one_shot_of_as_many_candidates_are_held_against_each_other(
    tmp_path, capsys, one_shot, conditions, said
):
    runs = [grown(tmp_path / "loop", 0.0, [4, 4, 4]), grown(tmp_path / "once", 0.3, one_shot, **conditions)]
    found = compare(tmp_path, *runs, f"sft={write_run(tmp_path / 'sft', {1: items(0.0, 0.1, 5)})}", "--reference=sft")
    sentences = [text for text in only(found)["sentences"] if text.startswith("Iterative against one-shot")]
    expected = (
        "Iterative against one-shot, 12 candidates in 3 outer epochs or in one: loop against once (self-generation): "
        "better in answer NLL; this data cannot tell in MC2."
    )
    assert sentences == ([expected] if said else [])
    if said:
        one = contrast(found, "loop", "once", "answer_nll")
        assert one["conclusion"] == "better"
        assert one["difference"]["difference"] == pytest.approx(-0.3, abs=0.05)
        (tmp_path / "once/metrics.csv").write_text("outer_epoch\n\xff\n")  # damaged: nothing is said, nothing refused
        assert not [text for text in only(compare(tmp_path, *runs))["sentences"] if "one-shot" in text]


def test_missing_baselines_are_named_with_how_to_run_them(runs, tmp_path, capsys):
    isara = [path for path in runs if "isara" in path]
    found = compare(tmp_path, *isara)
    text = " ".join(capsys.readouterr().out.split())
    assert "configs/baselines/sft_seeds.yaml" in text
    assert "configs/baselines/icl_knn.yaml" in text
    assert "isara is better than pretrained" in text
    assert found["reference"] == "pretrained"
    compare(tmp_path, *(path for path in runs if path not in isara))
    assert "No run of self-generation" in capsys.readouterr().out


def test_equal_runs_are_said_to_be_equal(tmp_path, capsys):
    isara = write_run(tmp_path / "isara", {1: items(0, 0, 1)}, generated=1)
    sft = write_run(tmp_path / "sft", {1: items(0, 0, 1)}, generated=0)
    compare(tmp_path, isara, sft)
    assert f"MC2: this data cannot tell isara from sft: they are equal in all of {ITEMS} questions." in (
        capsys.readouterr().out
    )


def test_control_characters_of_a_name_do_not_reach_the_terminal(tmp_path, capsys):
    sft = write_run(tmp_path / "sft", {1: items(0, 0, 1)}, generated=0)
    run_command("compare", [f"bad\x1b[31m|name={sft}", *FAST, "--markdown", str(tmp_path / "table.md")])
    assert "\x1b" not in capsys.readouterr().out
    assert "bad\\x1b[31m\\|name" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize("name", ["isara-seed3", "isara_seed12", "isara-s3", "isara"])
def test_a_method_is_named_like_its_folder_without_the_seed(tmp_path, name):
    found = compare(tmp_path, write_run(tmp_path / name, {1: items(0, 0, 1)}, generated=1))
    assert [row["method"] for row in only(found)["rows"]] == ["isara"]


def test_bad_inputs_are_named(tmp_path):
    sft = write_run(tmp_path / "sft", {1: items(0, 0, 1)}, generated=0)
    other = [line | {"question": line["question"] + " Really?"} for line in items(0, 0, 1)]
    elsewhere = write_run(tmp_path / "elsewhere", {1: other}, generated=1)
    icl = write_run(tmp_path / "icl", {0: items(0, 0, 1, demonstrations=True)})
    empty = tmp_path / "empty"
    empty.mkdir()
    torn = write_run(tmp_path / "torn", {1: items(0, 0, 1)}, generated=1)
    (tmp_path / "torn/evaluation/truthfulness.jsonl").write_text('{"outer_epoch": 1}\n{"outer_ep\n')
    no_tokens = write_run(tmp_path / "tokens", {1: [line | {"answer_tokens": 0} for line in items(0, 0, 1)]})
    text = write_run(tmp_path / "text", {1: [line | {"mc2": "0.5"} for line in items(0, 0, 1)]})
    more = write_run(tmp_path / "more", {1: items(0, 0, 1)}, generated=0)
    write_results(tmp_path / "more", "harm_preference", 1, [{"question": "q", "harm_preference": 1.0}])
    for args, message in (
        ([str(tmp_path / "absent")], "names no run folder"),
        ([f"={sft}"], "names no run folder"),
        ([str(empty)], r"empty: no items in evaluation"),
        ([torn], r"truthfulness\.jsonl:2: damaged line"),
        ([no_tokens], r"truthfulness\.jsonl:1: `answer_tokens` is 0"),
        ([text], r"truthfulness\.jsonl:1: `mc2` is '0\.5'"),
        ([sft, "--reference", "stf"], r"no method is named 'stf'\. Did you mean 'sft'\?"),
        ([sft, elsewhere], r"'elsewhere' \(.*elsewhere\) and 'sft' \(.*sft\) have no question of 'truthfulness' in"),
        ([f"a={sft}", f"a={icl}"], "is SFT on the seeds and .* is ICL, but both are named 'a'"),
        ([f"a={sft}", f"a={more}"], r"different evaluations: .*\['truthfulness'\].*harm_preference"),
        ([sft, sft], "is given 2 times for 'sft'"),
        ([sft, "--resamples", "5"], "--resamples is 5; allowed: at least 100"),
        ([sft, icl, "--alpha"], "--alpha takes one run"),
        ([icl, "--alpha"], r"metrics\.csv: no such file"),
    ):
        with pytest.raises(InputError, match=message):
            run_command("compare", args)
