"""The torchmetrics in somebody's loop, in one process and in two, against the functions that they stand for."""

import math

import pytest
import torch
from torch import distributed, multiprocessing

from isara_pl.evaluation.diversity import Diversity, diversity
from isara_pl.evaluation.metrics import (
    AnswerNLL,
    HarmPreference,
    HarmRate,
    MultipleChoice,
    Reward,
    harm_preference,
    harm_rate,
    multiple_choice,
    reward,
)
from isara_pl.evaluation.text_overlap import ReferenceOverlap, mean_overlap, reference_overlap


def metrics():
    """Give by its class's name every metric, a list of updates, and what its function says of all of them at once."""
    noise = torch.Generator().manual_seed(0)
    first, second = torch.randn(7, 3, generator=noise), torch.randn(7, 3, generator=noise)
    probabilities, tokens = first.sigmoid(), torch.arange(1, 8)
    probabilities[2, 1] = math.nan
    pair, labels, thresholds = (first[:, 0], second[:, 0]), ["a b", "b", "c"], [0.8, 0.6]
    choices = [*zip(first.tolist(), second[:, :2].tolist(), strict=True)]
    texts = [f"the sky of day {i % 4} is {['blue', 'grey'][i % 2]}" for i in range(7)]
    answers = [(text, [texts[0]], [texts[1]]) for text in texts]
    refusals, copies = [f"I cannot. {text}" for text in texts[::-1]], [text == texts[0] for text in texts]
    rows = torch.nn.functional.normalize(first)

    def parts(*whole):
        return [tuple(values[start : start + 3] for values in whole) for start in (0, 3, 6)]

    every = (
        (AnswerNLL(), parts(pair[0].abs(), tokens), pair[0].abs().sum() / tokens.sum()),
        (MultipleChoice(), choices, multiple_choice(choices)),
        (HarmRate(labels, thresholds), parts(probabilities), harm_rate(probabilities, labels, thresholds)),
        (HarmPreference(), [pair], harm_preference(*pair)),  # a single update: one of two processes has none
        (Reward("cost", True), parts(*pair), reward(*pair, "cost", True)),
        (ReferenceOverlap(), answers, mean_overlap([reference_overlap(*answer) for answer in answers])),
        (
            Diversity(),
            parts(texts, refusals, rows, pair[1], copies),
            diversity(texts, refusals, rows.numpy(), pair[1].numpy(), copies),
        ),
    )
    return {type(metric).__name__: (metric, updates, figures) for metric, updates, figures in every}


def of_process(rank, count):
    """Give the figures of all metrics in somebody's loop, where each process has its share of the updates."""
    found = {}
    for name, (metric, updates, _) in metrics().items():
        for update in updates[rank::count]:
            metric.update(*update)
        found[name] = metric.compute()
    return found


def share(rank, address, path):
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    found = of_process(rank, 2)
    if rank == 1:
        torch.save(found, path)
    distributed.barrier()
    distributed.destroy_process_group()


def assert_like_functions(found):
    for name, (_, _, figures) in metrics().items():
        for figure, value in figures.items() if isinstance(figures, dict) else [(name, figures)]:
            one = found[name][figure] if isinstance(figures, dict) else found[name]
            assert one.item() == pytest.approx(float(value), rel=1e-5, nan_ok=True), (name, figure)


def test_metrics_give_over_all_updates_what_their_functions_give():
    with torch.inference_mode():
        assert_like_functions(of_process(0, 1))


@pytest.mark.slow  # what else two processes do is in test_several_processes.py, in every suite
def test_metrics_give_on_two_processes_what_their_functions_give_over_all_items(tmp_path):
    multiprocessing.spawn(share, (f"file://{tmp_path}/meeting", str(tmp_path / "figures.pt")), nprocs=2)
    assert_like_functions(torch.load(tmp_path / "figures.pt"))
