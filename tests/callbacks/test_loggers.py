"""What TensorBoard, Weights & Biases, CSV and other loggers hold of a run, read back from their files."""

import csv
import json
import math
from html.parser import HTMLParser
from pathlib import Path

import pytest
import wandb
import yaml
from conftest import make_seeds, write_held_out, write_options, write_seeds
from helpers.command_line import UNMEASURED, before_call, fit
from lightning.pytorch.loggers import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdowns_to_safe_html
from tensorboard.util.tensor_util import make_ndarray

from isara_pl.callbacks.sample_logger import SampleLogger
from isara_pl.errors import InputError, printable
from isara_pl.generation.protocol import Completion
from isara_pl.growth.pool import Rejected, SamplePool, Verdict
from isara_pl.growth.samples import Sample
from isara_pl.module import IsaraModule
from isara_pl.report.tables import COLUMNS, drawn_rows, markdown

# three, so that the second outer epoch has nothing new to say, and the α rule ends it
HOSTILE = (
    "Why is <script>hacked()</script> | a pipe?",
    "What does **bold** [link](javascript:alert) mean, <b>really</b>?",
    "Is $x^2$ \x1b[31mred \u202eor `code` &amp; &#124; _more_ \\| ?",
)
COUNT = "rejected/NearDuplicate"


METRICS: list[tuple[int, dict[str, float]]] = []
HYPERPARAMETERS: list[dict[str, object]] = []


class Remembering(Logger):
    """A logger of somebody else, with what Lightning asks for and nothing more."""

    name = "remembering"
    version = 0

    def log_metrics(self, metrics, step=None):
        METRICS.append((step, dict(metrics)))

    def log_hyperparams(self, params, *args, **kwargs):
        HYPERPARAMETERS.append(dict(params))


def hostile(self, prompts, sampling, seeds):
    return [Completion(f" {HOSTILE[seed % len(HOSTILE)]}", finished=True) for seed in seeds]


@pytest.fixture(scope="module")
def logged(tiny_llama, tiny_encoder, tmp_path_factory):
    """Give the folder of a run with four loggers, whose model writes hostile text."""
    folder = tmp_path_factory.mktemp("logged")
    options = write_options(folder, tiny_llama, tiny_encoder, write_seeds(folder), write_held_out(folder))
    loggers = [
        {"class_path": f"lightning.pytorch.loggers.{name}", "init_args": {"save_dir": str(folder / "run"), **more}}
        for name, more in (
            ("TensorBoardLogger", {"name": "tensorboard"}),
            ("CSVLogger", {"name": "csv"}),
            ("WandbLogger", {"offline": True}),
        )
    ]
    loggers.append({"class_path": f"{__name__}.Remembering"})
    (folder / "loggers.yaml").write_text(yaml.safe_dump({"trainer": {"logger": loggers}}))
    with pytest.MonkeyPatch.context() as patch:
        settings = {"MODE": "offline", "SILENT": "true", "CONSOLE": "off", "ERROR_REPORTING": "false"}
        outside = {f"{kind}_DIR": str(folder / "outside") for kind in ("CACHE", "DATA", "CONFIG")}
        for name, value in {**settings, **outside}.items():
            patch.setenv(f"WANDB_{name}", value)
        patch.setattr(IsaraModule, "generate", hostile)
        fit(folder / "run", options, f"--config={folder / 'loggers.yaml'}", "--data.epochs_per_outer_epoch=1")
        wandb.finish()
        wandb.teardown()
    return folder / "run"


def entries(run_dir: Path, name: str, outer_epoch: int) -> list[dict]:
    lines = map(json.loads, (run_dir / name).read_text().splitlines())
    return [line for line in lines if line["outer_epoch"] == outer_epoch]


def table_of(run_dir: Path, outer_epoch: int) -> list[list]:
    """What the table of an outer epoch must hold, from the run's own files; all of it is fewer than 20."""
    accepted, rejected = (entries(run_dir, name, outer_epoch) for name in ("pool.jsonl", "rejected.jsonl"))
    return [
        *(["accepted", one["id"], one["question"], one["answer"], None, None, None] for one in accepted),
        *(["rejected", *(one[name] for name in COLUMNS[1:])] for one in rejected),
    ]


