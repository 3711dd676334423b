"""Whether what the model writes stays varied, or collapses."""

import math

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

from isara_pl.callbacks.evaluation import Measurement, data_of
from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.datamodule.pooled_data import outer_epoch_of_weights
from isara_pl.evaluation.diversity import diversity, is_copy, nearest_cosine
from isara_pl.evaluation.refusals import is_refusal
from isara_pl.growth.samples import Sample
from isara_pl.results.items import write_results
from isara_pl.run.folder import run_folder


class DiversityMonitor(Measurement):
    """Logs the diversity of an outer epoch's accepted samples at the end of every validation and test.

    For the pretrained model it is that of the seeds. Logged are `distinct_1_questions`,
    `distinct_2_questions`, `distinct_1_answers` and `distinct_2_answers` (share of distinct n-grams),
    `nearest_seed_cosine` and `nearest_pool_cosine` (mean cosine with the nearest seed, and with the nearest
    other sample of the same outer epoch), `vendi_score` (how many different questions there are, in effect),
    `answer_words`, `refusal_rate` (a rule of thumb, English only) and `copy_rate` (answers that a
    demonstration had). All but the means depend on the number of samples. Every sample's own figures are in
    `evaluation/diversity.jsonl`.
    """

    name = "diversity"

    def embeds(self, fits: bool) -> bool:
        """It does whenever it measures."""
        return True

    def evaluate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the newest samples, log the figures and write the lines."""
        data = data_of(trainer, self)
        outer_epoch = data.measured_outer_epoch
        if outer_epoch and data.pool is None and data.settings.candidates:
            return  # a model from elsewhere: what it was trained on is not here
        samples = data.pool.accepted(outer_epoch) if data.pool and outer_epoch else data.seeds
        embeddings = data.encoder.encode([sample.question for sample in samples]) if samples else np.zeros((0, 1))
        seeds = data.encoder.encode([seed.question for seed in data.seeds]) if outer_epoch else None
        cosines = nearest_cosine(embeddings, seeds)  # a seed's is with the nearest other seed
        copies = _copies(data, samples)
        questions, answers = ([getattr(sample, part) for sample in samples] for part in ("question", "answer"))
        for name, value in diversity(questions, answers, embeddings, cosines, copies).items():
            # several GPUs average only what lies on them; NaN without samples, else the figures of the outer epoch
            # before would stay
            figure = torch.tensor(value if samples else math.nan, dtype=torch.float32, device=pl_module.device)
            pl_module.log(name, figure, batch_size=max(len(samples), 1), sync_dist=True)
        run_dir, finished = run_folder(trainer), outer_epoch_of_weights(trainer, pl_module, data)
        if run_dir is not None and finished is not None:
            lines = [
                {
                    "id": sample.id,
                    "question": sample.question,
                    "seeds": data.seeds_hash,
                    "nearest_seed_cosine": float(cosine),
                    "answer_words": len(sample.answer.split()),
                    "refusal": is_refusal(sample.answer),
                    "copy": copy,
                    "answer": sample.answer,
                }
                for sample, cosine, copy in zip(samples, cosines, copies, strict=True)
            ]
            write_results(run_dir, self.name, finished, lines)


def _copies(data: IsaraDataModule, samples: list[Sample]) -> list[bool]:
    answers = {sample.id: sample.answer for sample in (data.pool.samples if data.pool else data.seeds)}
    return [
        is_copy(sample.answer, [answers[name] for name in sample.answer_demonstrations if name in answers])
        for sample in samples
    ]
