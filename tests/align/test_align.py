"""`isara-pl align` with a tiny model: every run of it, its files, its interruption."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from isara_pl.align import aligning, contestants
from isara_pl.cli.main import main
from isara_pl.run.files import POOL

QUESTIONS = [
    "What are the tides made by on the coast?",
    "Who first wrote a letter about rust?",
    "Where does good yeast come from?",
    "How do old glaciers move downhill?",
    "Why does a valley send an echo back?",
    "Can a magnet lose all of its pull?",
    "Which lichen grows on bare stone walls?",
    "When was the great comet seen by sailors?",
]
NAMES = ("icl_knn", "sft", "distill_seeds", "isara", "distill")


@pytest.fixture(scope="module")
def asked(tiny_llama, tiny_encoder, tmp_path_factory):
    """Give the arguments for a folder; whatever writes candidates writes few and short ones."""
    folder = tmp_path_factory.mktemp("asked")
    rows = [{"question": text, "answer": f"It was found in book {n}."} for n, text in enumerate(QUESTIONS)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    short = {f"{text}_sampling": {"max_new_tokens": 4} for text in ("question", "answer")}
    of_data = {"encoder": tiny_encoder, "max_length": 64, **short}
    (folder / "options.yaml").write_text(yaml.safe_dump({"data": of_data}))

    def give(to, *more):
        return [
            *("align", str(folder / "pairs.jsonl"), "--model.name", tiny_llama, "--to", str(to)),
            *("--config", str(folder / "options.yaml"), *more),
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(contestants._LOOP, "candidates_per_outer_epoch", 4)
        yield give


@pytest.fixture(scope="module")
def aligned(asked, tmp_path_factory):
    """A finished alignment, not to be written into."""
    folder = tmp_path_factory.mktemp("aligned") / "all"
    main(asked(folder))
    return folder


def test_every_contestant_is_a_run_on_every_fold_and_the_decision_is_written(aligned):
    decision = json.loads((aligned / "decision.json").read_text())
    assert [standing["name"] for standing in decision["standings"]] == ["pretrained", *NAMES]
    assert {standing["questions"] for standing in decision["standings"]} == {8}
    page = (aligned / "report.html").read_text()
    assert decision["sentences"][0] in page.replace("&#39;", "'")
    assert str(aligned.parent) not in page  # a page that is shown around says nothing of the machine
    for fold in ("fold-1", "fold-2"):
        for name in NAMES:
            assert (aligned / fold / name / "evaluation/truthfulness.jsonl").exists()
            assert (f'href="{fold}/{name}/report.html"' in page) == (name != "icl_knn")


def test_no_file_of_a_run_but_its_figures_holds_a_pair_of_the_fold_that_it_is_measured_on(aligned):
    for fold in (aligned / "fold-1", aligned / "fold-2"):
        held_out = [json.loads(line) for line in (fold / "held_out.jsonl").read_text().splitlines()]
        assert len(held_out) == 4
        for run in (fold / name for name in NAMES):
            read = [path for path in run.rglob("*") if path.is_file() and "evaluation" not in path.parts]
            texts = {path: path.read_bytes() for path in read}
            assert run / "config.yaml" in texts or run.name == "icl_knn"
            for pair in held_out:
                for text in (pair["question"], pair["answer"]):
                    assert not [path for path, content in texts.items() if text.encode() in content]
        seeds = (fold / "seeds.jsonl").read_text()
        assert not [pair for pair in held_out if pair["question"] in seeds]


def test_an_alignment_that_was_cut_off_decides_as_one_that_was_not(aligned, asked, tmp_path, monkeypatch):
    cut = tmp_path / "cut"
    shutil.copytree(aligned, cut)
    for path in (cut / "decision.json", cut / "report.html", cut / "fold-2/isara/finished.json"):
        path.unlink()
    shutil.rmtree(cut / "fold-2/distill")
    # where the run of `isara` was cut: its pool has a seed, and nothing generated yet
    pool = cut / "fold-2/isara" / POOL
    before = {path: path.read_bytes() for path in cut.glob("fold-1/*/pool.jsonl")}
    shutil.rmtree(pool.parent / "checkpoints")
    carried_out = []
    real = aligning.carry_out
    monkeypatch.setattr(aligning, "carry_out", lambda trial, run: carried_out.append(trial.folder) or real(trial, run))
    main(asked(cut))
    found, wanted = (json.loads((folder / "decision.json").read_text()) for folder in (cut, aligned))
    assert carried_out == [cut / "fold-2/isara", cut / "fold-2/distill"]
    assert found == json.loads(json.dumps(wanted).replace(str(aligned), str(cut)))
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit(130)])
def test_an_interrupted_alignment_says_how_it_goes_on(aligned, asked, tmp_path, monkeypatch, capsys, end):
    folder = tmp_path / "stopped"
    shutil.copytree(aligned, folder)
    (folder / "fold-2/distill/finished.json").unlink()

    def interrupted(words):
        raise end

    monkeypatch.setattr("isara_pl.cli.lightning.run", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(asked(folder))
    assert ended.value.code == 130
    assert "the same command goes on from here" in capsys.readouterr().out
    assert not (folder / "fold-2/distill/finished.json").exists()


def test_the_winner_is_trained_on_all_pairs_and_measured_on_the_held_out_file(
    aligned, asked, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "style"
    shutil.copytree(aligned, folder)
    others = tmp_path / "others.jsonl"
    rows = [{"question": f"What did sailor {n} see?", "answer": f"It was found in book {n}."} for n in range(4)]
    others.write_text("".join(json.dumps(row) + "\n" for row in rows))
    real = aligning.decide

    def sft_wins(*args, **options):
        decision = real(*args, **options)
        return type(decision)(decision.measure, decision.evaluation, decision.standings, "sft", "sft", "sft")

    monkeypatch.setattr(aligning, "decide", sft_wins)
    main(asked(folder))
    assert "held-out file" not in capsys.readouterr().out
    main(asked(folder, "--held_out", str(others)))  # who has further pairs later on gives the same command with them
    said = capsys.readouterr().out
    config = yaml.safe_load((folder / "best/sft/config.yaml").read_text())
    chosen = [json.loads(line) for line in (folder / "best/sft/pool.jsonl").read_text().splitlines()]
    assert [pair["question"] for pair in chosen] == QUESTIONS
    assert config["data"]["validation_share"] == 0
    assert 1 <= config["data"]["epochs_per_outer_epoch"] <= 4
    assert (folder / "best/sft/adapter/adapter_model.safetensors").exists()
    assert "The 4 questions of the held-out file" in said
    assert f"{folder / 'best/sft/adapter'}: the LoRA adapter" in said


def test_the_recipe_of_in_context_learning_can_be_used(aligned, asked, tmp_path, monkeypatch):
    import faiss

    folder = tmp_path / "icl"
    shutil.copytree(aligned, folder)
    real = aligning.decide

    def icl_wins(*args, **options):
        decision = real(*args, **options)
        return type(decision)(
            decision.measure, decision.evaluation, decision.standings, "icl_knn", "icl_knn", "icl_knn"
        )

    monkeypatch.setattr(aligning, "decide", icl_wins)
    main(asked(folder))
    pairs = [json.loads(line) for line in (folder / "best/demonstrations.jsonl").read_text().splitlines()]
    index = faiss.read_index(str(folder / "best/questions.faiss"))
    assert ([pair["question"] for pair in pairs], index.ntotal) == (QUESTIONS, 8)
    prompt = (folder / "best/prompt.txt").read_text()
    assert prompt.endswith(f"Question: {QUESTIONS[0]}\nAnswer:")
    assert prompt.count("Question: ") == 6  # with 5 demonstrations, of which it is none


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--decide_by", "mc3x"], "--decide_by: 'mc3x' is no measure. Allowed: mc1, "),
        (["--budget", "half"], "--budget: 'half' is no time. Allowed: a number with s, m or h behind it"),
        (["--folds", "3"], "holds another alignment: of another --folds"),
        (["--also", "nothing.yaml"], "--also: "),
    ],
)
def test_what_cannot_be_asked_for_is_told_and_changes_nothing(aligned, asked, more, said, capsys):
    before = {path: path.stat().st_mtime_ns for path in aligned.rglob("*")}
    with pytest.raises(SystemExit) as ended:
        main(asked(aligned, *more))
    assert ended.value.code != 0
    assert said in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in aligned.rglob("*")} == before


@pytest.mark.parametrize("wrong", ["a model of which nothing is here", "options with an encoder that is not there"])
def test_a_mistake_that_no_run_survives_does_not_bar_the_folder_to_the_right_command(
    wrong, asked, tmp_path, capsys, monkeypatch
):
    to, bad = tmp_path / "aligned", tmp_path / "bad.yaml"
    bad.write_text(yaml.safe_dump({"data": {"encoder": str(tmp_path / "nothing")}}))
    words = asked(to)
    place = words.index("--model.name" if "model" in wrong else "--config") + 1
    with pytest.raises(SystemExit):
        main([*words[:place], str(tmp_path / "nothing") if "model" in wrong else str(bad), *words[place + 1 :]])
    assert "probe" in capsys.readouterr().err

    class PlannedError(Exception):
        pass

    def plan(*_):
        raise PlannedError

    monkeypatch.setattr(aligning, "plan_within", plan)  # the probe has passed
    with pytest.raises(PlannedError):
        main(words)


@pytest.mark.parametrize(
    ("also", "said"),
    [
        (["sft={config}"], "sft is the name of another method"),
        (["{folder}/pretrained.yaml"], "pretrained is the name of another method"),
        (["longer={config}", "longer={config}"], "longer is the name of another method"),
        (["../outside={config}"], "'../outside' is no name for a method"),
        (["={config}"], "'' is no name for a method"),
        (["listed={folder}/listed.yaml"], "holds no options"),
    ],
)
def test_a_further_method_has_options_and_a_name_of_its_own(asked, tmp_path, also, said, capsys):
    for name, text in (("longer", "model: {learning_rate: 0.003}"), ("pretrained", "model: {}"), ("listed", "[1]")):
        (tmp_path / f"{name}.yaml").write_text(text)
    places = {"config": tmp_path / "longer.yaml", "folder": tmp_path}
    with pytest.raises(SystemExit):
        main(asked(tmp_path / "to", "--also", *(one.format(**places) for one in also)))
    assert said in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


def test_a_further_method_whose_options_changed_is_not_taken_for_the_finished_one(aligned, asked, tmp_path, capsys):
    folder, longer = tmp_path / "further", tmp_path / "longer.yaml"
    shutil.copytree(aligned, folder)
    data = {"candidates_per_outer_epoch": 0, "outer_epochs": 1, "prompt_format": "chat"}
    longer.write_text(yaml.safe_dump({"data": data, "trainer": {"callbacks": ["isara_pl.callbacks.TooShort"]}}))
    main(asked(folder, "--also", str(longer)))
    decision = json.loads((folder / "decision.json").read_text())
    assert [one["name"] for one in decision["standings"]] == ["pretrained", *NAMES, "longer"]
    longer.write_text(yaml.safe_dump({"data": {**data, "epochs_per_outer_epoch": 2}}))
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(asked(folder, "--also", str(longer)))
    assert "longer, part 1 of 2: " in (said := capsys.readouterr().err)
    assert "holds a finished run with other options" in said


def test_by_which_figure_is_decided_may_be_asked_again(aligned, asked, tmp_path, capsys):
    folder = tmp_path / "again"
    shutil.copytree(aligned, folder)
    main(asked(folder, "--decide_by", "scaled_nll"))
    assert json.loads((folder / "decision.json").read_text())["measure"] == "answer_nll_scaled"
    with pytest.raises(SystemExit):
        main(asked(folder, "--decide_by", "mc2"))
    assert "--decide_by: no run has mc2. Allowed with these pairs: answer_nll" in capsys.readouterr().err


def test_a_measure_that_these_pairs_cannot_have_is_told_after_the_probe(asked, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(asked(tmp_path / "to", "--decide_by", "mc2"))
    assert "--decide_by: no run has mc2" in capsys.readouterr().err
    assert not [*(tmp_path / "to").glob("fold-*/*/config.yaml")]


def test_a_held_out_file_that_cannot_be_used_is_told_before_anything_is_run(asked, tmp_path, capsys):
    others = tmp_path / "others.jsonl"
    others.write_text(json.dumps({"question": QUESTIONS[3], "answer": "In book 3."}) + "\n")
    with pytest.raises(SystemExit):
        main(asked(tmp_path / "to", "--held_out", str(others)))
    assert "--held_out: 1 of its items are pairs of SEEDS as well" in capsys.readouterr().err
    assert not [*tmp_path.glob("to/probe/*")]


def test_what_another_winner_left_does_not_stay_beside_the_new_one(aligned, asked, tmp_path, monkeypatch):
    folder = tmp_path / "changing"
    shutil.copytree(aligned, folder)
    real, winner = aligning.decide, "icl_knn"

    def it_wins(*args, **options):
        decision = real(*args, **options)
        return type(decision)(decision.measure, decision.evaluation, decision.standings, winner, winner, winner)

    monkeypatch.setattr(aligning, "decide", it_wins)
    main(asked(folder))
    assert (folder / "best/prompt.txt").exists()
    winner = "sft"
    main(asked(folder))
    assert (folder / "best/sft/adapter").exists()
    assert not (folder / "best/prompt.txt").exists()
    winner = "icl_knn"
    main(asked(folder))
    assert (folder / "best/prompt.txt").exists()
    assert not (folder / "best/sft").exists()


def test_pairs_with_equal_questions_and_columns_of_their_own_are_read_and_probed(asked, tmp_path):
    folder, words = tmp_path / "equal", asked(tmp_path / "to")
    folder.mkdir()
    texts = [*QUESTIONS, QUESTIONS[0], QUESTIONS[4], QUESTIONS[0], QUESTIONS[4]]
    rows = "".join(f'"{text}","It stood in book {n}."\n' for n, text in enumerate(texts))
    (folder / "pairs.csv").write_text(f"Frage,Antwort\n{rows}")
    options = yaml.safe_load(Path(words[words.index("--config") + 1]).read_text())
    options["data"]["columns"] = "question=Frage,answer=Antwort"
    (folder / "options.yaml").write_text(yaml.safe_dump(options))
    words[1], words[words.index("--config") + 1] = str(folder / "pairs.csv"), str(folder / "options.yaml")
    main(words)
    decision = json.loads((tmp_path / "to/decision.json").read_text())
    assert {standing["questions"] for standing in decision["standings"]} == {12}


LEFT_IN_MEMORY = """
import gc, sys
from transformers import LlamaForCausalLM
from isara_pl.cli.lightning import run
run(["validate", "--config", sys.argv[1], "--run_dir", sys.argv[2]])
gc.collect()
print("models:", sum(isinstance(thing, LlamaForCausalLM) for thing in gc.get_objects()))
"""


def test_a_run_that_measured_leaves_no_model_in_memory(aligned, tmp_path):
    words = [sys.executable, "-c", LEFT_IN_MEMORY, str(aligned / "fold-2/icl_knn.yaml"), str(tmp_path / "run")]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "models: 0"
