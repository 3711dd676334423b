"""Keeps an eye on generated samples that hold evaluation items."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_info

from isara_pl.callbacks.evaluation import Evaluation, data_of
from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.datamodule.growing import GrowthCallback
from isara_pl.datamodule.pooled_data import outer_epoch_of_weights
from isara_pl.evaluation.contamination import Contact, ContaminationIndex
from isara_pl.growth.outer_epoch import Growth
from isara_pl.growth.pool import SamplePool, Verdict
from isara_pl.growth.samples import Sample
from isara_pl.results.items import write_results
from isara_pl.run.folder import run_folder
from isara_pl.run.notices import rank_zero_warn
from isara_pl.run.trainer import callbacks_of

# how a sample is much like an item
KINDS = {"ngram": "by a run of words", "rouge": "by nearly the same words", "embedding": "by meaning"}


class ContaminationGuard(GrowthCallback):
    """Finds samples that share words with an evaluation item, or ask nearly the same.

    Every evaluation then also gives its figures over the items that no training sample touches, with the
    ending `_clean`, and marks the others in its file; so it does with items that a demonstration in their own
    prompt touches. All contacts with training samples are in `evaluation/contamination.jsonl`. As a filter it
    can reject such candidates. The items are data.held_out and those of all evaluations.

    Args:
        reject: Whether candidates that touch an item are rejected; otherwise they are only reported.
        ngram: Words in a row (characters in a script without spaces), of a question or an answer, that a sample
            may not share with an item.
        rouge: ROUGE-L F1 of the two questions above which they count as the same.
        cosine: Cosine of the two questions' embeddings above which they count as the same.

    Raises:
        InputError: If a number is out of range.
    """

    def __init__(self, reject: bool = False, ngram: int = 8, rouge: float = 0.7, cosine: float = 0.95) -> None:
        self.reject = reject
        self.ngram = ngram
        self.rouge = rouge
        self.cosine = cosine
        ContaminationIndex([], None, ngram, rouge, cosine)  # tells of wrong numbers before anything runs
        self._items: list[Sample] = []
        self._data: IsaraDataModule | None = None
        self._index: ContaminationIndex | None = None
        self._contacts: dict[str, list[Contact]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Collect the items of all evaluations."""
        self._data = data_of(trainer, self)
        self._items = _items(trainer, self._data)
        if not self._items:
            rank_zero_info("ContaminationGuard: there is no evaluation item, so nothing to look for")
        self._index = None
        self._contacts = {}

    def embeds(self, fits: bool) -> bool:
        """Whether there will be samples, which a pretrained model has not, and items that they might touch."""
        return fits and bool(self._items)

    def conditions_of(self, trainer: Trainer) -> dict[str, Any]:
        """Give what the pool depends on where candidates are rejected: the items of all evaluations."""
        if not self.reject:
            return {}
        items = _items(trainer, data_of(trainer, self))
        texts = [(item.question, item.answer, item.correct_answers, item.incorrect_answers) for item in items]
        digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12]
        return {"items of ContaminationGuard": f"{len(items)} evaluation items with the hash {digest}"}

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Judge by the number of items that the candidate touches, which is the figure."""
        touched = len(self.contacts([candidate]))
        return Verdict(touched, "touches an evaluation item" if touched and self.reject else None)

    def on_growth_end(self, trainer: Trainer, growth: Growth) -> None:
        """Say how many accepted samples touch an item; the first process filtered, and says it."""
        data = data_of(trainer, self)
        if not data.processes.is_first:
            return
        contacts = self.contacts(data.pool.accepted(growth.outer_epoch) if data.pool else [])
        if contacts:
            samples = len({contact.sample_id for contact in contacts})
            items = len({contact.item_id for contact in contacts})
            kinds = Counter(contact.kind for contact in contacts)
            how = ", ".join(f"{count} {KINDS[kind]}" for kind, count in kinds.most_common())
            rank_zero_warn(
                f"outer epoch {growth.outer_epoch}: of the samples that the model wrote, {samples} are much like "
                f"{items} of the questions that it is measured on ({how}). After training on them it may know the "
                "answers by heart; figures that end in _clean leave these questions out, and ContaminationGuard with "
                "reject true leaves such samples out"
            )

    def contaminated(self, trainer: Trainer, demonstrations: Mapping[str, Sequence[Sample]]) -> set[str] | None:
        """Give the ids of the items that training samples touch, or a demonstration in the item's own prompt.

        The demonstrations are those of each item, by its id. None where the pool that the model was trained on is not
        in the run folder.
        """
        data = data_of(trainer, self)
        samples = _trained_on(data)
        if samples is None:
            rank_zero_warn(
                f"no pool.jsonl in {trainer.default_root_dir}, so it is not known which evaluation items the model "
                "was trained on. Give the --run_dir of its fit"
            )
            return None
        contacts = self.contacts(samples)
        outer_epoch = outer_epoch_of_weights(trainer, trainer.lightning_module, data)
        if outer_epoch:
            self._write(trainer, data, outer_epoch, contacts)
        return {contact.item_id for contact in contacts} | {
            item
            for item, shown in demonstrations.items()
            if any(contact.item_id == item for contact in self.contacts(shown))
        }

    def _write(self, trainer: Trainer, data: IsaraDataModule, outer_epoch: int, contacts: Sequence[Contact]) -> None:
        run_dir = run_folder(trainer)
        if run_dir is None:
            return
        samples = {sample.id: sample for sample in (data.pool.samples if data.pool else data.seeds)}
        questions = {item.id: item.question for item in self._items}
        lines = [
            {
                "id": contact.item_id,
                "question": questions[contact.item_id],
                "sample": contact.sample_id,
                "sample_question": samples[contact.sample_id].question,
                "sample_answer": samples[contact.sample_id].answer,
                "kind": contact.kind,
                "by": contact.figure,
            }
            for contact in contacts
        ]
        write_results(run_dir, "contamination", outer_epoch, lines)

    def contacts(self, samples: Sequence[Sample]) -> list[Contact]:
        """Give the items that seeds, candidates or accepted samples touch; no sample is looked up twice."""
        if self._index is None:
            encoder = self._data.encoder if self._data else None
            self._index = ContaminationIndex(self._items, encoder, self.ngram, self.rouge, self.cosine)
        new = [sample for sample in samples if sample.id not in self._contacts]
        self._contacts.update((sample.id, []) for sample in new)
        for contact in self._index.contacts(new):
            self._contacts[contact.sample_id].append(contact)
        return [contact for sample in samples for contact in self._contacts[sample.id]]


def _items(trainer: Trainer, data: IsaraDataModule) -> list[Sample]:
    every = {item.id: item for item in data.held_out}
    for callback in callbacks_of(trainer):
        if isinstance(callback, Evaluation):
            every.update((item.id, item) for item in callback.items(data))
    return [*every.values()]


def _trained_on(data: IsaraDataModule) -> list[Sample] | None:
    """Give the samples that the measured model was trained on; None where they were generated and are not here."""
    outer_epoch = data.measured_outer_epoch
    if outer_epoch == 0:
        return []
    if data.pool is not None:
        return data.pool.up_to(outer_epoch)
    return None if data.settings.candidates else data.seeds
