"""All of an export, on disk as a whole or not at all, and then on the Hugging Face hub."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi
from safetensors import SafetensorError

from isara_pl.errors import InputError, first_line, printable
from isara_pl.export.cards import Publication, base_name, card
from isara_pl.export.finished_run import ADAPTER, ADAPTER_FILES, FinishedRun, at_rest, read_run
from isara_pl.export.gguf_file import FILE, MODELFILE, PART, Converter
from isara_pl.export.merged_model import NF4, PlainModel, dtype_of_base, is_quantised, merged_model
from isara_pl.export.pairs import write_pairs
from isara_pl.export.preferences import write_preferences
from isara_pl.models.loading import quieten
from isara_pl.run.files import write_whole
from isara_pl.run.memory import is_out_of_memory

# the folders of an export, and what lies there
_PARTS = {
    "adapter": "LoRA adapter, for peft.PeftModel.from_pretrained",
    "model": "merged model with its tokenizer, for transformers.AutoModelForCausalLM.from_pretrained",
    "dataset": "all pairs, as prompt/completion and as messages, for datasets.load_dataset",
}
_REPOSITORY_TYPES = {"model": "model", "adapter": "model", "dataset": "dataset"}


def export(
    folder: Path,
    target: Path,
    license: str | None,
    repository: str | None,
    preferences: bool = False,
    converter: Converter | None = None,
) -> None:
    """Export a run folder into a new or an empty folder, and say what is done.

    Cards without a `license` name none; without a `repository`, `OWNER/NAME`, nothing is pushed. `preferences` lets the
    model answer every question, for pairs of answers to prefer one of. A `converter` makes a GGUF file as well.

    Raises:
        InputError: If the run cannot be exported. A failed push leaves the export on disk.
    """
    quieten()
    publication = Publication(license, repository)
    try:
        _write(folder, target, publication, preferences, converter)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"the memory does not suffice: an export holds the weights of the model twice ({first_line(error)})"
        ) from error
    for part, meaning in _PARTS.items():
        _say(f"{target / part}: {meaning}")
    if converter is not None:
        _say(f"{target / PART / FILE}: for llama.cpp, and by {MODELFILE} beside it for Ollama (ollama create NAME)")
    if license is None:
        _say("no licence was given (--license), so the cards name none")
    if repository is not None:
        _say(f"pushing to {repository}")
        for address in _push(target, publication):
            _say(f"pushed: {address}")


def _write(
    folder: Path, target: Path, publication: Publication, preferences: bool, converter: Converter | None
) -> None:
    with at_rest(folder):
        run = read_run(folder)
        _say(f"{folder}: {len(run.samples)} pairs, {len(run.trained_on)} of them trained on")
        dtype = str(dtype_of_base(run.options)).removeprefix("torch.")
        _say(f"loading {base_name(run)} in {dtype} and folding the adapter in")
        if is_quantised(run.options):
            _say(NF4)
        with merged_model(run) as merged, _whole_folder(target) as unfinished:
            _say(f"writing {target}")
            _write_parts(run, merged, publication, unfinished, preferences)
            if converter is not None:
                _say(f"converting with {converter.name}")
                converter.write(merged, unfinished / "model", unfinished / PART)


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """Give a folder to write into, which takes the target's name when the block ended well."""
    unfinished = target.parent / f".{target.name}-unfinished"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)  # of an export that was killed
        unfinished.mkdir(parents=True)
        yield unfinished
        if target.exists():  # and is empty
            target.rmdir()
        unfinished.rename(target)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise InputError(
            f"--to: {target} could not be written: {reason or first_line(error)}. Nothing was left there"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_parts(
    run: FinishedRun, merged: PlainModel, publication: Publication, folder: Path, preferences: bool
) -> None:
    _write_adapter(run, folder / "adapter")
    write_pairs(run, merged.prompt_format, folder / "dataset")
    made = write_preferences(run, merged, folder / "dataset") if preferences else None
    if made is not None:
        _say(
            f"preferences: {made.accepted} answers from demonstrations and {made.seeds} of seeds, each against the "
            f"model's own without demonstrations; left out: {made.same} where both are the same, {made.no_text} where "
            "there is no text"
        )
    merged.save(folder / "model")
    for part in _PARTS:
        write_whole(folder / part / "README.md", card(part, run, merged.prompt_format, publication, made))


def _write_adapter(run: FinishedRun, folder: Path) -> None:
    """Copy the adapter as it is, but for the name of a base that only this machine knows."""
    folder.mkdir()
    config_file, weights_file = ADAPTER_FILES
    shutil.copyfile(run.folder / ADAPTER / weights_file, folder / weights_file)
    config = json.loads((run.folder / ADAPTER / config_file).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_name(run)
    write_whole(folder / config_file, json.dumps(config, indent=2, sort_keys=True) + "\n")


def _push(folder: Path, publication: Publication) -> list[str]:
    """Upload each part into a repository of its own, private where it is made by this; give their addresses."""
    api = HfApi()
    places = {part: publication.place(part) for part in _REPOSITORY_TYPES}
    try:
        addresses = [
            str(api.create_repo(places[part], repo_type=kind, private=True, exist_ok=True))
            for part, kind in _REPOSITORY_TYPES.items()
        ]
        for part, kind in _REPOSITORY_TYPES.items():
            api.upload_folder(
                repo_id=places[part],
                repo_type=kind,
                folder_path=folder / part,
                commit_message="Export of isara_pl",
                delete_patterns="*",  # of two kinds of weights, transformers might load those of an earlier push
            )
    except Exception as error:  # the hub's client raises its own errors, those of its HTTP library and of the system
        again = "\n".join(
            f"  hf upload {places[part]} {folder / part} . --repo-type {kind} --private --delete '*'"
            for part, kind in _REPOSITORY_TYPES.items()
        )
        raise InputError(
            f"--push: {places['model']} could not be pushed ({first_line(error)}). The export in {folder} is whole. "
            "Log in with `hf auth login` if you are not, look at your network and at HF_HUB_OFFLINE, and then:\n"
            + again
        ) from error
    return addresses


def _say(line: str) -> None:
    print(printable(line), flush=True)
