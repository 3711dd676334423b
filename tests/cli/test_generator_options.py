"""How the engine of generation is chosen on the command line."""

import pytest
import yaml
from helpers.command_line import fails

from isara_pl.cli.options import in_full

URL = "http://127.0.0.1:1"


def parsed(capsys, options, *more):
    """Give the group of options as `--print_config` shows it."""
    from isara_pl.cli.main import main

    with pytest.raises(SystemExit):
        main(["fit", *options, *more, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)["model"]["generator"]


@pytest.mark.parametrize("equals", [True, False])
def test_the_name_alone_is_short_for_the_engine(options, equals, capsys):
    named = ["--model.generator=vllm"] if equals else ["--model.generator", "vllm"]
    found = parsed(capsys, options, *named, "--model.generator.urls", URL, "--model.generator.parallel", "3")
    assert (found["engine"], found["urls"], found["parallel"]) == ("vllm", URL, 3)
    assert parsed(capsys, options)["engine"] == "builtin"


def test_several_servers_and_a_file_of_options(options, tmp_path, capsys):
    urls = [URL, "http://127.0.0.1:2"]
    assert (
        parsed(capsys, options, "--model.generator=vllm", f"--model.generator.urls=[{','.join(urls)}]")["urls"] == urls
    )
    (tmp_path / "engine.yaml").write_text(yaml.safe_dump({"engine": "vllm", "urls": urls}))
    found = parsed(capsys, options, f"--model.generator={tmp_path / 'engine.yaml'}")
    assert (found["engine"], found["urls"]) == ("vllm", urls)


def test_other_words_are_left_alone():
    words = ["fit", "--model.generator.urls", URL, "--model.generators=vllm", "--x=--model.generator"]
    assert in_full(words) == words


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--model.generator=vlm"], "model.generator.engine is 'vlm'. Did you mean vllm? Allowed: builtin, vllm"),
        (["--model.generator=vllm"], "model.generator is vllm, which needs the addresses of its servers"),
        ([f"--model.generator.urls={URL}"], "model.generator.urls are given, but model.generator is builtin"),
        (["--model.generator=vllm", "--model.generator.urls=nowhere"], "'nowhere' is no address of a server"),
        (["--model.generator.parallel=0"], "model.generator.parallel is 0; allowed: at least 1"),
        (["--model.generator.timeout=0"], "model.generator.timeout is 0.0; allowed: above 0"),
        (["--model.generator.patience=-1"], "model.generator.patience is -1.0; allowed: at least 0"),
        (["--model.generator.patience=null"], "model.generator.patience is 'None'. Allowed: a number"),
        (
            ["--model.generator=vllm", f"--model.generator.urls={URL}", "--model.generator.api_key_env=ISARA_NO_KEY"],
            "model.generator.api_key_env is ISARA_NO_KEY, but the environment has no such variable",
        ),
    ],
)
def test_what_cannot_be_used_is_told(options, more, told, tmp_path, capsys):
    assert told in fails(["fit", *options, f"--run_dir={tmp_path / 'run'}", *more], capsys)
