"""vLLM servers as the engine: what is asked, what comes of the answers, and what happens when they go wrong."""

import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.distillation import dense
from helpers.engines import make_served
from helpers.generation import PROMPTS, engine
from helpers.stand_in import COMPLETES, StandIn, standing_in

from isara_pl.errors import InputError
from isara_pl.generation.distributions import TopLogprobs, top_logprobs, without_ends
from isara_pl.generation.engine import GenerationEngine
from isara_pl.generation.protocol import Sampling
from isara_pl.generation.vllm import GeneratorOptions, VllmEngine, VllmServers, folded

GREEDY = Sampling(do_sample=False, max_new_tokens=6)
SAMPLED = Sampling(temperature=0.9, top_p=0.95, top_k=50, max_new_tokens=6, stop_at_newline=True)
SEEDS = [11, 22, 33, 44, 55]
QUICK = {"timeout": 1.0, "patience": 10.0}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_served(tmp_path_factory.mktemp("served"))


@pytest.fixture
def server(served):
    with standing_in(served) as started:
        yield started


def asking(folder: str, *servers: StandIn, **options) -> VllmEngine:
    urls = [server.url for server in servers]
    return VllmEngine(
        VllmServers(GeneratorOptions("vllm", urls, **{**QUICK, **options})), engine(folder), lambda *tokens: sum(tokens)
    )


# -- the same as the built-in engine


@pytest.mark.parametrize("stop_at_newline", [False, True])
def test_greedy_completions_are_those_of_the_builtin_engine(served, server, stop_at_newline):
    sampling = replace(GREEDY, stop_at_newline=stop_at_newline, max_new_tokens=12)
    theirs = asking(served, server).generate(PROMPTS, sampling, SEEDS)
    ours = engine(served).generate(PROMPTS, sampling, SEEDS)
    assert [(one.text, one.finished, one.ids) for one in theirs] == [(one.text, one.finished, one.ids) for one in ours]


@pytest.mark.parametrize("count", [3, 20, 10**6])
def test_distributions_are_those_of_the_builtin_engine(served, server, count):
    local = engine(served)
    top = TopLogprobs(count, local.tokenizer.eos_token_id)
    sampling = replace(SAMPLED, max_new_tokens=40, top_p=1.0, top_k=0)
    theirs = asking(served, server).generate(PROMPTS, sampling, SEEDS, top)
    ours = local.distributions(PROMPTS, [[*one.ids] for one in theirs], sampling, top)
    assert any(one.finished for one in theirs)
    for one, expected in zip(theirs, ours, strict=True):
        told = one.distributions
        assert len(told) == len(one.ids) + one.finished
        expected = expected.rows(0, len(told))
        assert told.ids.shape == expected.ids.shape
        # ends that a server does not tell are each less likely than what it tells; where it tells all, nothing differs
        untold = 0 if count > 400 else len(local.stop_ids(sampling)) * told.log_probs.exp().min(dim=-1).values
        for found, exact in ((told.log_probs.exp().T, expected.log_probs.exp().T), (told.rest, expected.rest)):
            assert ((found - exact).abs() <= untold + 2e-6 + 1e-4 * exact).all()
        # each token is named once, and ends whose mass is elsewhere have none
        assert all(len(set(row)) == len(row) for row in told.ids.tolist())
        if count > 400:
            torch.testing.assert_close(dense(told, 400), dense(expected, 400), rtol=1e-4, atol=1e-6)


def test_ends_that_a_server_does_not_tell_are_part_of_the_rest():
    logits = torch.tensor([[0.0, -9.0, 3.0, 2.0, 1.0, -8.0], [5.0, 4.0, 3.0, 2.0, 1.0, -8.0]])
    log_probs = logits.log_softmax(-1)
    stops, top = [0, 1, 5], TopLogprobs(2, 0)
    told = [{token: float(row[token]) for token in row.topk(4).indices.tolist()} for row in log_probs]
    found = folded(told, stops, top, 6)
    exact = [top_logprobs(without_ends(logits[:1], stops), stops, top), top_logprobs(logits[1:], stops, top)]
    assert (
        [row.tolist() for row in found.ids] == [[2, 3], [0, 2]] == [exact[0].ids[0].tolist(), exact[1].ids[0].tolist()]
    )
    untold = log_probs.exp()[:, [1, 5]].sum(-1)  # of the first place, and token 5 of the second
    assert (found.rest[0] - exact[0].rest[0]).abs() <= untold[0] * 2
    assert (found.rest[1] - exact[1].rest[0]).abs() <= log_probs.exp()[1, 5] + 1e-6
    totals = found.log_probs.exp().sum(-1) + found.rest
    torch.testing.assert_close(totals, torch.ones(2))


