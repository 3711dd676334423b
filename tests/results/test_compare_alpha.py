import json
from pathlib import Path

import pytest

from isara_pl.cli.commands import run_command
from isara_pl.errors import InputError


def write_metrics(path: Path, novelties: list[float], trained_on: list[int]) -> str:
    rows = ["outer_epoch,answer_nll,mc2,novelty,candidates,accepted,trained_on,seconds", "0,2.0,0.40,,,,,1.0"]
    for outer_epoch, (novelty, trained) in enumerate(zip(novelties, trained_on, strict=True), start=1):
        figures = f"{2 - outer_epoch / 10},{0.4 + outer_epoch / 100}" if trained else ","
        rows.append(f"{outer_epoch},{figures},{novelty},100,{round(100 * novelty)},{trained},9.0")
    path.mkdir()
    (path / "metrics.csv").write_text("\n".join(rows) + "\n")
    return str(path)


def test_alpha_ranges_are_what_the_rule_gives_for_every_alpha(tmp_path, capsys):
    novelties = [0.6, 0.3, 0.45, 0.1]
    run = write_metrics(tmp_path / "isara", novelties, [70, 100, 145, 155])
    run_command("compare", ["--alpha", run, *(f"--{name}={tmp_path / name}" for name in ("json", "csv", "markdown"))])
    ranges = json.loads((tmp_path / "json").read_text())["ranges"]
    for thousandths in range(1, 1001):
        alpha = thousandths / 1000
        stop = next((t for t, novelty in enumerate(novelties, start=1) if novelty < alpha), None)
        (found,) = [each for each in ranges if (each["above"] or 0) < alpha <= each["up_to"]]
        assert found["stops_in"] == stop
        model = 4 if stop is None else stop - 1
        assert found["model_of"] == model
        assert found["figures"]["mc2"] == pytest.approx(0.4 + model / 100)
        assert found["accepted"] == sum(round(100 * novelty) for novelty in novelties[:model])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["α", "≤", "0.100", "never", "outer", "epoch", "4", "145", "1.600", "0.440"] in lines
    assert [
        "0.100",
        "<",
        "α",
        "≤",
        "0.300",
        "in",
        "outer",
        "epoch",
        "4",
        "outer",
        "epoch",
        "3",
        "135",
        "1.700",
        "0.430",
    ] in lines
    assert ["0.600", "<", "α", "≤", "1.000", "in", "outer", "epoch", "1", "pretrained", "0", "2.000", "0.400"] in lines
    assert len((tmp_path / "csv").read_text().splitlines()) == 1 + 4
    assert "| 0.300 < α ≤ 0.600 | in outer epoch 2 | outer epoch 1 | 60 | 1.900 | 0.410 |" in (
        (tmp_path / "markdown").read_text()
    )


def test_beyond_an_early_stop_nothing_is_claimed(tmp_path, capsys):
    run_command(
        "compare", ["--alpha", write_metrics(tmp_path / "isara", [0.6, 0.3], [70, 0]), f"--json={tmp_path / 'json'}"]
    )
    ranges = json.loads((tmp_path / "json").read_text())["ranges"]
    assert [(each["up_to"], each["stops_in"], each["model_of"]) for each in ranges] == [
        *((0.3, None, None), (0.6, 2, 1), (1.0, 1, 0))
    ]
    assert "nothing is known of an α up to 0.300" in capsys.readouterr().out


def test_alpha_needs_the_novelty_of_every_outer_epoch(tmp_path):
    run = write_metrics(tmp_path / "sft", [0.5], [8])
    path = tmp_path / "sft" / "metrics.csv"
    whole = path.read_text()
    for text, message in (
        (whole.replace("0.5,100,50", ",,"), "outer epoch 1 has no novelty"),
        (whole.splitlines()[0] + "\n", "there is no novelty"),
        (whole.replace("0.5,", "half,"), r"metrics\.csv:3: damaged row"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            run_command("compare", ["--alpha", run])
