"""What README, CONTRIBUTING and docs/ say of the project is there; `test_documented_commands.py` runs what they show."""

import inspect
import re
from types import SimpleNamespace

import pytest
import torch
from conftest import make_seeds
from helpers.documents import DOCUMENTS, ROOT, anchors, blocks, links, prose, section, text_of
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from transformers import AutoModelForCausalLM, AutoTokenizer

from isara_pl.cli.main import main
from isara_pl.evaluation.choice_scores import Question, choice_scores, scores_by
from isara_pl.growth.pool import SamplePool
from isara_pl.growth.samples import Sample, read_samples


def code_with(document: str, word: str) -> str:
    (found,) = [block.text for block in blocks(document) if block.kind == "python" and word in block.text]
    return found


def test_a_plain_lightning_module_for_the_loop_takes_thirty_lines():
    code = code_with("docs/LIGHTNING.md", "class MyModule")
    module = code[code.index("class MyModule") : code.index("trainer = Trainer")]
    assert len(module.strip().splitlines()) <= 30
    assert "isara_pl" not in module


def test_the_filter_of_ten_lines_filters():
    code = code_with("docs/LIGHTNING.md", "class NoDigits")
    assert len(code[code.index("class NoDigits") :].strip().splitlines()) <= 10
    names: dict = {}
    exec(code, names)
    pool = SamplePool(make_seeds())
    verdict = names["NoDigits"](most=1).verdict
    assert verdict(Sample("1-00000", "Is 7 a number?", "Yes."), pool).reason is None
    assert verdict(Sample("1-00000", "Is 77 a number?", "Yes."), pool).reason == "digits in the question"


def test_the_score_of_ten_lines_scores_as_ours_does(tiny_llama):
    code = code_with("docs/LIGHTNING.md", "def score")
    assert len(code.strip().splitlines()) <= 10
    names: dict = {}
    exec(code, names)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    own = SimpleNamespace(model=model, tokenizer=AutoTokenizer.from_pretrained(tiny_llama), device=torch.device("cpu"))
    own.score = names["score"].__get__(own)
    questions = [Question("Question: Why?\nAnswer:", (" So.", " Because it is.")), Question("How?", (" Well.",))]
    found = scores_by(own, questions, batch_size=2)
    ours = choice_scores(model, own.tokenizer, questions, batch_size=2)
    assert [[one.tokens for one in of_one] for of_one in found] == [[one.tokens for one in of_one] for of_one in ours]
    for of_found, of_ours in zip(found, ours, strict=True):
        assert [one.log_probability for one in of_found] == pytest.approx([one.log_probability for one in of_ours])


def test_growth_alone_takes_a_generator_of_ten_lines_and_no_lightning_of_its_own():
    code = code_with("docs/LIGHTNING.md", "class Generator")
    generate = code[code.index("    def generate") : code.index("pool = SamplePool")]
    assert len(generate.strip().splitlines()) <= 10
    assert "lightning" not in code.lower()


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_every_link_leads_somewhere(document):
    for target in links(document):
        path, _, anchor = target.partition("#")
        file = ((ROOT / document).parent / path).resolve() if path else ROOT / document
        assert file.exists(), f"{document}: {target}"
        if anchor:
            assert anchor in anchors(file.relative_to(ROOT).as_posix()), f"{document}: {target}"


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_every_file_of_the_project_that_is_named_exists(document):
    named = re.findall(
        r"(?<![\w/.])((?:configs|scripts|tests|callbacks|docs|isara_pl)/[\w/.-]*\w\.\w+)", text_of(document)
    )
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_every_option_that_is_named_exists(capsys):
    # pip's --no-deps, what stands for itself, vLLM's --max-lora-rank, torchrun's, docker's
    known = {"no", "version", "max", "node_rank", "build", "network", "stop", "user"}
    for subcommand in ("fit", "quickstart", "align", "compare", "report", "export", "evaluate", "serve"):
        with pytest.raises(SystemExit):
            main([subcommand, "--help"])
        known |= set(re.findall(r"--([\w.]+)", capsys.readouterr().out))
    for logger in (TensorBoardLogger, WandbLogger):  # `fit --help` knows of no chosen one
        known |= {f"trainer.logger.{name}" for name in inspect.signature(logger).parameters}
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "scripts").glob("*.py"))
    of_scripts = set(re.findall(r'add_argument\(\s*"--(\w+)"', sources))
    for document in [*DOCUMENTS, "CHANGELOG.md"]:
        # what stands in commands is run
        named = set(re.findall(r"--([a-z_]+(?:\.[a-z_]+)*)", "\n".join(prose(document))))
        assert named - known - (of_scripts if "python scripts/" in text_of(document) else set()) == set(), document


def test_the_table_of_configs_has_all_of_them():
    named = set(re.findall(r"`(configs/[\w/.]+)`", section("docs/OPTIONS.md", "Configs")))
    assert named == {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}


def test_every_shape_on_the_page_of_files_is_read_as_it_says(tmp_path):
    rows = re.findall(r"^\| [^|]+ \| `(\{.*\})` \| ([^|]+) \| ([^|]+) \|$", text_of("docs/DATA.md"), re.MULTILINE)
    assert len(rows) == 12
    for row, question, answer in rows:
        (tmp_path / "a.jsonl").write_text(row, encoding="utf-8")
        (sample,) = read_samples(tmp_path / "a.jsonl")
        assert (sample.question, sample.answer) == (question.replace("⏎", "\n"), answer), row


def test_every_figure_of_the_gallery_is_one_of_the_results():
    figures = set(re.findall(r"(?<= )\d?\.\d{3}(?= )", text_of("docs/GALLERY.md")))
    assert len(figures) == 14
    assert {figure for figure in figures if figure not in text_of("docs/RESULTS.md")} == set()


def test_the_index_has_every_page():
    named = set(re.findall(r"\((docs/\w+\.md)\)", section("README.md", "Further pages")))
    assert named == {document for document in DOCUMENTS if document.startswith("docs/")}


def test_the_quickstart_data_are_whole():
    seeds = read_samples(ROOT / "isara_pl/quickstart/seeds.jsonl")
    held_out = read_samples(ROOT / "isara_pl/quickstart/held_out.jsonl")
    assert (len(seeds), len(held_out)) == (64, 100)
    for item in seeds + held_out:
        assert item.correct_answers[0] == item.answer
        assert item.incorrect_answers
        assert not set(item.correct_answers) & set(item.incorrect_answers)
    assert len({item.question for item in seeds + held_out}) == 164
    assert not {item.answer for item in seeds} & {text for item in held_out for text in item.correct_answers}
