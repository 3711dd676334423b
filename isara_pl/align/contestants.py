"""The methods that compete, each an ordinary run of `validate` or `fit`, from the simplest to the least simple."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

from isara_pl.growth.samples import Sample, pair_row, preference_row
from isara_pl.results.run import PRETRAINED

Options = Mapping[str, Any]

DEMONSTRATIONS = 5
FILTERS = ("TooShort", "NearDuplicate", "CopiedAnswer", "Unfinished")
HARM_PREFERENCE = "harm_preference"
# of runs that only decide: nobody reads their answers, and differences over all parts are far above bf16's rounding
DECIDING: Options = {"model": {"evaluation_precision": "trainer"}, "held_out_answers": {"questions": 0}}
# of English a token has four characters, of other scripts fewer bytes; what is longer was not asked for by the seeds
BYTES_OF_A_TOKEN = 3
FEWEST_NEW_TOKENS = 16
PROMPT_FORMAT = "prompt_format"


@dataclass(frozen=True)
class Contestant:
    """A method that competes.

    Attributes:
        name: Its name, also of its run folders.
        called: What it is called in sentences.
        trains: Whether it is a run of `fit`; else one of `validate`.
        options: What its runs have of their own, in groups as a configuration has them.
        callbacks: Callbacks of its own, beside those of all runs.
    """

    name: str
    called: str
    trains: bool = True
    options: Options = field(default_factory=dict)
    callbacks: Sequence[Options] = ()


_SEEDS_ALONE = {"candidates_per_outer_epoch": 0, "outer_epochs": 1, "epochs_per_outer_epoch": 4}
_LOOP = {"candidates_per_outer_epoch": 32, "outer_epochs": 1, "epochs_per_outer_epoch": 2}
_OF_FILTERS = [{"class_path": f"isara_pl.callbacks.{name}"} for name in FILTERS]
SFT = Contestant(
    "sft",
    "fine-tuning on your pairs (SFT)",
    options={"data": {**_SEEDS_ALONE, "validation_share": 0.2}, "model": {"learning_rate": 2e-3}},
    callbacks=[{"class_path": "isara_pl.callbacks.BestEpoch"}],
)
ICL = Contestant("icl_knn", "the pretrained model with your nearest pairs in the prompt", trains=False)
# the pretrained model takes no run: each of the others measures it first
CONTESTANTS = (
    ICL,
    SFT,
    Contestant(
        "distill_seeds",
        "distillation from your pairs",
        options={
            "data": {**_SEEDS_ALONE, "distill_on": "seeds"},
            "model": {"learning_rate": 1e-3, "objective": "distill"},
        },
    ),
    Contestant(
        "isara",
        "the loop as in the paper",
        options={"data": _LOOP, "model": {"learning_rate": 1e-3}},
        callbacks=_OF_FILTERS,
    ),
    Contestant(
        "distill",
        "the loop with distillation",
        options={"data": _LOOP, "model": {"learning_rate": 2e-3, "objective": "distill"}},
        callbacks=_OF_FILTERS,
    ),
)
TITLES = {PRETRAINED: "the pretrained model", **{one.name: one.called for one in CONTESTANTS}}


def configuration(
    contestant: Contestant,
    common: Options,
    seeds: Path,
    run_dir: Path,
    seed: int,
    longest: tuple[int, int],
    held_out: Path | None = None,
    evaluations: Sequence[Options] = (),
) -> dict[str, Any]:
    """Give the configuration of a run: ours, over that the user's options for all runs, over that the contestant's own.

    Args:
        contestant: Whose run it is; in which form it asks is as for all, or its figures could not be compared.
        common: The user's options for all runs, in groups; the model's name among them.
        seeds: File of the pairs to train on.
        run_dir: The run folder.
        seed: Of all draws.
        longest: Bytes of the longest question and of the longest answer among the seeds.
        held_out: File of the pairs to measure on.
        evaluations: Callbacks that measure, in place of those of the same class.
    """
    question_tokens, answer_tokens = (max(FEWEST_NEW_TOKENS, length // BYTES_OF_A_TOKEN) for length in longest)
    ours: Options = {
        "model": {"lora": {"r": 8, "alpha": 16}},
        "data": {
            "question_sampling": {
                **{"temperature": 0.9, "top_p": 0.95, "top_k": 50},
                "max_new_tokens": question_tokens,
            },
            "answer_sampling": {"do_sample": False, "max_new_tokens": answer_tokens},
            "batch_size": 8,
            "demonstrations": DEMONSTRATIONS,
        },
        "alpha_stopping": {"alpha": 0.0},
        "trainer": {"enable_progress_bar": False},
    }
    fixed: Options = {
        "seed_everything": seed,
        "run_dir": str(run_dir),
        "model": {"name": common["model"]["name"]},  # a further contestant's configuration may be of another one
        "data": {"seeds": str(seeds), "held_out": None if held_out is None else str(held_out)},
    }
    of_data = contestant.options.get("data") or {}
    own = {**contestant.options, "data": {name: of_data[name] for name in of_data if name != PROMPT_FORMAT}}
    merged = merge(merge(merge(ours, common), own), fixed)
    measuring = [_class_of(one) for one in evaluations]
    others = [*_callbacks(common), *_callbacks(contestant.options), *contestant.callbacks]
    callbacks = [_shown(one, contestant) for one in others if _class_of(one) not in measuring]
    merged["trainer"] = {**merged["trainer"], "callbacks": [*callbacks, *evaluations]}
    return merged


def merge(below: Options, above: Options) -> dict[str, Any]:
    """Give options of two groups of groups; where both have one, that of the second."""
    merged = dict(below)
    for name, value in above.items():
        known = merged.get(name)
        merged[name] = merge(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return merged


def rows_of(samples: Sequence[Sample], measure: str) -> list[dict[str, Any]]:
    """Give samples as lines of a file to measure on."""
    return [preference_row(sample) if measure == HARM_PREFERENCE else pair_row(sample) for sample in samples]


def evaluation_of(contestant: Contestant, held_out: Path, measure: str) -> Options:
    """Give the callback that measures a contestant on a file."""
    name, own = (
        ("HarmPreferenceEvaluation", {"pairs": str(held_out)})
        if measure == HARM_PREFERENCE
        else ("TruthfulnessEvaluation", {"max_new_tokens": 0})
    )
    return _shown({"class_path": f"isara_pl.callbacks.{name}", "init_args": own}, contestant)


def _shown(callback: Options, contestant: Contestant) -> Options:
    """Give an evaluation of ours the demonstrations of in-context learning, where it is that which is measured."""
    if contestant is not ICL:
        return callback
    from isara_pl import callbacks  # only here: torch takes seconds to import

    kind = getattr(callbacks, _class_of(callback), None)
    if kind is None or "demonstrations" not in signature(kind).parameters:
        return callback
    shown = {"demonstrations": DEMONSTRATIONS, "context": "knn"}
    return {**callback, "init_args": {**shown, **(callback.get("init_args") or {})}}


def _callbacks(options: Options) -> Sequence[Options]:
    named = (options.get("trainer") or {}).get("callbacks") or []
    return [{"class_path": one} if isinstance(one, str) else one for one in named]


def _class_of(callback: Options) -> str:
    return str(callback["class_path"]).rpartition(".")[2]
