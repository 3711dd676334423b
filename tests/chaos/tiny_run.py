"""A run of seconds on tiny random models, in which candidates are accepted as well as rejected."""

import json
from pathlib import Path

import yaml
from conftest import make_encoder, make_seeds, make_speaker, run_config

SEEDS = 8
# how checkpoints are written: after every epoch, or in the middle of epochs too
VARIANTS = {
    "epochs": [],
    "steps": ["--checkpoint.every_n_train_steps=1", "--checkpoint.filename={step}"],
}
CONFIG = "run.yaml"


def prepare(folder: Path) -> Path:
    """Write the models, the files of pairs and the configuration; give the configuration."""
    held_out = [
        {
            "question": f"What colour is thing number {i}?",
            "answer": f"Thing {i} is blue.",
            "incorrect_answers": [f"Thing {i} is red.", "It has no colour at all."],
        }
        for i in range(3)
    ]
    seeds = [{"question": seed.question, "answer": seed.answer} for seed in make_seeds(SEEDS)]
    for name, pairs in (("seeds", seeds), ("held_out", held_out)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    callbacks = [
        {"class_path": "isara_pl.callbacks.TooShort", "init_args": {"min_words": 2}},
        {"class_path": "isara_pl.callbacks.NearDuplicate"},
        {"class_path": "isara_pl.callbacks.TruthfulnessEvaluation", "init_args": {"max_new_tokens": 4}},
    ]
    files = str(folder / "seeds.jsonl"), str(folder / "held_out.jsonl")
    of_data = {"candidates_per_batch": 3, "epochs_per_outer_epoch": 2, "batch_size": 3}
    models = make_speaker(folder / "model"), make_encoder(folder / "encoder")
    config = run_config(*models, *files, callbacks, candidates_per_outer_epoch=6, **of_data)
    config["model"] |= {"objective": "distill", "learning_rate": 0.01, "lora": {"r": 4, "dropout": 0.1}}
    config |= {"seed_everything": 7, "alpha_stopping": {"alpha": 0}}
    path = folder / CONFIG
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def command(config: Path, variant: str, run_dir: Path, resume: bool) -> list[str]:
    """Give what a user types after `python -m isara_pl`."""
    more = ["--ckpt_path", "last"] if resume else []
    return ["fit", "--config", str(config), "--run_dir", str(run_dir), *VARIANTS[variant], *more]
