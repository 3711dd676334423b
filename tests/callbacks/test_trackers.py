"""What MLflow and Trackio hold of a run, by the loggers that docs/REPORT.md names, and that they ask no network."""

import os
import socket

import pytest
import yaml
from conftest import write_held_out, write_options, write_seeds
from helpers.command_line import fails, fit
from helpers.documents import blocks

pytestmark = pytest.mark.slow  # MLflow alone computes as long as eight runs: its import, and making its database
FIGURES = {"novelty", "accepted", "rejected/NearDuplicate", "train_loss", "answer_nll", "mc2"}
ASKED: list[object] = []  # hosts


def asked_for(host, *_, **__):
    ASKED.append(host)
    raise OSError(f"{host}: there is no network")


@pytest.fixture(scope="module")
def tracked(tiny_llama, tiny_encoder, tmp_path_factory):
    """Give the folder beside the run folder of a run with both loggers."""
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    folder = tmp_path_factory.mktemp("tracked")
    (code,) = [block.text for block in blocks("docs/REPORT.md") if "class TrackioLogger" in block.text]
    (folder / "trackio_logger.py").write_text(code)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    loggers = [
        {"class_path": "MLFlowLogger", "init_args": {"tracking_uri": uri, "experiment_name": "isara"}},
        {"class_path": "trackio_logger.TrackioLogger"},
    ]
    (folder / "loggers.yaml").write_text(yaml.safe_dump({"trainer": {"logger": loggers}}))
    options = write_options(folder, tiny_llama, tiny_encoder, write_seeds(folder), write_held_out(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))  # read when it is imported
        trackio = pytest.importorskip("trackio", reason="the extra trackio is not installed")
        patch.setattr(socket, "getaddrinfo", asked_for)
        patch.syspath_prepend(str(folder))
        fit(folder / "run", options, f"--config={folder / 'loggers.yaml'}", "--data.epochs_per_outer_epoch=1")
        trackio.finish()
    return folder


def test_mlflow_holds_figures_of_each_growth_and_the_hyperparameters_in_a_database(tracked):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tracked / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("isara").experiment_id])
    assert run.data.params["data.demonstrations"] == "2"
    assert [one.value for one in client.get_metric_history(run.info.run_id, "candidates")] == [6, 6]
    assert {*run.data.metrics} >= FIGURES


def test_the_logger_for_trackio_on_the_page_holds_figures_and_hyperparameters_in_one_run(tracked):
    from trackio import Api
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = Api().runs("isara")  # the measured pretrained model and the fit are one
    assert run.name == "run"
    assert run.config["data.demonstrations"] == 2
    rows = SQLiteStorage.get_logs("isara", run.name, run_id=run.id)
    assert [row["outer_epoch"] for row in rows if "novelty" in row] == [1, 2]
    assert {name for row in rows for name in row} >= FIGURES


def test_neither_asks_a_network_nor_writes_elsewhere(tracked):
    assert ASKED == []
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert {path.name for path in tracked.iterdir()} >= {"mlflow.db", "trackio"}


def test_a_folder_for_mlflow_which_it_writes_no_more_is_refused_in_a_sentence(options, tmp_path, capsys):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    said = fails(["fit", *options, f"--run_dir={tmp_path / 'run'}", "--trainer.logger=MLFlowLogger"], capsys)
    assert "MLflow: The filesystem tracking backend" in said
    assert "--trainer.logger.tracking_uri sqlite:///" in said
