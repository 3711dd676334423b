"""Time training: this project against TRL's SFTTrainer, with the same model, LoRA, pairs, batch size and precision.

A round is one whole fit: every pair once. All ways take turns in one process; the ratio is what to look at.

    pip install 'isara_pl[bench]'
    python scripts/bench_training.py
    python scripts/bench_training.py --device cuda --shape llama-7b --joined 8 --pairs 512 --batch_size 32
"""

import argparse
import importlib.util
import logging
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import transformers
from benchmark import MEMORY_KEPT, ceiling, machine, print_table, summary, time_alternately, write_json
from lightning.pytorch import Trainer
from peft import LoraConfig, PeftModel
from shapes import SHAPES, load_shape, tokenizer_name

from isara_pl.growth.prompts import prompt_format
from isara_pl.growth.samples import Sample, read_samples
from isara_pl.models.adapter import LoraOptions
from isara_pl.models.precision import DTYPES, fast_precision
from isara_pl.models.sources import resolve_path
from isara_pl.module import IsaraModule
from isara_pl.run.memory import keep_freed_memory
from isara_pl.training.pairs import EncodedPair, SftLoader, answer_nll, collate, encode_pair, length_grouped_batches

REFERENCE = "TRL"
FORMAT = prompt_format("qa", None)


@dataclass(frozen=True)
class Setup:
    """What is trained, and how.

    Attributes:
        shape: The model.
        device: Where it lies.
        precision: The trainer's.
        r: Rank of the adapter.
        batch_size: Pairs of a step.
        gradient_checkpointing: Whether activations are computed twice.
        max_length: Most tokens of a pair.
    """

    shape: str
    device: str
    precision: str
    r: int
    batch_size: int
    gradient_checkpointing: bool = False
    max_length: int = 2048

    @property
    def dtype(self) -> str:
        """Type of the base's weights."""
        return {"bf16-mixed": "bfloat16", "16-mixed": "float16"}.get(self.precision, "float32")


def main() -> None:
    """Read the command line, time all ways and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2", help="All but smollm2 have random weights.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=64, help="Pairs of a round: the quickstart's seeds, repeated.")
    parser.add_argument("--joined", type=int, default=1, help="Seeds whose answers make up one pair's answer.")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--r", type=int, default=8, help="Rank of the adapter.")
    parser.add_argument("--gradient_checkpointing", action="store_true", help="In every way.")
    parser.add_argument("--compile", action="store_true", help="Time compiled layers too; half a minute to warm up.")
    parser.add_argument("--rounds", type=int, default=5, help="How often each way is timed.")
    parser.add_argument("--json", help="File for the same figures.")
    arguments = parser.parse_args()
    torch.backends.cuda.enable_cudnn_sdp(False)  # as the command line does
    if importlib.util.find_spec("trl") is None:
        sys.exit("this compares with TRL, which is not installed: pip install 'isara_pl[bench]'")
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    precision, _ = fast_precision("cpu" if arguments.device == "cpu" else "gpu")
    setup = Setup(
        arguments.shape,
        arguments.device,
        precision,
        arguments.r,
        arguments.batch_size,
        arguments.gradient_checkpointing,
    )
    samples = joined_samples(arguments.pairs, arguments.joined)
    module = adapted(setup)
    pairs = [encode_pair(sample, FORMAT, module.tokenizer, setup.max_length, end=True) for sample in samples]
    references = {
        REFERENCE: sft_trainer(setup, module, samples, "random"),
        "TRL, length-grouped": sft_trainer(setup, module, samples, "group_by_length"),
    }
    ways: dict[str, Callable[[], object]] = {
        name: partial(with_memory, False, trainer.train) for name, trainer in references.items()
    }
    ours = partial(fit, module, pairs, setup)
    # the command line keeps freed memory; both ways are timed in both settings
    ways[f"{REFERENCE}, freed memory kept"] = partial(with_memory, True, references[REFERENCE].train)
    ways["isara_pl, freed memory returned"] = partial(with_memory, False, ours)
    ways["isara_pl"] = partial(with_memory, True, ours)
    if arguments.compile:
        compiled = adapted(setup, compiled=True)
        ways["isara_pl, compiled"] = partial(with_memory, True, partial(fit, compiled, pairs, setup))
    first = list(range(arguments.batch_size))
    losses = {
        REFERENCE: their_loss(references[REFERENCE], first),
        "isara_pl": our_loss(module, pairs, first, precision),
    }

    tokens, answers = sum(len(pair.input_ids) for pair in pairs), sum(answer_length(pair) for pair in pairs)
    most = ceiling(arguments.device, DTYPES[setup.dtype])
    seconds = time_alternately(ways, arguments.rounds, device=arguments.device)
    what = f"{arguments.shape}, {setup.dtype}, {len(pairs)} pairs of {tokens / len(pairs):.0f} tokens on average"
    print_table(f"{what}; milliseconds of a pair", seconds, REFERENCE, per=len(pairs))
    print(f"\nLoss of the first batch: {', '.join(f'{name} {loss:.4f}' for name, loss in losses.items())}")
    print(
        f"Ceiling: {most.flops / 1e12:.2f} TFLOP/s of a matrix product, {most.bytes_per_second / 1e9:.1f} GB/s copied"
    )
    work = step_flops(module.adapted, tokens, answers)
    rates = {}
    for name, times in seconds.items():
        median = statistics.median(times)
        rates[name] = {
            "samples_per_second": len(pairs) / median,
            "tokens_per_second": tokens / median,
            "share_of_ceiling": work / median / most.flops,
        }
        line = "{:9.2f} samples/s {:10.0f} tokens/s {:7.1%} of the ceiling".format(*rates[name].values())
        print(f"  {name:32}{line}")
    figures = {"options": vars(arguments), "dtype": setup.dtype, "ceiling": most, "first_loss": losses, "rates": rates}
    write_json(
        arguments.json, machine(arguments.device), {**figures, "ways": summary(seconds, REFERENCE, per=len(pairs))}
    )


def with_memory(kept: bool, work: Callable[[], object]) -> None:
    """Run something while freed memory is kept, or given back to the system."""
    if kept:
        keep_freed_memory()
    else:
        keep_freed_memory(MEMORY_KEPT)
    work()


def joined_samples(count: int, joined: int) -> list[Sample]:
    """Give pairs from the quickstart's seeds, each with the answers of `joined` of them."""
    seeds = read_samples(resolve_path("package://isara_pl/quickstart/seeds.jsonl", "seeds"))
    return [
        Sample(
            f"{place:05d}",
            seeds[place % len(seeds)].question,
            " ".join(seeds[(place + next_one) % len(seeds)].answer for next_one in range(joined)),
        )
        for place in range(count)
    ]


