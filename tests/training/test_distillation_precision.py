"""Distillation in other precisions, and with activations that are computed twice."""

import pytest
import torch
from conftest import make_seeds
from helpers.distillation import lesson
from helpers.several_processes import FakeTrainer
from helpers.teaching import Run
from helpers.training import loaded
from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision

from isara_pl.generation.distributions import TopLogprobs, top_logprobs
from isara_pl.growth.prompts import prompt_format
from isara_pl.training.pairs import collate, encode_pair
from isara_pl.training.step import answer_losses


def taught_batch(module):
    """Give pairs of which every second one has a teacher."""
    qa, vocabulary = prompt_format("qa", None), module.adapted.config.vocab_size
    pairs = [encode_pair(seed, qa, module.tokenizer, 256, end=True) for seed in make_seeds(4)]
    return collate(
        [
            lesson(pair, vocabulary, place, learned=place == 2) if place % 2 == 0 else pair
            for place, pair in enumerate(pairs)
        ],
        module.tokenizer.pad_token_id,
    )


def test_activations_that_are_computed_twice_give_the_same_gradient(tiny_llama):
    found = []
    for twice in (False, True):
        module = loaded(tiny_llama, gradient_checkpointing=twice, distill_weight=0.3)
        module.log = lambda *_, **__: None
        module._trainer = FakeTrainer(1)
        assert module.adapted.get_base_model().is_gradient_checkpointing is twice
        loss = module.training_step(taught_batch(module), 0)
        loss.backward()
        found.append([loss.detach(), *(one.grad for one in module.parameters() if one.requires_grad)])
    for without, of_twice in zip(*found, strict=True):
        torch.testing.assert_close(of_twice, without, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("plugin", "within"),
    [(HalfPrecision("bf16-true"), 0.05), (HalfPrecision("16-true"), 0.01), (DoublePrecision(), 1e-4)],
)
def test_a_batch_that_lightning_casts_gives_the_same_losses(tiny_llama, plugin, within):
    module = loaded(tiny_llama)
    batch = taught_batch(module)
    cast = plugin.convert_input(batch)
    assert cast["taught"]["rest"].dtype != torch.float32
    with torch.no_grad():
        exact = answer_losses(module.adapted, batch)
        for few in (False, True):
            if few:  # with a rest
                kept = top_logprobs(torch.randn(len(batch["taught"]["rest"]), 50), [], TopLogprobs(8, 0))
                batch["taught"].update(ids=kept.ids, log_probs=kept.log_probs, rest=kept.rest)
                exact, cast = answer_losses(module.adapted.float(), batch), plugin.convert_input(batch)
            given = answer_losses(plugin.convert_module(module.adapted), cast)
            assert given[1].dtype == torch.float32
            assert (given[1] > 0).tolist() == [True, False, True, False]
            for one, of_float in zip(given, exact, strict=True):
                torch.testing.assert_close(one, of_float, rtol=within, atol=within)


def test_mixed_precision_asks_and_learns_finite_numbers(speaker, tiny_encoder, seeds_file, tmp_path):
    run = Run(
        speaker, tiny_encoder, seeds_file, tmp_path, precision="bf16-mixed", objective="sft+distill", top_logprobs=8
    )
    assert 0 < len(run.seen.asked) < len(run.taught), "some are recorded, the others asked"
    for kept in run.taught.values():
        assert kept.rest.isfinite().all()
        torch.testing.assert_close(kept.log_probs.exp().sum(-1) + kept.rest, torch.ones(len(kept)))
    for name, weight in run.module.state_dict().items():
        assert weight.isfinite().all()
        assert not torch.equal(weight, run.seen.weights[0][name])
