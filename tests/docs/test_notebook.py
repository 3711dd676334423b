"""The notebook runs from its first cell to its last, in a kernel, on a tiny model; a cell may be stopped and run again."""

import shlex
from html.parser import HTMLParser
from importlib.util import find_spec

import nbformat
import pytest
from conftest import write_held_out, write_seeds
from helpers.documents import ROOT, links_in
from helpers.reader import check_pip
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

NOTEBOOK = ROOT / "docs/notebooks/your_first_alignment.ipynb"
WIDGET = "application/vnd.jupyter.widget-view+json"
# the button ■, pressed in the loop's first training step; and a tiny model says few words
STOPPED_ONCE = """
import os, signal
from isara_pl.callbacks import TooShort
from isara_pl.growth.pool import Verdict
from isara_pl.module import IsaraModule
TooShort.verdict = lambda *_: Verdict(0.0)
training_step = IsaraModule.training_step
def stopped(self, *given):
    IsaraModule.training_step = training_step
    os.kill(os.getpid(), signal.SIGINT)
    return training_step(self, *given)
IsaraModule.training_step = stopped
"""


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def of_kind(notebook: NotebookNode, kind: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def test_the_notebook_has_eight_cells_and_nothing_that_came_of_them(notebook):
    code = of_kind(notebook, "code")
    assert len(code) == 8
    assert [(cell.outputs, cell.execution_count) for cell in code] == [([], None)] * 8


def test_what_the_notebook_says_of_files_and_packages_is_there(notebook):
    text = "\n".join(cell.source for cell in of_kind(notebook, "markdown"))
    assert len(links_in(text)) > 4
    assert [link for link in links_in(text) if not (NOTEBOOK.parent / link).exists()] == []
    commands = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    for words in map(shlex.split, commands):
        assert words[:2] == ["pip", "install"]
        check_pip(words[2:])
    assert len(commands) == 2


class Frames(HTMLParser):
    """The pages in the frames of a cell's output."""

    def __init__(self, shown: str) -> None:
        super().__init__()
        self.pages: list[str] = []
        self.tags: list[str] = []
        self.feed(shown)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.pages += [value for name, value in attrs if name == "srcdoc"]


def said(cell: NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def shown(cell: NotebookNode) -> str:
    (result,) = [output for output in cell.outputs if output.output_type == "execute_result"]
    return result.data.get("text/html", result.data["text/plain"])


def bars_left(notebook: NotebookNode, cell: NotebookNode) -> list[str]:
    """What the bars say that stay below a cell."""
    states = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"].state

    def state(reference: str) -> NotebookNode:
        return states[reference.removeprefix("IPY_MODEL_")].state

    boxes = [state(output.data[WIDGET].model_id) for output in cell.outputs if WIDGET in output.get("data", {})]
    return [
        state(box.children[0]).value.replace("\u2007", " ")
        for box in boxes
        if state(box.layout).get("visibility") != "hidden"
    ]


@pytest.mark.slow  # a process of its own, two fits and an export
def test_the_notebook_runs_and_a_cell_that_was_stopped_goes_on(notebook, speaker, tiny_encoder, tmp_path):
    given = {"model": speaker, "seeds": write_seeds(tmp_path), "held_out": write_held_out(tmp_path), "alpha": 0.0}
    cheap = {"candidates_per_outer_epoch": 8, "outer_epochs": 1, "epochs_per_outer_epoch": 2, "encoder": tiny_encoder}
    parameters, pairs, sft, loop, figures, samples, report, exported = of_kind(notebook, "code")
    assert set(given) <= {line.split(" = ")[0] for line in parameters.source.splitlines()}
    parameters.source += "".join(f"\n{name} = {value!r}" for name, value in {**given, "growing": cheap}.items())
    notebook.cells.insert(notebook.cells.index(loop), new_code_cell(STOPPED_ONCE))
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    places = {id(cell): place for place, cell in enumerate(notebook.cells)}

    def execute(*cells: NotebookNode) -> None:
        for cell in cells:
            client.execute_cell(cell, places[id(cell)])

    run = tmp_path / "runs/first_alignment/loop"
    with client.setup_kernel():
        execute(parameters, pairs, sft, notebook.cells[places[id(loop)] - 1])
        with pytest.raises(CellExecutionError, match="SystemExit"):
            execute(loop)
        assert "safe in runs/first_alignment/loop" in said(loop)
        assert not (run / "adapter").exists()
        kept = (run / "pool.jsonl").read_bytes()
        execute(loop)
        assert "not generated again" in said(loop)
        assert (run / "pool.jsonl").read_bytes() == kept
        trained = (run / "adapter/adapter_model.safetensors").read_bytes()
        execute(loop)
        assert "outer epoch 1" in said(loop)  # the figures again
        assert (run / "adapter/adapter_model.safetensors").read_bytes() == trained
        execute(figures, samples, report, exported)
        client.set_widgets_metadata()
    assert "loop against sft" in said(figures)
    assert shown(samples).count("<tr") > 1
    assert Frames(shown(report)).pages == [(run / "report.html").read_text()]
    assert Frames(shown(report)).tags == ["div", "iframe"]  # nothing of the page is beside its frame
    assert "model.safetensors" in shown(exported)
    if find_spec("ipywidgets"):
        measured, trained = bars_left(notebook, sft)  # one for each of Lightning's loops, and none of the stages
        assert (measured[:10], trained[:18]) == ("Validation", "outer epoch 1 of 1")