def answer_length(pair: EncodedPair) -> int:
    """Give the tokens that have loss."""
    return len(pair.input_ids) - pair.prompt_length


def adapted(setup: Setup, compiled: bool = False) -> IsaraModule:
    """Load this project's module on a model of the shape, with SmolLM2's tokenizer."""
    dtype: Any = setup.dtype
    module = IsaraModule(
        tokenizer_name(),
        lora=LoraOptions(r=setup.r, alpha=2 * setup.r),
        dtype=dtype,
        gradient_checkpointing=setup.gradient_checkpointing,
        compile=compiled,
    )

    def load(*_: object) -> Any:
        return load_shape(setup.shape, setup.device, DTYPES[setup.dtype])

    with patch("isara_pl.module.load_causal_lm", load):
        module.configure_model()
    return module


def fit(module: IsaraModule, pairs: list[EncodedPair], setup: Setup) -> None:
    """Train on every pair once."""
    precision: Any = setup.precision
    batches = length_grouped_batches([len(pair.input_ids) for pair in pairs], setup.batch_size, seed=0)
    pad = module.tokenizer.pad_token_id
    assert isinstance(pad, int)
    trainer = Trainer(
        accelerator="cpu" if setup.device == "cpu" else "gpu",
        devices=1,
        precision=precision,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    # Lightning ends a run by moving the model off the device, TRL does not
    with patch.object(module, "cpu", lambda: module):
        trainer.fit(module, SftLoader(pairs, batches, epoch=0, pad_token_id=pad))


def sft_trainer(setup: Setup, module: IsaraModule, samples: list[Sample], strategy: str) -> Any:
    """Make TRL's trainer for the same pairs, adapter and optimiser; it neither clips, logs nor saves either."""
    from datasets import Dataset, disable_progress_bars
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    rows = [
        {"prompt": FORMAT.answer_prompt(sample.question), "completion": FORMAT.answer_text(sample.answer)}
        for sample in samples
    ]
    options = SFTConfig(
        output_dir=tempfile.gettempdir(),  # nothing is written there
        use_cpu=setup.device == "cpu",
        bf16=setup.dtype == "bfloat16",
        fp16=setup.dtype == "float16",
        per_device_train_batch_size=setup.batch_size,
        train_sampling_strategy=strategy,
        num_train_epochs=1,
        gradient_checkpointing=setup.gradient_checkpointing,
        completion_only_loss=True,
        max_length=setup.max_length,
        learning_rate=module.learning_rate,
        lr_scheduler_type="cosine",
        max_grad_norm=0.0,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = SFTTrainer(
        model=load_shape(setup.shape, setup.device, DTYPES[setup.dtype]),
        args=options,
        train_dataset=Dataset.from_list(rows),
        processing_class=module.tokenizer,
        peft_config=LoraConfig(r=setup.r, lora_alpha=2 * setup.r, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def their_loss(trainer: Any, places: list[int]) -> float:
    """Give TRL's loss of these pairs before any training."""
    batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[place] for place in places]))
    with torch.no_grad(), trainer.compute_loss_context_manager():
        return float(trainer.compute_loss(trainer.model, batch))


def our_loss(module: IsaraModule, pairs: list[EncodedPair], places: list[int], precision: str) -> float:
    """Give this project's loss of these pairs before any training."""
    batch: Any = collate([pairs[place] for place in places], pad_token_id=0)
    device = module.adapted.device
    moved: Any = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    kind = torch.float16 if precision == "16-mixed" else torch.bfloat16
    with torch.no_grad(), torch.autocast(device.type, kind, enabled=precision != "32-true"):
        sums, tokens = answer_nll(module.adapted, moved)
    return float(sums.sum() / tokens.sum())


def step_flops(adapted: PeftModel, tokens: int, answer_tokens: int) -> float:
    """Count what training on these tokens needs at least, padding and attention left out.

    Forward and back through a frozen matrix are 4 FLOP a weight and token: it has no gradient of its own.
    Through the adapter's they are 6. The output layer is needed for the answers' tokens only.
    """
    head = adapted.get_output_embeddings()
    base = sum(
        part.weight.numel() for name, part in adapted.named_modules()
        if isinstance(part, torch.nn.Linear) and part is not head and "lora_" not in name
    )  # fmt: skip
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    return float(tokens * (4 * base + 6 * trained) + answer_tokens * 4 * head.weight.numel())


if __name__ == "__main__":
    main()
