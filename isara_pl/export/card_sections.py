"""What the cards of an export share: how the pairs came to be, figures, options, licence."""

from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version

from isara_pl.export.finished_run import FinishedRun
from isara_pl.export.markdown import code, table
from isara_pl.export.run_options import public_name
from isara_pl.results import metrics
from isara_pl.results.measures import MEASURES

PAPER = "[arXiv 2401.06785](https://arxiv.org/abs/2401.06785)"
PACKAGES = ("isara_pl", "torch", "transformers", "peft", "lightning")
# what decides most of what a run becomes
OPTIONS = (
    *("model.lora.r", "model.lora.alpha", "model.learning_rate", "model.learning_rate_decay", "model.start_from"),
    *("model.quantization", "model.dtype", "trainer.precision", "data.prompt_format", "data.train_on"),
    *("data.candidates_per_outer_epoch", "data.outer_epochs", "data.epochs_per_outer_epoch", "data.demonstrations"),
    *("data.question_context", "data.answer_context", "data.question_writer", "data.batch_size"),
    *("model.objective", "model.distill_weight", "data.distill_on", "data.teacher", "data.teacher_demonstrations"),
    *("alpha_stopping.alpha", "seed_everything"),
)
DISTILLED = {
    "generated": "the accepted pairs",
    "seeds": "the seeds",
    "file": "the accepted pairs, whose questions were given and not written by the model",
}
NOT_SHOWN = ("outer_epoch", "seconds")


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
        """Give where a part is loaded from: its repository, or its folder in the export.

        Args:
            part: `model`, `adapter` or `dataset`.
        """
        endings = {"model": "", "adapter": "-adapter", "dataset": "-data"}
        return part if self.repository is None else self.repository + endings[part]


def base_name(run: FinishedRun) -> str:
    """Give the base's name without the folders of this machine.

    Args:
        run: The run.
    """
    return public_name(run.options.get("model.name", str))


def title_name(run: FinishedRun) -> str:
    """Give the base's name as a title has it: without owner, package and folders.

    Args:
        run: The run.
    """
    return code(base_name(run).rpartition("/")[2])


def generates(run: FinishedRun) -> bool:
    """Whether the run wrote pairs of its own, rather than being fine-tuned on the seeds alone.

    Args:
        run: The run.
    """
    return run.options.get("data.candidates_per_outer_epoch", int) > 0


def counts(run: FinishedRun) -> str:
    """Say how many seeds and candidates there were.

    Args:
        run: The run.
    """
    seeds, rejected = len(run.seeds), sum(run.rejected.values())
    said = f"{seeds} seeds (hash {code(run.seeds_hash)})"
    if not generates(run):
        return f"{said}."
    filters = ", ".join(f"{code(name)} {count}" for name, count in run.rejected.items())
    accepted = len(run.samples) - seeds
    return f"{said} and {accepted} accepted candidates; {rejected} were rejected{f' ({filters})' if filters else ''}."


def method(run: FinishedRun) -> str:
    """Say how the pairs and the weights came to be, and what not to expect of them.

    Args:
        run: The run.
    """
    if not generates(run):
        return (
            f"## Method\n\nThis is a baseline of ISARA ({PAPER}): a LoRA adapter on {code(base_name(run))} was "
            f"fine-tuned on the seeds alone. No pair was written by a model.{_teaching(run)}\n"
        )
    trained = "trained, with the objective below," if _teaching(run) else "fine-tuned"
    return (
        f"## Method\n\nISARA ({PAPER}) aligns a language model from fewer than 100 question-answer pairs, the seeds, "
        f"without instructions, principles or a reward model. In every outer epoch the model, {code(base_name(run))}, "
        "wrote new questions with other pairs as examples and answered them with other pairs as examples, filters "
        f"rejected what was not new, and a LoRA adapter was {trained} on seeds and accepted pairs. It ended when the "
        f"share of accepted candidates fell below α = {code(run.options.shown('alpha_stopping.alpha'))}, or after "
        f"{code(run.options.shown('data.outer_epochs'))} outer epochs.{_teaching(run)}\n\n"
        "**All pairs but the seeds were written by the model itself and were not checked by people.** They may be "
        "wrong, and hold the model's biases. Self-generation need not help: on some data, fine-tuning on the seeds "
        "alone is better. These figures do not tell; `python -m isara_pl compare` does, with a run of that baseline.\n"
    )


def _teaching(run: FinishedRun) -> str:
    """Say what was learned from a teacher; nothing where the answers alone were learned."""
    objective = run.options.shown("model.objective")
    if objective not in ("distill", "sft+distill"):  # null in a config of before there was one
        return ""
    on = DISTILLED[run.options.choice("data.distill_on", tuple(DISTILLED))]
    weights = run.options.choice("data.teacher", ("current", "pretrained"))
    shown = "with" if run.options.get("data.teacher_demonstrations", bool) else "without"
    learned = "a teacher's distributions beside the answers" if "+" in objective else "a teacher's distributions alone"
    return (
        f"\n\nThe objective was {code(objective)}, context distillation: from {on}, the adapter learned {learned}. The "
        f"teacher was this model with its {code(weights)} weights, {shown} demonstrations in its prompt."
    )


def figures(run: FinishedRun) -> str:
    """Show the figures of the pretrained model and each outer epoch.

    Args:
        run: The run.
    """
    names = dict.fromkeys(name for row in run.figures.values() for name in row if name not in NOT_SHOWN)
    states = [metrics.outer_epoch_name(outer_epoch) for outer_epoch in run.figures]
    rows = [
        [code(name), _better(name), *(_figure(name, row.get(name)) for row in run.figures.values())] for name in names
    ]
    return (
        "## Figures\n\nOf the run, on its own held-out items where it had any, before the adapter was merged.\n\n"
        + table(["figure", "better", *states], rows)
    )


def by_outer_epoch(run: FinishedRun) -> str:
    """Show how many pairs each outer epoch gave.

    Args:
        run: The run.
    """
    pairs = Counter(sample.outer_epoch for sample in run.samples)
    trained_on = Counter(sample.outer_epoch for sample in run.samples if sample.id in run.trained_on)
    rows = [
        ["seeds" if outer_epoch == 0 else str(outer_epoch), str(pairs[outer_epoch]), str(trained_on[outer_epoch])]
        for outer_epoch in sorted(pairs)
    ]
    return (
        "## Pairs by outer epoch\n\nAn outer epoch that the α rule ended is in the pool, but was not trained on.\n\n"
        + table(["outer epoch", "pairs", "trained on"], rows)
    )


def options(run: FinishedRun) -> str:
    """Show the options that matter.

    Args:
        run: The run.
    """
    shown = {"model.name": base_name(run), "data.encoder": public_name(run.options.get("data.encoder", str))}
    shown |= {name: run.options.shown(name) for name in OPTIONS}
    return "## Options\n\n" + table(["option", "value"], [[code(name), code(value)] for name, value in shown.items()])


def closing(publication: Publication, terms_of: str) -> str:
    """Give the licence and the versions.

    Args:
        publication: What is said about the export.
        terms_of: Whose terms apply beside it.
    """
    licence = (
        f"{code(publication.license)}, as whoever exported this run gave it."
        if publication.license
        else "None was given, so none is granted."
    )
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"## Licence\n\n{licence} The terms of {terms_of} apply in any case.\n\n"
        f"## Versions\n\nExported with {versions}.\n"
    )


def _better(name: str) -> str:
    measure = MEASURES.get(name.removesuffix("_clean"))
    return "" if measure is None else ("higher" if measure.higher_is_better else "lower")


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if name in metrics.COUNTS else f"{value:.4f}"
