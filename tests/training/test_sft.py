import pytest
import torch
from conftest import ARCHITECTURES, make_seeds, make_tokenizer
from tokenizers import processors
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from isara_pl.errors import InputError
from isara_pl.growth.pool import SamplePool
from isara_pl.growth.prompts import prompt_format
from isara_pl.growth.samples import Sample
from isara_pl.models.loading import load_causal_lm, load_tokenizer
from isara_pl.models.tokens import encode_continuation, encode_prompt
from isara_pl.training.pairs import SftLoader, TooLong, answer_nll, collate, encode_pair, length_grouped_batches

QA = prompt_format("qa", None)


def encoded(tokenizer, end=True, max_length=500):
    return [encode_pair(sample, QA, tokenizer, max_length, end) for sample in make_seeds()]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nll_equals_plain_pytorch_one_pair_at_a_time(tiny, architecture):
    tokenizer = load_tokenizer(tiny(architecture))
    model = load_causal_lm(tiny(architecture)).eval()
    plain = AutoModelForCausalLM.from_pretrained(tiny(architecture)).eval()
    pairs = encoded(tokenizer)
    with torch.no_grad():
        sums, tokens = answer_nll(model, collate(pairs, tokenizer.pad_token_id))
        for pair, total, count in zip(pairs, sums, tokens, strict=True):
            logits = plain(input_ids=torch.tensor([pair.input_ids])).logits[0]
            nll = -logits.log_softmax(-1)
            reference = sum(nll[i - 1, pair.input_ids[i]] for i in range(pair.prompt_length, len(pair.input_ids)))
            assert total.item() == pytest.approx(reference.item(), rel=1e-4)
            assert count == len(pair.input_ids) - pair.prompt_length


def test_the_output_layer_is_run_where_there_is_loss_and_nowhere_else(tiny_llama):
    tokenizer, model = load_tokenizer(tiny_llama), load_causal_lm(tiny_llama)
    batch = collate(encoded(tokenizer), tokenizer.pad_token_id)
    rows: list[tuple[int, ...]] = []
    model.lm_head.register_forward_hook(lambda _, inputs, output: rows.append(tuple(output.shape[:-1])))
    answer_nll(model, batch)
    model(input_ids=batch["input_ids"])
    assert rows == [(1, int((batch["labels"] != -100).sum())), tuple(batch["input_ids"].shape)], "only inside the block"


def test_what_a_model_does_to_its_logits_stays():
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, final_logit_softcapping=0.5, initializer_range=0.2,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    pairs = encoded(tokenizer)
    with torch.no_grad():
        sums, _ = answer_nll(model, collate(pairs, tokenizer.pad_token_id))
        for pair, total in zip(pairs, sums, strict=True):
            ids = torch.tensor([pair.input_ids])
            labels = torch.where(torch.arange(ids.shape[1]) < pair.prompt_length, -100, ids)
            mean = model(input_ids=ids, labels=labels).loss  # transformers' own
            assert total.item() == pytest.approx(mean.item() * (ids.shape[1] - pair.prompt_length), rel=1e-4)


def test_loss_is_on_the_answer_and_its_end_only():
    tokenizer = make_tokenizer()
    sample = make_seeds()[0]
    pair = encode_pair(sample, QA, tokenizer, 500, end=True)
    labels = collate([pair], 1)["labels"][0]
    assert tokenizer.decode(labels[labels != -100]) == f" {sample.answer}<|end|>"
    assert tokenizer.decode(pair.input_ids) == f"Question: {sample.question}\nAnswer: {sample.answer}<|end|>"
    unended = encode_pair(sample, QA, tokenizer, 500, end=False)
    assert pair.input_ids == [*unended.input_ids, tokenizer.eos_token_id]


def test_masks_come_from_lengths_even_where_eos_pads():
    tokenizer = make_tokenizer()
    batch = collate(encoded(tokenizer), tokenizer.eos_token_id)
    lengths = [len(pair.input_ids) for pair in encoded(tokenizer)]
    assert batch["attention_mask"].sum(1).tolist() == lengths
    ends = [row[length - 1].item() for row, length in zip(batch["labels"], lengths, strict=True)]
    assert set(ends) == {tokenizer.eos_token_id}


def test_no_token_straddles_prompt_and_answer():
    tokenizer = make_tokenizer()
    for prompt, rest in [("Question: a\nAnswer:", " the sky"), ("abc", "def"), ("Answer: th", "e sky"), ("x\n", "\ny")]:
        prompt_ids, rest_ids = encode_continuation(tokenizer, prompt, rest)
        assert tokenizer.decode(prompt_ids) == prompt
        assert tokenizer.decode(rest_ids) == rest


def test_a_tokenizer_that_appends_eos_does_not_end_the_prompt():
    tokenizer = make_tokenizer()
    end = ("<|end|>", tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|end|>", special_tokens=[end]
    )
    assert tokenizer("abc").input_ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(encode_prompt(tokenizer, "abc")) == "abc"
    assert [tokenizer.decode(ids) for ids in encode_continuation(tokenizer, "abc", " def")] == ["abc", " def"]


def test_a_question_that_fills_a_pair_is_rejected_before_it_is_trained_on():
    judge = TooLong(QA, make_tokenizer(), max_length=60)
    pool = SamplePool(make_seeds())
    assert judge.verdict(Sample("1-00000", "Why so?", "So."), pool).reason is None
    assert judge.verdict(Sample("1-00000", "Why so, " * 30, "So."), pool).reason == "question fills all 60 tokens"


def test_long_answers_are_cut_and_long_questions_refused():
    tokenizer = make_tokenizer()
    whole = encode_pair(make_seeds()[0], QA, tokenizer, 500, end=True)
    cut = encode_pair(make_seeds()[0], QA, tokenizer, whole.prompt_length + 2, end=True)
    assert cut.input_ids == whole.input_ids[: whole.prompt_length + 2]
    with pytest.raises(InputError, match=r"sample seed-00000 alone has \d+ tokens; at most 4 are allowed"):
        encode_pair(make_seeds()[0], QA, tokenizer, 4, end=True)


def test_batches_hold_everything_once_and_are_of_like_length():
    lengths = [(i * 7919) % 300 for i in range(103)]
    batches = length_grouped_batches(lengths, 8, seed=0)
    assert sorted(place for batch in batches for place in batch) == list(range(103))
    assert batches == length_grouped_batches(lengths, 8, seed=0) != length_grouped_batches(lengths, 8, seed=1)
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    unsorted = sum(max(lengths[i : i + 8]) * len(lengths[i : i + 8]) for i in range(0, 103, 8))
    assert padded < 0.75 * unsorted


def test_a_loader_resumes_after_the_batches_it_gave():
    pairs = encoded(make_tokenizer())
    batches = length_grouped_batches([1] * len(pairs), 2, seed=0)

    def loader(epoch=3):
        return SftLoader(pairs, batches, epoch, 1)

    first = loader()
    iterator = iter(first)
    given = [next(iterator)["sample_ids"] for _ in range(3)]
    again = loader()
    again.load_state_dict(first.state_dict())
    rest = [batch["sample_ids"] for batch in again]
    assert given + rest == [batch["sample_ids"] for batch in loader()]
    assert len(again) == len(batches)
    assert len(list(again)) == len(batches), "only the resumed pass is shorter"
    other_epoch = loader(epoch=4)
    other_epoch.load_state_dict(first.state_dict())
    assert len(list(other_epoch)) == len(batches)
