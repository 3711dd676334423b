import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml
from helpers.report_runs import accepted, write_run

from isara_pl.callbacks.report_writer import ReportWriter
from isara_pl.cli.commands import run_command
from isara_pl.errors import InputError
from isara_pl.growth.retrieval import SentenceEncoder
from isara_pl.report import page
from isara_pl.report.gather import gather
from isara_pl.results.run import Run

MEASURED = ("TruthfulnessEvaluation", {"max_new_tokens": 0})


@pytest.fixture
def copy(undisturbed, tmp_path) -> Path:
    return shutil.copytree(undisturbed, tmp_path / "run")


def test_the_command_writes_what_the_run_wrote(copy, undisturbed, capsys):
    (copy / "report.html").unlink()
    run_command("report", [str(copy)])
    assert (copy / "report.html").read_bytes() == (undisturbed / "report.html").read_bytes()
    assert str(undisturbed.parent) not in (copy / "report.html").read_text()
    assert "Why did it stop? All 2 outer epochs were done" in capsys.readouterr().out


def test_it_is_written_for_each_outer_epoch_and_each_validation(run, monkeypatch):
    written = []
    render = page.render
    monkeypatch.setattr(page, "render", lambda report: written.append(report) or render(report))
    folder = run("fit", [MEASURED])
    assert [len(report.grown) for report in written] == [1, 2]
    assert "1 of 2 outer epochs trained" in written[0].findings[1].answer
    assert [*written[0].curves[0].outer_epochs] == [0, 1]
    (folder / "report.html").unlink()
    run("validate", [MEASURED], "--ckpt_path=last")
    assert (folder / "report.html").exists()


def test_it_is_written_when_the_alpha_rule_ends_a_run(run):
    folder = run("fit", [("TooShort", {"min_words": 50})], "--alpha_stopping.alpha=0.5", held_out=None)
    assert "so nothing was trained: 0 of 4 candidates accepted" in (folder / "report.html").read_text()


def test_a_report_that_fails_ends_no_run(copy, tiny_encoder, monkeypatch):
    trainer = SimpleNamespace(default_root_dir=copy, is_global_zero=True, fast_dev_run=False)
    data = SimpleNamespace(trained_outer_epochs=2, encoder=SentenceEncoder(tiny_encoder))
    monkeypatch.setattr("isara_pl.callbacks.report_writer.data_of", lambda trainer, callback: data)

    def failing(error):
        def fail(report):
            raise error

        return fail

    monkeypatch.setattr(page, "render", failing(RuntimeError("no ink")))
    with pytest.warns(UserWarning, match=r"report\.html could not be written \(RuntimeError: no ink\)"):
        ReportWriter().on_fit_end(trainer, None)
    monkeypatch.setattr(page, "render", failing(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        ReportWriter().on_fit_end(trainer, None)


def test_baselines_are_refused_before_anything_runs(undisturbed, tmp_path):
    assert ReportWriter([f"other={undisturbed}"]).baselines == [("other", undisturbed)]
    with pytest.raises(InputError, match=r"Did you mean .*run"):
        ReportWriter([str(undisturbed) + "s"])
    with pytest.raises(InputError, match="nothing to compare"):
        ReportWriter([str(tmp_path)])


def test_the_command_compares_and_writes_elsewhere(copy, undisturbed, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    run_command("report", [str(copy), "--baselines", f"twin={undisturbed}", "--to", str(tmp_path / "out" / "it.html")])
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
    text = (tmp_path / "out" / "it.html").read_text()
    assert "this data cannot tell outer epoch 2 from twin" in text
    assert str(tmp_path) not in text
    assert str(undisturbed.parent) not in text


def test_a_wrong_folder_is_told_with_the_nearest_one(copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    copy.rename(tmp_path / "runs" / "mine")
    for typed in ("runs/mime", "mine", "ruins/mine"):
        with pytest.raises(InputError, match=r"is no folder\. Did you mean runs/mine\?"):
            run_command("report", [typed])
    with pytest.raises(InputError, match=r"no pool\.jsonl\. These folders inside of it have one: runs/mine\."):
        run_command("report", ["runs"])


def test_an_encoder_that_is_not_here_is_not_asked_for(tmp_path, capsys, monkeypatch):
    folder = write_run(tmp_path / "run", pool=[accepted(1, 0)])
    asked = []

    def no_network(name, local_files_only=False):
        asked.append((name, local_files_only))
        raise FileNotFoundError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    monkeypatch.setattr("isara_pl.report.curves.snapshot_download", no_network)
    for name in ("nobody/nothing", str(tmp_path / "gone")):
        (folder / "conditions.json").write_text(json.dumps({"data.encoder": name}))
        (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"encoder": name}}))
        run_command("report", [str(folder)])
        assert "no map: " in capsys.readouterr().out
        text = (folder / "report.html").read_text()
        assert f"No map: the sentence encoder {name if 'nobody' in name else 'gone'} was not at hand" in text
    assert asked == [("nobody/nothing", True)]


def test_what_a_model_wrote_does_not_steer_the_terminal(tmp_path, capsys):
    run_command("report", [str(write_run(tmp_path / "run", pool=[accepted(1, 0, question="red \x1b[31m word")]))])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "red \\x1b[31m word" in printed


def test_the_line_of_in_context_learning_is_measured_with_its_demonstrations(run, copy):
    icl = run("validate", [("TruthfulnessEvaluation", {"demonstrations": 2, "max_new_tokens": 0})], name="icl")
    (curve,) = [one for one in gather(Run(copy), [("icl", icl)], None).curves if one.name == "answer_nll"]
    with (icl / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["best_answer_nll"] != row["answer_nll"]
    assert curve.baselines == {"icl": pytest.approx(float(row["best_answer_nll"]), abs=1e-6)}
