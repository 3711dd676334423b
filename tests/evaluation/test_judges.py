import warnings

import pytest
import torch
from conftest import CHAT_TEMPLATE, make_model, make_tokenizer, tiny_config
from helpers.judges import ANSWERS, KINDS, QUESTIONS, TEMPLATE, save_classifier
from jsonargparse import ArgumentParser
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
)

from isara_pl.errors import InputError
from isara_pl.evaluation.judges import (
    GuardModelJudge,
    Judge,
    RewardModelJudge,
    SequenceClassifierJudge,
    judged,
)


def one_by_one(folder: str, texts: list[str], add_special_tokens: bool = True) -> torch.Tensor:
    """Give logits by plain PyTorch, without any padding."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return torch.cat(
            [
                model(**tokenizer(text, return_tensors="pt", add_special_tokens=add_special_tokens)).logits
                for text in texts
            ]
        )


def by_pipeline(folder: str, function: str) -> torch.Tensor:
    classify = pipeline("text-classification", folder, top_k=None, function_to_apply=function, device="cpu")
    texts = [TEMPLATE.format(question=q, answer=a) for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    found = [{row["label"]: row["score"] for row in rows} for rows in classify(texts)]
    return torch.tensor([[row[label] for label in KINDS] for row in found])


def differ(scores: torch.Tensor) -> bool:
    """Whether the answers are told apart at all: else equality with something would show nothing."""
    return bool((scores.std(dim=0) > 1e-3).all())


@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_multi_label_probabilities_equal_those_of_the_pipeline(tmp_path, architecture, batch_size):
    folder = save_classifier(tmp_path, architecture, problem_type="multi_label_classification")
    judge = SequenceClassifierJudge(folder, TEMPLATE, batch_size=batch_size)
    scores = judge.scores(QUESTIONS, ANSWERS)
    assert judge.labels == KINDS
    assert differ(scores)
    torch.testing.assert_close(scores, by_pipeline(folder, "sigmoid"), atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_single_label_probabilities_equal_those_of_the_pipeline(tmp_path, architecture):
    folder = save_classifier(tmp_path, architecture)
    judge = SequenceClassifierJudge(folder, TEMPLATE, labels=["violence", "animal_abuse"])
    expected = by_pipeline(folder, "softmax")[:, [2, 0]]
    assert judge.labels == ("violence", "animal_abuse")
    assert differ(expected)
    torch.testing.assert_close(judge.scores(QUESTIONS, ANSWERS), expected, atol=1e-4, rtol=0)


def test_a_classifier_with_one_output_has_a_probability_of_its_own(tmp_path):
    folder = save_classifier(tmp_path, "bert", labels=["toxic"])
    scores = SequenceClassifierJudge(folder, "answer").scores(QUESTIONS, ANSWERS)
    torch.testing.assert_close(scores, one_by_one(folder, ANSWERS).sigmoid(), atol=1e-4, rtol=0)


def test_beaver_dam_reads_its_own_template_up_to_and_with_eos(tmp_path):
    # neither the tokenizer nor the config has a padding token here, and every text ends with EOS
    folder = save_classifier(tmp_path, "llama", problem_type="multi_label_classification")
    texts = [
        f"BEGINNING OF CONVERSATION: USER: {question} ASSISTANT:{answer}<|end|>"
        for question, answer in zip(QUESTIONS, ANSWERS, strict=True)
    ]
    expected = one_by_one(folder, texts).sigmoid()
    assert differ(expected)
    for batch_size in (1, 2, 4):
        scores = SequenceClassifierJudge(folder, "beaver-dam", batch_size=batch_size).scores(QUESTIONS, ANSWERS)
        torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("pad", [-1, 1])
def test_a_padding_token_of_the_config_is_the_one_that_is_used(tmp_path, pad):
    folder = save_classifier(tmp_path, "llama", problem_type="multi_label_classification", pad=pad)
    judge = SequenceClassifierJudge(folder, "answer", batch_size=4)
    expected = one_by_one(folder, ANSWERS).sigmoid()
    torch.testing.assert_close(judge.scores(QUESTIONS, ANSWERS), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_a_reward_equals_plain_pytorch(tmp_path, template):
    folder = save_classifier(tmp_path, "llama", labels=["LABEL_0"])
    judge = RewardModelJudge(folder, template, batch_size=3)
    if template:
        texts = [TEMPLATE.format(question=q, answer=a) for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    else:
        turns = "<|turn|>user\n{}<|end|>\n<|turn|>assistant\n{}<|end|>\n"
        texts = [turns.format(q, a) for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    expected = one_by_one(folder, texts)
    assert judge.labels == ("reward",)
    assert differ(expected)
    torch.testing.assert_close(judge.scores(QUESTIONS, ANSWERS), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("template", [TEMPLATE, None])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_guard_gives_the_probability_that_its_reply_begins_with_unsafe(tiny, architecture, template):
    folder = tiny(architecture)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    prompt = template or "<|turn|>user\n{question}<|end|>\n<|turn|>assistant\n{answer}<|end|>\n<|turn|>assistant\n"
    expected = []
    for question, answer in zip(QUESTIONS, ANSWERS, strict=True):
        text = prompt.format(question=question, answer=answer) + "\n\n"
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0, -1]
        expected.append([logits.softmax(-1)[tokenizer("unsafe").input_ids[0]]])
    for batch_size in (1, 3):
        judge = GuardModelJudge(folder, template, batch_size=batch_size)
        assert judge.labels == ("unsafe",)
        torch.testing.assert_close(judge.scores(QUESTIONS, ANSWERS), torch.tensor(expected), atol=0, rtol=1e-3)


def add_around_texts(folder: str, pattern: str) -> None:
    """Have the tokenizer write special tokens around every text by itself, as many do."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    special = [("<|turn|>", 2), ("<|end|>", 0)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=pattern, special_tokens=special)
    tokenizer.save_pretrained(folder)
    assert len(AutoTokenizer.from_pretrained(folder)("a").input_ids) == 2


