"""Sentence encoders that do not work are refused before anything is measured; they are loaded where they are needed."""

import shutil
from pathlib import Path

import pytest
import yaml
from conftest import make_encoder, make_model, make_tokenizer
from helpers.command_line import fails
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from isara_pl.cli.main import main
from isara_pl.growth.retrieval import SentenceEncoder
from isara_pl.module import IsaraModule

FROM_PRETRAINED = PreTrainedModel.from_pretrained.__func__


def damaged(folder: Path, fault: str) -> str:
    """Make a sentence encoder that does not work."""
    if fault == "has tokens without embeddings":
        make_model(folder)
        tokenizer = make_tokenizer()
        tokenizer.add_special_tokens({"pad_token": "<|no row|>"})
        tokenizer.save_pretrained(folder)
        return str(folder)
    if fault == "cannot pad":
        make_model(folder)
        make_tokenizer(pad=None).save_pretrained(folder)
        return str(folder)
    encoder = Path(make_encoder(folder))
    weights = load_file(encoder / "model.safetensors")
    key = "encoder.layer.0.attention.self.query.weight"
    changed = {
        "lacks a weight": {name: weight for name, weight in weights.items() if name != key},
        "has a weight of another shape": {**weights, key: weights[key][:3]},
        "has other weights": {f"other.{name}": weight for name, weight in weights.items()},
    }
    if fault in changed:
        save_file(changed[fault], encoder / "model.safetensors", metadata={"format": "pt"})
    elif fault == "has no weights":
        (encoder / "model.safetensors").unlink()
    else:
        shutil.rmtree(encoder)
        encoder.mkdir()
        (encoder / "notes.txt").touch()
    return str(encoder)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("cannot pad", "cannot load the sentence encoder"),
        ("has tokens without embeddings", "cannot load the sentence encoder"),
        ("lacks a weight", "missing encoder.layer.0.attention.self.query.weight. Take a sentence encoder"),
        ("has a weight of another shape", "of another shape encoder.layer.0.attention.self.query.weight."),
        ("has other weights", "missing embeddings.LayerNorm.bias, embeddings.LayerNorm.weight"),
        ("has no weights", "cannot load the sentence encoder"),
        ("is no model", "cannot load the sentence encoder"),
    ],
)
def test_an_encoder_that_does_not_work_is_one_sentence_before_anything_is_measured(
    fault, said, options, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(IsaraModule, "validation_step", lambda *_, **__: pytest.fail("measured in vain"))
    encoder = damaged(tmp_path / "encoder", fault)
    capsys.readouterr()
    told = fails(["fit", *options, f"--data.encoder={encoder}", f"--run_dir={tmp_path / 'run'}"], capsys)
    (error,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: data.encoder: ")
    assert said in error
    assert encoder in error
    assert PreTrainedModel.from_pretrained.__func__ is FROM_PRETRAINED  # as it was before


NOTHING_GROWS = ["--data.candidates_per_outer_epoch=0", "--data.outer_epochs=1", "--data.epochs_per_outer_epoch=1"]
SHOWN = {"demonstrations": 2, "max_new_tokens": 0}
USERS = {
    "demonstrations": {"class_path": "isara_pl.callbacks.TruthfulnessEvaluation", "init_args": SHOWN},
    "random": {
        "class_path": "isara_pl.callbacks.TruthfulnessEvaluation",
        "init_args": {**SHOWN, "context": "random"},
    },
    "diversity": {"class_path": "isara_pl.callbacks.DiversityMonitor"},
    "contamination": {"class_path": "isara_pl.callbacks.ContaminationGuard"},
}


@pytest.mark.parametrize(
    ("subcommand", "user", "more", "needed"),
    [
        ("validate", "demonstrations", [], True),
        ("test", "demonstrations", [], True),
        ("validate", "diversity", [], True),
        ("validate", "random", [], False),
        ("validate", "contamination", [], False),
        ("fit", "demonstrations", NOTHING_GROWS, True),
        ("fit", "contamination", NOTHING_GROWS, True),
        ("fit", "random", NOTHING_GROWS, False),
        ("fit", "random", [*NOTHING_GROWS, "--model.objective=distill", "--data.distill_on=seeds"], True),
    ],
)
def test_an_encoder_is_loaded_first_where_it_is_needed_and_else_not_at_all(
    subcommand, user, more, needed, options, tmp_path, capsys, monkeypatch
):
    config = yaml.safe_load((tmp_path / "run.yaml").read_text())
    config["trainer"]["callbacks"] = [USERS[user]]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    arguments = [subcommand, *options, *more, f"--run_dir={tmp_path / 'run'}"]
    arguments.append(f"--data.encoder={damaged(tmp_path / 'encoder', 'has no weights')}")
    if needed:
        monkeypatch.setattr(IsaraModule, "validation_step", lambda *_, **__: pytest.fail("measured in vain"))
        assert "data.encoder: cannot load the sentence encoder" in fails(arguments, capsys)
    else:
        main(arguments)


def test_an_encoder_is_loaded_once(options, tmp_path, monkeypatch):
    own, loaded = SentenceEncoder._load, []
    monkeypatch.setattr(SentenceEncoder, "_load", lambda self: (loaded.append(self), own(self))[1])
    main(["fit", *options, "--data.outer_epochs=1", f"--run_dir={tmp_path / 'run'}"])
    assert len(loaded) == 1


def test_an_encoder_needs_no_pooler(tiny_encoder, tmp_path):
    whole = SentenceEncoder(tiny_encoder).encode(["What?"])
    without = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    weights = load_file(without / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, without / "model.safetensors", metadata={"format": "pt"})
    assert (SentenceEncoder(str(without)).encode(["What?"]) == whole).all()


def test_a_model_that_is_no_sentence_encoder_is_said_to_be_none(tiny_llama, tiny_encoder, recwarn):
    SentenceEncoder(tiny_encoder).load()
    assert not [each for each in recwarn if "data.encoder" in str(each.message)]
    with pytest.warns(UserWarning, match=rf"data\.encoder: {tiny_llama} is no sentence encoder"):
        SentenceEncoder(tiny_llama).load()
