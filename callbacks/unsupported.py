"""Rejects answers that the demonstrations in their prompt do not make likelier."""

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from isara_pl.callbacks.answer_scoring import check_scores, scores_of
from isara_pl.callbacks.evaluation import data_of
from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.datamodule.growing import fits_window
from isara_pl.errors import InputError
from isara_pl.evaluation.choice_scores import Question
from isara_pl.growth.pool import SamplePool, Verdict
from isara_pl.growth.samples import Sample
from isara_pl.module import IsaraModule
from isara_pl.run.stages import stage

ROWS = 8  # scored at once


class Unsupported(Callback):
    """Rejects a candidate whose answer the demonstrations in its prompt support too little.

    The figure is by how much they raise the answer's log-probability, in nats per token: log p(answer | demonstrations,
    question) - log p(answer | question), divided by its tokens, so that one threshold serves short and long answers.
    The model that wrote the answer is asked; that takes about as long as reading the prompts takes while generating. A
    module of one's own needs `score(prompts, answers)`.

    Args:
        threshold: Lowest figure that is accepted; 0 rejects what demonstrations make less likely.
    """

    def __init__(self, threshold: float = 0.0) -> None:
        self.threshold = threshold
        self._gains: dict[str, float] = {}  # of the batch, by id

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module that cannot be asked by the first process alone."""
        self._data: IsaraDataModule = data_of(trainer, self)
        self._module = pl_module
        check_scores(pl_module, self)
        if getattr(trainer.strategy, "shards_model", False):
            raise InputError(
                "Unsupported: the first process alone filters, and with trainer.strategy adapter_fsdp it holds a part "
                "of the model. Take Unsupported out of trainer.callbacks, or use ddp or a single process"
            )

    def on_candidates(self, candidates: Sequence[Sample], pool: SamplePool) -> None:
        """Score the answers of a batch, each behind its prompt and behind the same without demonstrations."""
        texts, fits = self._data.prompt_format, fits_window(self._module, self._data.tokenizer)
        known = {sample.id: sample for sample in pool.samples}
        asked: dict[str, tuple[Question, Question]] = {}
        for one in candidates:
            shown = [known[name] for name in one.answer_demonstrations]
            prompts = [texts.answer_prompt(one.question, some) for some in (shown, [])]
            answer = (texts.answer_text(one.answer),)
            if one.answer.strip() and (fits is None or fits(prompts[0] + answer[0], 0)):
                asked[one.id] = Question(prompts[0], answer), Question(prompts[1], answer)
        computing = self._module.generating() if isinstance(self._module, IsaraModule) else nullcontext()
        with stage("scoring", total=2 * len(asked)), computing, torch.inference_mode():
            found = scores_of(self._module, [question for both in asked.values() for question in both], ROWS, False)
        each = [of_one.log_probability / of_one.tokens for (of_one,) in found]
        self._gains = dict(zip(asked, (a - b for a, b in zip(each[::2], each[1::2], strict=True)), strict=True))

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Judge by the gain per token, which is the figure; 0 for an answer that cannot be scored."""
        gain = self._gains.get(candidate.id, 0.0)
        if not math.isfinite(gain):
            return Verdict(0.0, "the model gives it no finite log-probability")
        return Verdict(gain, f"supported by less than {self.threshold} nats a token" if gain < self.threshold else None)