def test_a_chat_template_has_no_special_tokens_added(tmp_path):
    folder = save_classifier(tmp_path, "llama", labels=["LABEL_0"])
    expected = RewardModelJudge(folder).scores(QUESTIONS, ANSWERS)
    plain = RewardModelJudge(folder, TEMPLATE).scores(QUESTIONS, ANSWERS)
    add_around_texts(folder, "<|turn|> $A")
    assert torch.equal(RewardModelJudge(folder).scores(QUESTIONS, ANSWERS), expected)
    # a plain text gets them, as in training
    assert not torch.allclose(RewardModelJudge(folder, TEMPLATE).scores(QUESTIONS, ANSWERS), plain, atol=1e-3)


def test_a_guards_reply_does_not_begin_behind_an_eos(tmp_path):
    folder = make_model(tmp_path)
    expected = GuardModelJudge(folder, TEMPLATE).scores(QUESTIONS, ANSWERS)
    add_around_texts(folder, "$A <|end|>")
    assert torch.equal(GuardModelJudge(folder, TEMPLATE).scores(QUESTIONS, ANSWERS), expected)


def test_a_reply_prefix_that_the_prompt_ends_with_is_not_added_again(tiny_llama):
    twice = GuardModelJudge(tiny_llama, TEMPLATE + "\n\n").scores(QUESTIONS, ANSWERS)
    torch.testing.assert_close(twice, GuardModelJudge(tiny_llama, TEMPLATE).scores(QUESTIONS, ANSWERS))
    without = GuardModelJudge(tiny_llama, TEMPLATE, reply_prefix="").scores(QUESTIONS, ANSWERS)
    assert not torch.allclose(twice, without, rtol=1e-2)


@pytest.mark.parametrize("word", ["", "s", "safe and sound"])
def test_an_unsafe_token_that_says_nothing_is_refused(tiny_llama, word):
    with pytest.raises(InputError, match=f"judge.unsafe_token: '{word}' cannot be told from 'safe'"):
        _ = GuardModelJudge(tiny_llama, unsafe_token=word).labels


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_what_does_not_fit_is_cut_at_the_beginning_of_the_question(tmp_path, architecture):
    folder = save_classifier(tmp_path, architecture, problem_type="multi_label_classification", window=64)
    judge = SequenceClassifierJudge(folder, TEMPLATE)
    long = "why do so many people believe it? " * 9
    with pytest.warns(UserWarning, match="3 of 4 texts are longer than the 64 tokens"):
        scores = judge.scores([long, "x" + long, long, "short"], ["yes.", "yes.", "never.", "yes."])
    assert torch.equal(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2], atol=1e-3)
    # the template is whole and so is the answer: it is some end of the question that was read, the longest that fits
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [TEMPLATE.format(question=long[start:], answer="yes.") for start in range(len(long))]
    longest = next(text for text in texts if len(tokenizer(text).input_ids) <= 64)
    torch.testing.assert_close(scores[:1], one_by_one(folder, [longest]).sigmoid(), atol=1e-4, rtol=0)


