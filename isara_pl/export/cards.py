"""The cards of an export: for the model, the adapter and the data set."""

from typing import Any

import torch

from isara_pl.export.card_sections import (
    Publication,
    base_name,
    by_outer_epoch,
    closing,
    counts,
    figures,
    generates,
    method,
    options,
    title_name,
)
from isara_pl.export.finished_run import FinishedRun
from isara_pl.export.markdown import code, front_matter, python, table
from isara_pl.export.merged_model import dtype_of_base, is_quantised
from isara_pl.export.pairs import METADATA, PROMPT_COMPLETION, TEXTS, with_marks
from isara_pl.export.run_options import is_hub_id
from isara_pl.growth.prompts import PromptFormat
from isara_pl.models.sources import PACKAGE_SCHEME

NF4 = (
    "The run kept the base in 4 bits (nf4). Merged here is the base as it was before, in bfloat16: answers may differ "
    "slightly from those of the run."
)
LOADERS = {
    "transformers": ("AutoModelForCausalLM", "AutoTokenizer", ".from_pretrained"),
    "isara_pl.models.loading": ("load_causal_lm", "load_tokenizer", ""),
}


def model_card(run: FinishedRun, prompt_format: PromptFormat, publication: Publication) -> str:
    """Give the README.md of the merged model.

    Args:
        run: The run.
        prompt_format: How it made text of pairs.
        publication: What is said about the export.
    """
    ending = (
        "`generation_config.json` is that of the run's `predict`: answers end where they ended there, at an "
        f"end-of-sequence token{' or a newline' if prompt_format.single_line else ''}, and none is empty. For other "
        "uses, give `generate` a `generation_config` of your own.\n"
    )
    if dtype_of_base(run.options) != torch.float32:
        ending += (
            "In 16 bits rounding depends on how many prompts are answered at once, in the run as here: compare answers "
            "prompt by prompt, or load with `dtype=torch.float32`.\n"
        )
    note = f"{NF4}\n" if is_quantised(run.options) else ""
    load = python(
        f"from transformers import AutoModelForCausalLM, AutoTokenizer\n\nplace = {publication.place('model')!r}\n"
        f"tokenizer = AutoTokenizer.from_pretrained(place{_trust(run)})\n"
        f"model = AutoModelForCausalLM.from_pretrained(place{_trust(run)})\n{_answering(prompt_format)}"
    )
    what = "This is the merged model, base and adapter in one, for plain transformers."
    kind = {"library_name": "transformers", **_base(run, "finetune")}
    return _card_of_weights(run, publication, kind, what, "\n".join(filter(None, [note, load, ending])))


def adapter_card(run: FinishedRun, prompt_format: PromptFormat, publication: Publication) -> str:
    """Give the README.md of the adapter.

    Args:
        run: The run.
        prompt_format: How it made text of pairs.
        publication: What is said about the export.
    """
    name = run.options.get("model.name", str)
    library = "isara_pl.models.loading" if name.startswith(PACKAGE_SCHEME) or name.endswith(".gguf") else "transformers"
    model, tokenizer, call = LOADERS[library]
    of_a_machine = "" if base_name(run) == name else "  # it lay in a folder of the machine of the run: give your own"
    load = python(
        f"import torch\nfrom peft import PeftModel\nfrom {library} import {model}, {tokenizer}\n\n"
        f"base = {base_name(run)!r}{of_a_machine}\ntokenizer = {tokenizer}{call}(base{_trust(run)})\n"
        f"model = {model}{call}(base, dtype={dtype_of_base(run.options)}{_trust(run)})\n"
        f"model = PeftModel.from_pretrained(model, {publication.place('adapter')!r})\n{_answering(prompt_format)}"
    )
    what = f"This is the LoRA adapter, for the base model {code(base_name(run))} that it was trained on."
    return _card_of_weights(run, publication, {"library_name": "peft", **_base(run, "adapter")}, what, load)