def test_every_candidate_is_a_request_of_its_own_with_its_own_seed_and_nothing_left_to_the_server(served, server):
    asking(served, server).generate(PROMPTS, SAMPLED, SEEDS)
    bodies = server.completions
    assert len(bodies) == len(PROMPTS) == len({body["seed"] for body in bodies})
    tokenizer = server.tokenizer
    assert {tuple(body["prompt"]) for body in bodies} == {tuple(tokenizer(prompt).input_ids) for prompt in PROMPTS}
    # fields that vLLM otherwise takes from the model's generation_config.json
    taken = {"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens"}
    assert all(taken <= body.keys() and body["add_special_tokens"] is False for body in bodies)


def test_a_text_follows_from_its_own_seed_whatever_stands_beside_it(served, server):
    alone = [
        asking(served, server, parallel=1).generate([p], SAMPLED, [s])[0] for p, s in zip(PROMPTS, SEEDS, strict=True)
    ]
    together = asking(served, server).generate(PROMPTS[::-1], SAMPLED, SEEDS[::-1])[::-1]
    assert [one.ids for one in together] == [one.ids for one in alone]


def test_several_servers_each_get_a_part(served):
    with standing_in(served) as first, standing_in(served) as second:
        together = asking(served, first, second).generate(PROMPTS, SAMPLED, SEEDS)
        assert [len(one.completions) for one in (first, second)] == [3, 2]
        assert [one.ids for one in together] == [
            one.ids for one in asking(served, first).generate(PROMPTS, SAMPLED, SEEDS)
        ]


# -- faults


@pytest.mark.parametrize("fault", ["reset", "cut", "late", 408, 409, 425, 429, 500, 502, 503])
def test_what_may_pass_is_asked_again_and_what_came_is_kept(served, server, fault):
    expected = asking(served, server).generate(PROMPTS, SAMPLED, SEEDS)
    server.asked.clear()
    server.faults += [fault, fault]
    found = asking(served, server).generate(PROMPTS, SAMPLED, SEEDS)
    assert [one.ids for one in found] == [one.ids for one in expected]
    assert len(server.completions) == len(PROMPTS) + 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 307])
def test_what_will_not_pass_is_one_sentence_and_not_asked_again(served, server, status):
    engine_there = asking(served, server, parallel=1)
    assert engine_there.servers.base == "base"
    server.faults += [status] * 5
    with pytest.raises(InputError, match=f"{server.url}/v1/completions answers {status}: made to fail"):
        engine_there.generate(PROMPTS, SAMPLED, SEEDS)
    assert len(server.completions) == 1


def test_a_server_that_stays_away_ends_it_after_patience(served, server):
    engine_there = asking(served, server, patience=1.0)
    assert engine_there.servers.base == "base"
    server.stop()
    began = time.monotonic()
    with pytest.raises(InputError, match=r"has not answered for 1 s .*Connection refused.*--ckpt_path last"):
        engine_there.generate(PROMPTS, SAMPLED, SEEDS)
    assert time.monotonic() - began < 30  # a hang is what it tells from a slow machine


def test_a_server_that_says_nothing_ends_it_after_patience(served, server):
    server.faults += ["late"] * 100
    with pytest.raises(InputError, match=r"has not answered for 0.5 s \(.*timed out"):
        asking(served, server, timeout=0.3, patience=0.5).generate(PROMPTS[:1], SAMPLED, SEEDS[:1])


def test_a_server_that_comes_back_is_asked_for_what_is_missing(served, server):
    expected = asking(served, server).generate(PROMPTS, SAMPLED, SEEDS)
    engine_there = asking(served, server, parallel=1, patience=60.0)
    server.asked.clear()
    answer, answered = server.answer, []

    def stopping(path, *more):
        answered.append(path)
        if answered.count(COMPLETES) == 2:
            answered.append("stopped")
            threading.Thread(target=restart).start()
        return answer(path, *more)

    def restart():
        server.stop()
        time.sleep(0.5)
        server.start()

    server.answer = stopping
    found = engine_there.generate(PROMPTS, SAMPLED, SEEDS)
    assert "stopped" in answered
    assert [one.ids for one in found] == [one.ids for one in expected]


