"""What llama.cpp and Ollama load: a GGUF file, by llama.cpp's own converter, and a Modelfile with the run's prompts."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from isara_pl.errors import InputError, printable
from isara_pl.export.merged_model import PlainModel
from isara_pl.growth.samples import Sample
from isara_pl.run.files import write_whole

GgufType = Literal["auto", "f32", "f16", "bf16", "q8_0"]
PART = "gguf"  # a folder of its own: beside a tokenizer's files transformers does not read that of a GGUF file
FILE, MODELFILE = "model.gguf", "Modelfile"
_CONVERTERS = ("convert_hf_to_gguf.py", "convert-hf-to-gguf")  # as llama.cpp calls it, and as packages do
_HOW = (
    "It is part of llama.cpp: git clone --depth 1 https://github.com/ggml-org/llama.cpp, then pip install "
    "sentencepiece, and --converter llama.cpp/convert_hf_to_gguf.py"
)
# stand for what is said; no template changes plain letters
_QUESTION, _ANSWER, _NEXT = "ISARAQUESTION", "ISARAANSWER", "ISARANEXT"


@dataclass(frozen=True)
class Converter:
    """Makes GGUF files by llama.cpp's converter.

    Attributes:
        command: The words that start it.
        kind: Type of the weights in the file.
    """

    command: Sequence[str]
    kind: GgufType

    @property
    def name(self) -> str:
        """The script or program."""
        return self.command[-1]

    def write(self, model: PlainModel, saved: Path, folder: Path) -> None:
        """Convert the model, `saved` in a folder, into a file in another folder, and write a Modelfile for Ollama.

        Raises:
            InputError: If the converter fails; the message has its last words.
        """
        folder.mkdir()
        file = folder / FILE
        asked = [*self.command, "--outfile", str(file), "--outtype", self.kind, str(saved)]
        nothing_asked = {**os.environ, "HF_HUB_OFFLINE": "1"}
        try:
            done = subprocess.run(
                asked, capture_output=True, text=True, errors="replace", env=nothing_asked, check=False
            )
        except OSError as error:
            raise InputError(f"--converter: {self.name} cannot be started: {error.strerror or error}") from None
        if done.returncode or not is_gguf(file):
            words = (done.stdout + done.stderr).strip().splitlines() or ["it says nothing"]
            raise InputError(
                f"--gguf: {self.name} did not convert the model (exit code {done.returncode}): "
                f"{printable(words[-1].strip()[:300])}. Another version of llama.cpp may; without --gguf all else is "
                "exported"
            )
        write_whole(folder / MODELFILE, modelfile(model))


def converter_of(kind: GgufType, given: str | None) -> Converter:
    """Give the converter that is named, else one on PATH. Raises InputError if there is none."""
    if given is not None and given.endswith(".py") and Path(given).is_file():
        return Converter([sys.executable, given], kind)  # this Python has torch; that of its first line may not
    for name in _CONVERTERS if given is None else (given,):
        if found := shutil.which(name):
            return Converter([found], kind)
    if given is not None:
        raise InputError(f"--converter: {given} is neither a script nor a program here. {_HOW}")
    raise InputError(f"--gguf: no converter is on PATH, neither {' nor '.join(_CONVERTERS)}. {_HOW}")


def is_gguf(file: Path) -> bool:
    """Whether a file is there and begins as GGUF does."""
    if not file.is_file():
        return False
    with file.open("rb") as content:
        return content.read(4) == b"GGUF"


def modelfile(model: PlainModel) -> str:
    """Give the Modelfile with which Ollama writes the run's prompts and answers as its `predict` does."""
    answering = model.generation_config
    drawn = ("temperature", "top_p", "top_k") if answering.do_sample else ()
    values = {
        **({} if drawn else {"temperature": 0}),
        **{name: getattr(answering, name) for name in drawn},
        "num_predict": answering.max_new_tokens,
        "repeat_penalty": answering.repetition_penalty,
    }
    added = model.tokenizer.added_tokens_decoder
    ends = ["\n"] if model.prompt_format.single_line else []
    ends += [str(added[token]) for token in answering.eos_token_id if token in added]
    parameters = [f"{name} {value}" for name, value in values.items()] + [f'stop """{text}"""' for text in ends]
    return "".join(
        [f"FROM ./{FILE}\n", f'TEMPLATE """{_template(model)}"""\n', *(f"PARAMETER {line}\n" for line in parameters)]
    )


def _template(model: PlainModel) -> str:
    """Give the run's prompt format as a template of Go, from what it writes around questions and answers."""
    texts = model.prompt_format
    opened = texts.answer_prompt(_QUESTION)
    turns = texts.answer_prompt(_NEXT, [Sample("", _QUESTION, _ANSWER)])
    before, _, open_answer = opened.partition(_QUESTION)
    before_answer, _, rest = turns.partition(_QUESTION)[2].partition(_ANSWER)
    between = rest.partition(_NEXT)[0]
    # what stands before every question, and not before the first alone
    question = next(before[place:] for place in range(len(before) + 1) if between.endswith(before[place:]))
    start, ending = before.removesuffix(question), between.removesuffix(question)
    start, question, before_answer, ending, open_answer = map(
        _literal, (start, question, before_answer, ending, open_answer)
    )
    return (
        f'{start}{{{{ range .Messages }}}}{{{{ if eq .Role "user" }}}}{question}{{{{ .Content }}}}'
        f'{{{{ else if eq .Role "assistant" }}}}{before_answer}{{{{ .Content }}}}{ending}{{{{ end }}}}{{{{ end }}}}'
        f"{open_answer}"
    )


def _literal(text: str) -> str:
    r"""Write what means something in a template or ends it as text in an action: `{{` as `{{ "{{" }}`."""
    return re.sub(r'\{\{|"""', lambda found: '{{ "' + found[0].replace('"', r"\"") + '" }}', text)