class Cells(HTMLParser):
    """The texts of the cells of the tables in a page, and all tags of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        match tag:
            case "tr":
                self.rows.append([])
            case "td" | "th":
                self.rows[-1].append("")
            case "br":
                self.rows[-1][-1] += "\n"

    def handle_data(self, data):
        if self.rows and self.rows[-1] and data.strip("\n"):
            self.rows[-1][-1] += data


def as_text(value: str | float | None) -> str:
    if value is None:
        return ""
    return printable(value) if isinstance(value, str) else f"{value:.4g}"


def shown_by_tensorboard(text: str) -> Cells:
    return Cells(markdowns_to_safe_html([text], lambda pages: pages[0]))


def test_tensorboard_holds_scalars_and_tables_with_hostile_text_as_it_is(logged):
    events = EventAccumulator(str(logged / "tensorboard/version_0"), {"scalars": 0, "tensors": 0}).Reload()
    tags = events.Tags()
    assert {"novelty", "accepted", "candidates", COUNT, "answer_nll", "train_loss"} <= {*tags["scalars"]}
    rejected = [len(entries(logged, "rejected.jsonl", outer_epoch)) for outer_epoch in (1, 2)]
    assert [event.value for event in events.Scalars(COUNT)] == rejected
    assert rejected[1] == 6  # the outer epoch that the α rule ended is logged as well
    assert events.Scalars("novelty")[-1].value == 0
    texts = [make_ndarray(event.tensor_proto).item().decode() for event in events.Tensors("samples/text_summary")]
    for outer_epoch, text in enumerate(texts, start=1):
        shown = shown_by_tensorboard(text)
        assert shown.rows == [[*COLUMNS], *([as_text(value) for value in row] for row in table_of(logged, outer_epoch))]
        assert shown.tags <= {"table", "thead", "tbody", "tr", "th", "td"}
    assert len(texts) == 2
    assert "hacked" in texts[1]
    assert "data.demonstrations: 2" in (logged / "tensorboard/version_0/hparams.yaml").read_text()


def test_wandb_offline_holds_tables_in_the_run_folder(logged):
    found = logged.glob("wandb/offline-run-*/files/media/table/samples_*.table.json")
    tables = [json.loads(path.read_text()) for path in sorted(found, key=lambda path: int(path.name.split("_")[1]))]
    assert [table["columns"] for table in tables] == [[*COLUMNS]] * 2
    assert [table["data"] for table in tables] == [table_of(logged, 1), table_of(logged, 2)]


def csv_rows(folder: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for path in sorted(folder.glob("version_*/metrics.csv")):
        with path.open() as file:
            rows += csv.DictReader(file)
    return rows


def test_csv_holds_novelty_and_what_each_filter_took(logged):
    rows = [row for row in csv_rows(logged / "csv") if row[COUNT]]
    assert [(row["outer_epoch"], row["candidates"]) for row in rows] == [("1", "6"), ("2", "6")]
    for row in rows:
        assert int(row["accepted"]) + int(row[COUNT]) == 6
        assert float(row["novelty"]) == int(row["accepted"]) / 6


def test_any_other_logger_gets_all_figures_in_order_and_the_hyperparameters_once(logged):
    steps = [step for step, _ in METRICS]
    assert steps == sorted(steps)
    names = {name for _, row in METRICS for name in row}
    assert {COUNT, "novelty", "accepted", "train_loss", "answer_nll", "mc2"} <= names
    [options] = HYPERPARAMETERS
    assert options["data.demonstrations"] == 2
    assert options["model.learning_rate"] == 0.01
    assert options["alpha_stopping.alpha"] == 0.1
    assert options["filters"] == ["NearDuplicate(threshold=0.7, against='pool')"]


def interrupt() -> None:
    raise KeyboardInterrupt


# while it trains on what it has logged; when all candidates are on disk, but nothing is logged
@pytest.mark.parametrize(("owner", "method"), [(IsaraModule, "training_step"), (SamplePool, "rejected")])
def test_a_growth_is_logged_once_although_the_run_is_interrupted(options, tmp_path, monkeypatch, owner, method):
    few = [*options, UNMEASURED, "--data.outer_epochs=1", "--data.epochs_per_outer_epoch=1"]
    with monkeypatch.context() as patch:
        before_call(patch, owner, method, 1, interrupt)
        with pytest.raises(SystemExit):
            fit(tmp_path / "run", few)
    fit(tmp_path / "run", few, "--ckpt_path=last")
    assert [row["outer_epoch"] for row in csv_rows(tmp_path / "run/logs") if row.get(COUNT)] == ["1"]


# -- tables


def test_every_character_stands_literally_in_a_table():
    letters = "".join(map(chr, range(1, 0x250))).replace("\n", "") + "\u2028\u202e\x7f\ud7ff\ufffe"
    texts = [letters, "a\nb\r\nc", "| --- |", "<br>", "- x", "1. x", "http://x.y", "![x](y)", "[x]: y", "*[x]: y"]
    shown = shown_by_tensorboard(markdown([["accepted", text, "", "", None, math.nan, None] for text in texts]))
    assert [row[1] for row in shown.rows[1:]] == [printable(text.replace("\r\n", "\n")).strip() for text in texts]
    assert {row[5] for row in shown.rows[1:]} == {"nan"}
    assert shown.tags == {"table", "thead", "tbody", "tr", "th", "td", "br"}


def test_the_draw_of_a_table_follows_from_the_seed_and_is_of_one_outer_epoch(tmp_path):
    pool = SamplePool(make_seeds(), tmp_path)
    samples = [Sample(f"{1 + i % 2}-{i:05d}", f"Question {i}?", "Yes.", 1 + i % 2) for i in range(80)]
    accepted, rejected = samples[:40], [Rejected(sample, "TooShort", Verdict(2, "short")) for sample in samples[40:]]
    for sample in accepted:
        pool.add(sample)
    pool.record(accepted, rejected)
    rows = drawn_rows(pool, 2, 5, seed=3)
    assert rows == drawn_rows(pool, 2, 5, seed=3) != drawn_rows(pool, 2, 5, seed=4)
    assert [row[0] for row in rows] == ["accepted"] * 5 + ["rejected"] * 5
    ids = [row[1] for row in rows]
    assert ids == sorted(ids)
    assert {name[0] for name in ids} == {"2"}
    assert [row[4:] for row in rows[5:]] == [["TooShort", 2, "short"]] * 5
    assert drawn_rows(pool, 2, 0, seed=3) == []


def test_a_negative_number_of_samples_is_refused():
    with pytest.raises(InputError, match="allowed: at least 0"):
        SampleLogger(samples=-1)