def interrupted(there: GenerationEngine, urls: list[str], said: Path) -> None:
    """Be a process that Ctrl-C comes to while servers are asked."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts in the background ignore it
    for url in urls:
        asked = VllmEngine(VllmServers(GeneratorOptions("vllm", url, timeout=300, patience=300)), there, max)
        asked.servers.base, asked.servers.window  # noqa: B018
        threading.Timer(1, os.kill, [os.getpid(), signal.SIGINT]).start()
        try:
            asked.generate(["a"] * 4, Sampling(max_new_tokens=2), [1, 2, 3, 4])
        except KeyboardInterrupt:
            with said.open("a") as file:
                file.write("interrupted\n")


def test_ctrl_c_ends_at_once_and_holds_nothing_up(served, server, tmp_path):
    over = threading.Event()

    def instead(of: StandIn, says_nothing: bool) -> None:
        answer = of.answer

        def not_there(path, *more):
            if path == COMPLETES and says_nothing:
                over.wait(300)
            if path == COMPLETES:
                return 503, {"error": {"message": "away"}}
            return answer(path, *more)

        of.answer = not_there

    with standing_in(served) as away:
        instead(server, says_nothing=True)
        instead(away, says_nothing=False)
        # forked, since a fresh one would import everything anew
        arguments = (engine(served), [server.url, away.url], tmp_path / "said")
        process = multiprocessing.get_context("fork").Process(target=interrupted, args=arguments)
        process.start()
        try:
            process.join(100)  # far below timeout and patience
            assert process.exitcode == 0
        finally:
            over.set()
            process.kill()
    assert (tmp_path / "said").read_text() == "interrupted\n" * 2


# -- which addresses


def test_no_request_leaves_for_an_address_that_was_not_named(served, server, monkeypatch):
    with standing_in(served) as other:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, other.url)
        monkeypatch.delenv("no_proxy", raising=False)
        asking(served, server).generate(PROMPTS[:1], GREEDY, SEEDS[:1])
        answer = server.answer
        server.answer = lambda path, *more: (302, f"{other.url}{path}") if path == COMPLETES else answer(path, *more)
        with pytest.raises(InputError, match="answers 302"):
            asking(served, server).generate(PROMPTS[:1], GREEDY, SEEDS[:1])
        assert other.asked == []


def test_a_key_is_taken_from_the_environment_and_shown_to_the_servers_alone(served, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    with standing_in(served, key="secret") as server:
        assert asking(served, server, api_key_env="MY_KEY").generate(PROMPTS[:1], GREEDY, SEEDS[:1])
        with pytest.raises(InputError, match="answers 401") as error:
            asking(served, server).generate(PROMPTS[:1], GREEDY, SEEDS[:1])
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://a", "http://", "http://me:word@host", "http://host/?a=b", "file:///etc"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InputError, match="is no address of a server"):
        VllmServers(GeneratorOptions("vllm", [url]))


# -- what a server lacks


@pytest.mark.parametrize(
    "beside", [{"num_beams": 2}, {"no_repeat_ngram_size": 3}, {"generation_config": {"typical_p": 0.9}}]
)
def test_sampling_that_a_server_lacks_is_refused(served, server, beside):
    with pytest.raises(InputError, match=f"sampling.{next(iter(beside))} is not to be had with model.generator vllm"):
        asking(served, server).generate(PROMPTS, replace(SAMPLED, **beside), SEEDS)
    assert server.completions == []


def test_a_prompt_that_a_server_would_cut_short_is_refused(served):
    with standing_in(served, window=40) as server, pytest.raises(InputError, match="do not fit into the 40 that the"):
        asking(served, server).generate(["Question: why " * 20], SAMPLED, SEEDS[:1])
    assert server.completions == []


@pytest.mark.parametrize(
    ("name", "told"),
    [(None, None), ("base", None), ("other", "serves base, not other")],
)
def test_the_model_is_found_by_its_name(served, server, name, told):
    there = asking(served, server, served_model_name=name)
    if told is None:
        assert there.servers.base == "base"
    else:
        with pytest.raises(InputError, match=told):
            there.generate(PROMPTS, SAMPLED, SEEDS)


def test_servers_of_several_versions_are_refused(served):
    with standing_in(served) as first, standing_in(served, version="0.33.0") as second:
        servers = asking(served, first, second).servers
        with pytest.raises(InputError, match="several versions"):
            servers.version  # noqa: B018  # asks them
