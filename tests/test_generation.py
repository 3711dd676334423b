import pytest
import torch
from conftest import ARCHITECTURES, make_model

from isara_pl.errors import InputError
from isara_pl.generation.huggingface import HuggingFaceGenerator
from isara_pl.generation.protocol import Sampling
from isara_pl.models import load_causal_lm, load_tokenizer

PROMPTS = [f"Question: Why is the sky {'very ' * i}blue?\nAnswer:" for i in (3, 0, 7, 1, 5)]
GREEDY = Sampling(do_sample=False, max_new_tokens=12)


def engine(folder: str, batch_size: int = 4) -> HuggingFaceGenerator:
    return HuggingFaceGenerator(load_causal_lm(folder).eval(), load_tokenizer(folder), batch_size)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_batches_equal_plain_greedy_decoding(tiny, architecture):
    generator = engine(tiny(architecture))
    tokenizer, model = generator.tokenizer, generator.model
    for prompt, completion in zip(PROMPTS, generator.generate(PROMPTS, GREEDY), strict=True):
        ids = tokenizer(prompt).input_ids
        written: list[int] = []
        with torch.no_grad():
            while len(written) < 12:
                logits = model(input_ids=torch.tensor([ids + written])).logits[0, -1]
                if not written:
                    logits[tokenizer.eos_token_id] = -torch.inf
                written.append(int(logits.argmax()))
                if written[-1] == tokenizer.eos_token_id:
                    break
        finished = written[-1] == tokenizer.eos_token_id
        assert completion.finished is finished
        assert completion.text.rstrip() == tokenizer.decode(written, skip_special_tokens=True).rstrip()


def test_a_newline_inside_a_token_ends_a_completion_where_asked(tiny_llama):
    generator = engine(tiny_llama)
    stop = Sampling(max_new_tokens=60, stop_at_newline=True, temperature=2.0)
    completions = generator.generate(PROMPTS * 8, stop)
    assert any(completion.finished for completion in completions)
    assert not any("\n" in completion.text for completion in completions)
    free = generator.generate(PROMPTS * 8, Sampling(max_new_tokens=60, temperature=2.0))
    assert any("\n" in completion.text for completion in free)


def test_draws_follow_from_the_seed_alone_and_leave_the_process_as_it_was(tiny_llama):
    generator = engine(tiny_llama)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = generator.generate(PROMPTS, Sampling(seed=1))
    assert torch.equal(torch.rand(3), expected)
    assert generator.generate(PROMPTS, Sampling(seed=1)) == first
    assert generator.generate(PROMPTS, Sampling(seed=2)) != first


def test_a_prompt_longer_than_the_window_is_refused(tmp_path):
    generator = engine(make_model(tmp_path, "gpt2", window=32))
    with pytest.raises(InputError, match=r"a prompt of \d+ tokens and 12 new ones do not fit .* window of 32"):
        generator.generate(PROMPTS, GREEDY)


def test_no_prompts_give_no_completions(tiny_llama):
    assert engine(tiny_llama).generate([], GREEDY) == []


def test_beam_sampling_and_penalties_are_reachable(tiny_llama):
    sampling = Sampling(max_new_tokens=8, num_beams=3, repetition_penalty=1.2, no_repeat_ngram_size=2)
    for completion in engine(tiny_llama).generate(PROMPTS, sampling):
        assert completion.text


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", 0), ("top_p", 0), ("max_new_tokens", 0), ("num_beams", 0), ("top_k", -1)]
)
def test_numbers_outside_their_range_are_refused(field, value):
    with pytest.raises(InputError, match=f"sampling: {field} is {value}; allowed"):
        Sampling(**{field: value})