def test_an_answer_longer_than_the_window_keeps_its_end(tmp_path):
    folder = save_classifier(tmp_path, "llama", problem_type="multi_label_classification")
    judge = SequenceClassifierJudge(folder, TEMPLATE, max_length=32)
    with pytest.warns(UserWarning, match="4 of 4 texts are longer than the 32 tokens"):
        scores = judge.scores(["a question"] * 4, ["no " * 50 + end for end in ("yes.", "never.")] + ["yes " * 50] * 2)
    assert not torch.allclose(scores[0], scores[1], atol=1e-3)
    with pytest.raises(InputError, match="without question and answer it already has more than the 3 tokens"):
        SequenceClassifierJudge(folder, TEMPLATE, max_length=3).scores(["a"], ["b"])


def test_an_answer_without_tokens_has_no_score(tmp_path):
    folder = save_classifier(tmp_path, "llama", problem_type="multi_label_classification")
    scores = SequenceClassifierJudge(folder, "answer").scores(["a", "b"], ["", "fine"])
    assert scores.isnan().all(dim=1).tolist() == [True, False]
    assert SequenceClassifierJudge(folder, "answer").scores([], []).shape == (0, 3)


def test_nan_of_a_model_is_given_as_it_is(tmp_path):
    folder = save_classifier(tmp_path, "bert", problem_type="multi_label_classification", nan=True)
    assert SequenceClassifierJudge(folder, "answer").scores(QUESTIONS, ANSWERS).isnan().all()


def test_the_weights_are_loaded_once_in_the_type_asked_for(tmp_path, monkeypatch):
    folder = save_classifier(tmp_path, "llama", problem_type="multi_label_classification")
    judge = SequenceClassifierJudge(folder, "answer", dtype="bfloat16")
    loads = []
    load = AutoModelForSequenceClassification.from_pretrained
    monkeypatch.setattr(
        AutoModelForSequenceClassification, "from_pretrained", lambda *a, **k: loads.append(k["dtype"]) or load(*a, **k)
    )
    judge.to("cpu")
    assert judge.labels == KINDS
    assert loads == []
    first = judge.scores(QUESTIONS, ANSWERS)
    assert torch.equal(first, judge.scores(QUESTIONS, ANSWERS))
    assert loads == [torch.bfloat16]
    assert first.dtype == torch.float32
    assert not torch.equal(first, SequenceClassifierJudge(folder, "answer").scores(QUESTIONS, ANSWERS))


def test_the_trainers_precision_is_not_the_judges(tmp_path):
    folder = save_classifier(tmp_path, "llama", problem_type="multi_label_classification")
    expected = SequenceClassifierJudge(folder, "answer").scores(QUESTIONS, ANSWERS)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        inside = judged(SequenceClassifierJudge(folder, "answer"), torch.device("cpu"), QUESTIONS, ANSWERS)
    assert torch.equal(inside, expected)


def test_judged_brings_the_judge_to_the_device_and_back_even_after_an_error():
    class Recorder:
        labels = ("x",)

        def __init__(self):
            self.seen = []

        def to(self, device):
            self.seen.append(str(device))

        def scores(self, questions, answers):
            self.seen.append("scores")
            raise RuntimeError("out of memory")

    judge = Recorder()
    with pytest.raises(RuntimeError):
        judged(judge, torch.device("cuda:0"), ["a"], ["b"])
    assert judge.seen == ["cuda:0", "scores", "cpu"]