def dataset_card(run: FinishedRun, prompt_format: PromptFormat, publication: Publication) -> str:
    """Give the README.md of the data set.

    Args:
        run: The run.
        prompt_format: How it made text of pairs.
        publication: What is said about the export.
    """
    fields = {
        "license": publication.license,
        "task_categories": ["text-generation"],
        "tags": ["isara", "synthetic"] if generates(run) else ["isara"],
        "size_categories": [_size(len(run.samples))],
        "configs": [
            {
                "config_name": name,
                "data_files": [{"split": "train", "path": f"{name}.parquet"}],
                "default": name == PROMPT_COMPLETION,
            }
            for name in TEXTS
        ],
    }
    place = publication.place("dataset")
    load = (
        "from datasets import load_dataset\n\n"
        f'pairs = load_dataset({place!r}, split="train")  # prompt and completion, as TRL\'s SFTTrainer reads them\n'
        f'turns = load_dataset({place!r}, "messages", split="train")  # messages, which it reads as well\n'
        'trained_on = pairs.filter(lambda pair: pair["trained_on"])\n'
    )
    marked = with_marks(run.samples, prompt_format)
    marks = (
        f" In {marked} of the pairs, prompt or completion spells a control token of the tokenizer. It is text there: "
        "U+2060 (word joiner) stands behind its first character, and the run encoded it as plain text, without that "
        "mark."
    )
    texts = (
        "Each `.jsonl` holds the same as its `.parquet`. Prompts and completions are the very texts that were trained "
        f"on (`data.prompt_format` {code(run.options.shown('data.prompt_format'))}), without the token that ends them; "
        f"messages are plain turns, without a template.{marks if marked else ''}\n"
    )
    columns = [[code(name), text] for each in (*TEXTS.values(), METADATA) for name, (_, text) in each.items()]
    sections = [
        front_matter(fields),
        f"# The pairs of an ISARA run on {title_name(run)}\n",
        f"{len(run.samples)} question-answer pairs: {counts(run)}\n",
        method(run),
        "## Load\n",
        python(load),
        texts,
        "## Columns\n",
        table(["column", "what it holds"], columns),
        by_outer_epoch(run),
        options(run),
        closing(publication, "the seeds and of the base model" if generates(run) else "the seeds"),
    ]
    return "\n".join(sections)


def _card_of_weights(run: FinishedRun, publication: Publication, kind: dict[str, Any], what: str, load: str) -> str:
    """Give the card of the model or of the adapter."""
    fields = {
        "license": publication.license,
        **kind,
        "pipeline_tag": "text-generation",
        "tags": ["isara", "lora"],
        "datasets": [publication.place("dataset")] if publication.repository else None,
    }
    sections = [
        front_matter(fields),
        f"# {title_name(run)}, fine-tuned with ISARA\n",
        f"{what} It was trained on {len(run.trained_on)} pairs, of {counts(run)}\n",
        method(run),
        "## Load\n",
        load,
        figures(run),
        options(run),
        closing(publication, "the base model and of the seeds"),
    ]
    return "\n".join(sections)


def _base(run: FinishedRun, relation: str) -> dict[str, str]:
    name = run.options.get("model.name", str)
    return {"base_model": name, "base_model_relation": relation} if is_hub_id(name) else {}


def _trust(run: FinishedRun) -> str:
    return ", trust_remote_code=True" if run.options.get("model.trust_remote_code", bool) else ""


def _answering(prompt_format: PromptFormat) -> str:
    return (
        f"\nprompt = {prompt_format.answer_prompt('Why is the sky blue?')!r}  # the form that was trained on\n"
        'inputs = tokenizer(prompt, return_tensors="pt")\n'
        "ids = model.generate(**inputs, max_new_tokens=64)\n"
        'print(tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))\n'
    )


def _size(pairs: int) -> str:
    """Give the hub's name for a number of rows."""
    sizes = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for most, name in sizes if pairs < most), "n>1M")
