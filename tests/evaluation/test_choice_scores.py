import pytest
import torch
from conftest import ARCHITECTURES, make_model
from helpers.arithmetic import product_of_16_bit_parts
from helpers.choice_scores import QUESTIONS
from lightning_utilities.core.rank_zero import WarningCache
from transformers import AutoModelForCausalLM, BloomConfig, MambaConfig

from isara_pl.errors import InputError
from isara_pl.evaluation import choice_scores as scoring
from isara_pl.evaluation.choice_scores import Question, choice_scores
from isara_pl.models.loading import load_causal_lm, load_tokenizer


def plain_pytorch(model, tokenizer, question: Question) -> list[float]:
    scores = []
    for choice in question.choices:
        start, ids = len(tokenizer(question.prompt).input_ids), tokenizer(question.prompt + choice).input_ids
        with torch.no_grad():
            logs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        scores.append(sum(logs[i - 1, ids[i]].item() for i in range(start, len(ids))))
    return scores


def ways_used(monkeypatch) -> list[str]:
    used = []
    for name in ("tree_scores", "row_scores"):
        own = getattr(scoring, name)
        monkeypatch.setattr(
            scoring, name, lambda *given, own=own, name=name, **more: used.append(name) or own(*given, **more)
        )
    return used


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_one_row_a_question_equals_plain_pytorch(tiny, architecture, attention, batch_size, monkeypatch):
    model, tokenizer = load_causal_lm(tiny(architecture)).eval(), load_tokenizer(tiny(architecture))
    model.set_attn_implementation(attention)
    used = ways_used(monkeypatch)
    found = choice_scores(model, tokenizer, QUESTIONS, batch_size)
    for question, scores in zip(QUESTIONS, found, strict=True):
        expected = plain_pytorch(model, tokenizer, question)
        assert [score.log_probability for score in scores] == pytest.approx(expected, rel=1e-5, abs=1e-4)
        assert [score.tokens for score in scores] == [
            len(tokenizer(question.prompt + choice).input_ids) - len(tokenizer(question.prompt).input_ids)
            for choice in question.choices
        ]
    assert used.count("tree_scores") == 1 + -(-len(QUESTIONS) // batch_size)  # the probe, and every batch
    assert used.count("row_scores") == 1


@pytest.mark.parametrize(
    "config",
    [
        BloomConfig(hidden_size=32, n_layer=2, n_head=2, vocab_size=400),  # positions come from the mask alone
        MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=4, vocab_size=400),  # no attention at all
    ],
    ids=["bloom", "mamba"],
)
def test_models_that_take_no_tree_are_scored_in_plain_rows_and_that_is_said_once(
    tiny_llama, config, monkeypatch, caplog
):
    monkeypatch.setattr(scoring, "_told", WarningCache())
    torch.manual_seed(0)
    config.initializer_range = 0.2
    model, tokenizer = AutoModelForCausalLM.from_config(config).eval(), load_tokenizer(tiny_llama)
    used = ways_used(monkeypatch)
    with caplog.at_level("INFO"):
        found = choice_scores(model, tokenizer, QUESTIONS, batch_size=2)
        choice_scores(model, tokenizer, QUESTIONS, batch_size=2)
    for question, scores in zip(QUESTIONS, found, strict=True):
        expected = plain_pytorch(model, tokenizer, question)
        assert [score.log_probability for score in scores] == pytest.approx(expected, rel=1e-5, abs=1e-4)
    assert "tree_scores" not in used
    assert [type(model).__name__ in text for text in caplog.messages if "a row of its own" in text] == [True]


def test_rounding_inside_of_float32_products_leaves_one_row_a_question(tiny_llama, monkeypatch):
    model, tokenizer = load_causal_lm(tiny_llama).eval(), load_tokenizer(tiny_llama)
    used = ways_used(monkeypatch)
    monkeypatch.setattr(torch.nn.functional, "linear", product_of_16_bit_parts)
    choice_scores(model, tokenizer, QUESTIONS, batch_size=3)
    assert used.count("tree_scores") == 2  # the probe, and the batch


def test_a_model_that_ignores_the_mask_is_found_out(tiny_llama, monkeypatch):
    model, tokenizer = load_causal_lm(tiny_llama).eval(), load_tokenizer(tiny_llama)
    expected = [plain_pytorch(model, tokenizer, question) for question in QUESTIONS]
    own = model.forward

    def forward(input_ids=None, attention_mask=None, position_ids=None, **more):
        mask = attention_mask if attention_mask.dim() == 2 else torch.ones_like(input_ids)
        return own(input_ids=input_ids, attention_mask=mask, position_ids=position_ids, **more)

    monkeypatch.setattr(model, "forward", forward)
    found = choice_scores(model, tokenizer, QUESTIONS, batch_size=2)
    assert [score.log_probability for score in found[0]] == pytest.approx(expected[0], rel=1e-5)


def test_the_sliding_window_of_a_model_is_respected(tmp_path, monkeypatch):
    folder = make_model(tmp_path, "qwen2")
    model, tokenizer = load_causal_lm(folder).eval(), load_tokenizer(folder)
    model.config.sliding_window = 8
    used = ways_used(monkeypatch)
    choice_scores(model, tokenizer, QUESTIONS, batch_size=2)
    assert "tree_scores" not in used


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_choice_longer_than_the_window_is_refused_and_many_short_ones_are_not(tmp_path, architecture):
    folder = make_model(tmp_path, architecture, window=64)
    model, tokenizer = load_causal_lm(folder).eval(), load_tokenizer(folder)
    long = Question(QUESTIONS[1].prompt, QUESTIONS[1].choices * 2 + (QUESTIONS[1].choices[0] * 9,))
    with pytest.raises(InputError, match=r"the model's window 64: 'Question: And who"):
        choice_scores(model, tokenizer, [QUESTIONS[0], long], 2)
    many = Question(QUESTIONS[0].prompt, QUESTIONS[0].choices * 5)  # the row is longer than the window
    (scores,) = choice_scores(model, tokenizer, [many], 2)
    expected = plain_pytorch(model, tokenizer, QUESTIONS[0]) * 5
    assert [score.log_probability for score in scores] == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_an_empty_choice_is_refused(tiny_llama):
    model, tokenizer = load_causal_lm(tiny_llama).eval(), load_tokenizer(tiny_llama)
    with pytest.raises(InputError, match="a choice has no tokens: ''"):
        choice_scores(model, tokenizer, [Question("Question: Why?\nAnswer:", (" So.", ""))], 2)
