"""The cards of an export: for the model, the adapter and the data set."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

from isara_pl.errors import printable
from isara_pl.export.finished_run import FinishedRun, RunOptions
from isara_pl.export.merged_model import NF4, dtype_of_base, is_quantised
from isara_pl.export.pairs import METADATA, PROMPT_COMPLETION, TEXTS, with_marks
from isara_pl.export.preferences import COLUMNS, TEXT, Preferences
from isara_pl.growth.prompts import PromptFormat
from isara_pl.models.sources import PACKAGE_SCHEME, is_local
from isara_pl.results import metrics
from isara_pl.results.items import MEASURES

_TEMPLATE = Path(__file__).with_name("card.md.jinja")
_LONGEST = 200  # characters of a foreign text in a card
_PACKAGES = ("isara_pl", "torch", "transformers", "peft", "lightning")
# what decides most of what a run becomes
_OPTIONS = (
    *("model.lora.r", "model.lora.alpha", "model.learning_rate", "model.learning_rate_decay", "model.start_from"),
    *("model.quantization", "model.dtype", "trainer.precision", "data.prompt_format", "data.train_on"),
    *("data.candidates_per_outer_epoch", "data.outer_epochs", "data.epochs_per_outer_epoch", "data.demonstrations"),
    *("data.question_context", "data.answer_context", "data.question_writer", "data.batch_size"),
    *("model.objective", "model.distill_weight", "data.distill_on", "data.teacher", "data.teacher_demonstrations"),
    *("alpha_stopping.alpha", "seed_everything"),
)
_NOT_SHOWN = ("outer_epoch", "seconds")  # of metrics.csv


@dataclass(frozen=True)
class Publication:
    """What whoever exports a run says about the export.

    Attributes:
        license: Licence id of the hub; None where none was given.
        repository: The hub's repository of the model, `OWNER/NAME`; None where it is not pushed.
    """

    license: str | None
    repository: str | None

    def place(self, part: str) -> str:
        """Give where `model`, `adapter` or `dataset` is loaded from: its repository, or its folder in the export."""
        endings = {"model": "", "adapter": "-adapter", "dataset": "-data"}
        return part if self.repository is None else self.repository + endings[part]


def card(
    part: str,
    run: FinishedRun,
    prompt_format: PromptFormat,
    publication: Publication,
    preferences: Preferences | None = None,
) -> str:
    """Give the README.md of a part of an export: of its `model`, `adapter` or `dataset`."""
    name, base = run.options.get("model.name", str), base_name(run)
    generates = run.options.get("data.candidates_per_outer_epoch", int) > 0
    options = {"model.name": base, "data.encoder": public_name(run.options.get("data.encoder", str))}
    context: dict[str, Any] = {
        "part": part,
        "run": run,
        "generates": generates,
        "distilled": _distilled(run.options),
        "name": name,
        "base": base,
        "title": base.rpartition("/")[2],
        "place": publication.place(part),
        "ours_loads": name.startswith(PACKAGE_SCHEME) or name.endswith(".gguf"),
        "trust_remote_code": run.options.get("model.trust_remote_code", bool),
        "dtype": str(dtype_of_base(run.options)),
        "nf4": NF4 if part == "model" and is_quantised(run.options) else None,
        "prompt": prompt_format.answer_prompt("Why is the sky blue?"),
        "single_line": prompt_format.single_line,
        "marked": with_marks(run.samples, prompt_format) if part == "dataset" else 0,
        "columns": {name: text for each in (*TEXTS.values(), METADATA) for name, (_, text) in each.items()},
        "preferences": preferences,
        "preference_columns": {name: text for name, (_, text) in COLUMNS[TEXT].items()},
        "states": [metrics.outer_epoch_name(outer_epoch) for outer_epoch in run.figures],
        "figures": _figures(run),
        "options": options | {name: run.options.shown(name) for name in _OPTIONS},
        "license": publication.license,
        "versions": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        "code": _code,
        "repr": repr,
    }
    if part == "dataset":
        of_pairs = _data_of_pairs(len(run.samples), generates, publication, preferences is not None)
        return f"{DatasetCard.from_template(of_pairs, template_path=str(_TEMPLATE), **context)}\n"
    of_weights = _data_of_weights(part, name, publication)
    return f"{ModelCard.from_template(of_weights, template_path=str(_TEMPLATE), **context)}\n"


def base_name(run: FinishedRun) -> str:
    """Give the base's name without the folders of this machine."""
    return public_name(run.options.get("model.name", str))


def public_name(name: str) -> str:
    """Give the name of a model or an encoder without the folders of this machine."""
    if name.startswith(PACKAGE_SCHEME) or not is_local(name):
        return name
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2] or "a local folder"


def _data_of_weights(part: str, base: str, publication: Publication) -> ModelCardData:
    library, relation = {"model": ("transformers", "finetune"), "adapter": ("peft", "adapter")}[part]
    of_hub = not is_local(base)
    return ModelCardData(
        license=publication.license,
        library_name=library,
        base_model=base if of_hub else None,
        base_model_relation=relation if of_hub else None,
        pipeline_tag="text-generation",
        tags=["isara", "lora"],
        datasets=[publication.place("dataset")] if publication.repository else None,
    )


def _data_of_pairs(pairs: int, generates: bool, publication: Publication, preferences: bool) -> DatasetCardData:
    sizes = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return DatasetCardData(
        license=publication.license,
        task_categories=["text-generation"],
        tags=["isara", "synthetic"] if generates else ["isara"],
        size_categories=[next((name for most, name in sizes if pairs < most), "n>1M")],
        configs=[
            {
                "config_name": name,
                "data_files": [{"split": "train", "path": f"{name}.parquet"}],
                "default": name == PROMPT_COMPLETION,
            }
            for name in (*TEXTS, *(COLUMNS if preferences else ()))
        ],
    )


def _distilled(options: RunOptions) -> Mapping[str, Any] | None:
    """Give what was learned from which teacher; None where the answers alone were learned."""
    objective = options.shown("model.objective")
    if objective not in ("distill", "sft+distill"):  # null in a config of before there was one
        return None
    return {
        "objective": objective,
        "on": options.choice("data.distill_on", ("generated", "seeds", "file")),
        "teacher": options.choice("data.teacher", ("current", "pretrained")),
        "demonstrations": options.get("data.teacher_demonstrations", bool),
    }


def _figures(run: FinishedRun) -> list[tuple[str, str, list[str]]]:
    """Give each figure's name, which of its values are better, and its values of each outer epoch."""
    names = dict.fromkeys(name for row in run.figures.values() for name in row if name not in _NOT_SHOWN)
    return [(name, _better(name), [_value(name, row.get(name)) for row in run.figures.values()]) for name in names]


def _better(name: str) -> str:
    measure = MEASURES.get(name.removesuffix("_clean"))
    return "" if measure is None else ("higher" if measure.higher_is_better else "lower")


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if name in metrics.COUNTS else f"{value:.4f}"


def _code(text: str) -> str:
    """Give a text of unknown origin as a code span of Markdown, on one line, in which nothing is markup."""
    shown = " ".join(printable(text).split())
    shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    space = " " if not shown or "`" in (shown[0], shown[-1]) else ""
    return f"{fence}{space}{shown}{space}{fence}"