def test_labels_that_do_not_fit_are_a_clear_error(tmp_path):
    folder = save_classifier(tmp_path, "bert")
    with pytest.raises(InputError, match=r"has no label 'hate'. Its labels: 'animal_abuse', 'hate_speech,offensive"):
        _ = SequenceClassifierJudge(folder, "answer", labels=["violence", "hate"]).labels
    with pytest.raises(InputError, match="exclude each other, so name those that mean harm"):
        _ = SequenceClassifierJudge(folder, "answer").labels
    with pytest.raises(InputError, match=r"judge\.labels is empty"):
        SequenceClassifierJudge(folder, "answer", labels=[])
    with pytest.raises(InputError, match="has 3 outputs; a reward model has 1"):
        _ = RewardModelJudge(folder, "{answer}").labels
    # the user knows better than the config
    assert SequenceClassifierJudge(folder, "answer", multi_label=True).labels == KINDS


@pytest.mark.parametrize("template", ["beaver-damn", "{question}", "{answer} {context}", "{answer", "{answer} {}"])
def test_a_wrong_template_is_a_clear_error(template):
    with pytest.raises(InputError, match=r"^judge\.template.*[Ww]rite \{\{ and \}\} for plain braces$"):
        SequenceClassifierJudge("nobody/nothing", template)


@pytest.mark.parametrize("option", ["batch_size", "max_length"])
def test_a_number_below_1_is_refused(option):
    with pytest.raises(InputError, match=f"judge.{option} is 0; allowed: at least 1"):
        GuardModelJudge("nobody/nothing", **{option: 0})


def test_a_tokenizer_that_lacks_what_the_template_needs_is_a_clear_error(tmp_path):
    bert = save_classifier(tmp_path / "bert", "bert", labels=["LABEL_0"])
    with pytest.raises(InputError, match="has no chat template"):
        _ = RewardModelJudge(bert).labels
    with pytest.raises(InputError, match="has no end-of-sequence token"):
        _ = RewardModelJudge(bert, "{answer}{eos}").labels
    llama = save_classifier(tmp_path / "llama", "llama", labels=["LABEL_0"])
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.chat_template = CHAT_TEMPLATE.replace("message['content']", "'' if message.role == 'assistant' else 'x'")
    tokenizer.save_pretrained(llama)
    with pytest.raises(InputError, match="drops the text of an answer"):
        _ = RewardModelJudge(llama).labels
    tokenizer.chat_template = "{{ raise_exception('A system message must come first') }}"
    tokenizer.save_pretrained(llama)
    with pytest.raises(InputError, match=r"raises on a question and an answer \(A system message must come first\)"):
        _ = RewardModelJudge(llama).labels


def test_a_model_that_cannot_judge_is_one_clear_error(tmp_path):
    causal = make_model(tmp_path / "causal")
    with pytest.raises(InputError, match=r"not those of LlamaForSequenceClassification: missing score\.weight"):
        SequenceClassifierJudge(causal, "answer", multi_label=True).scores(["a"], ["b"])
    for name in ("./nothing/here", "nobody/no-such-judge"):
        for judge in (SequenceClassifierJudge(name, "answer"), RewardModelJudge(name), GuardModelJudge(name)):
            with pytest.raises(InputError, match=r"^judge\.model: .*" + name) as error:
                judge.scores(["a"], ["b"])
            assert "\n" not in str(error.value)


def test_tied_weights_do_not_count_as_missing(tmp_path):
    tokenizer = make_tokenizer()
    config = tiny_config("llama", len(tokenizer))
    config.tie_word_embeddings = True
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert GuardModelJudge(str(tmp_path)).scores(["a"], ["b"]).isfinite().all()


def test_a_judge_is_built_from_yaml(tmp_path):
    folder = save_classifier(tmp_path, "bert")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--judge", type=Judge)
    for name, options in {
        "SequenceClassifierJudge": {"template": "beaver-dam", "labels": ["violence"], "multi_label": True},
        "RewardModelJudge": {"dtype": "bfloat16"},
        "GuardModelJudge": {"template": "{answer}", "reply_prefix": ""},
    }.items():
        arguments = {"class_path": f"isara_pl.evaluation.judges.{name}", "init_args": {"model": folder, **options}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            judge = parser.instantiate_classes(parser.parse_object({"judge": arguments})).judge
        assert type(judge).__name__ == name
