"""Lightning callbacks: filters of the loop, the α rule, evaluation, and what a run leaves behind."""

from isara_pl.callbacks.adapter_export import AdapterExport
from isara_pl.callbacks.alpha_stopping import AlphaStopping
from isara_pl.callbacks.best_epoch import BestEpoch
from isara_pl.callbacks.contamination import ContaminationGuard
from isara_pl.callbacks.diversity import DiversityMonitor
from isara_pl.callbacks.filters import CopiedAnswer, DuplicateAnswer, NearDuplicate, Repetitive, TooShort, Unfinished
from isara_pl.callbacks.graceful_stop import GracefulStop
from isara_pl.callbacks.harm import HarmEvaluation
from isara_pl.callbacks.harm_preference import HarmPreferenceEvaluation
from isara_pl.callbacks.held_out_answers import HeldOutAnswers
from isara_pl.callbacks.judged import JudgedHarmful, JudgedPoor
from isara_pl.callbacks.ledger import Ledger
from isara_pl.callbacks.outer_epoch_bar import OuterEpochBar
from isara_pl.callbacks.outer_epoch_summary import OuterEpochSummary
from isara_pl.callbacks.outer_epoch_table import OuterEpochTable
from isara_pl.callbacks.prediction_writer import PredictionWriter
from isara_pl.callbacks.refusal import RefusalEvaluation
from isara_pl.callbacks.report_writer import ReportWriter
from isara_pl.callbacks.reward import RewardEvaluation
from isara_pl.callbacks.run_checkpoint import RunCheckpoint
from isara_pl.callbacks.sample_logger import SampleLogger
from isara_pl.callbacks.semantic_duplicate import SemanticDuplicate
from isara_pl.callbacks.stage_progress import StageProgress
from isara_pl.callbacks.truthfulness import TruthfulnessEvaluation
from isara_pl.callbacks.unsupported import Unsupported

__all__ = [
    "AdapterExport",
    "AlphaStopping",
    "BestEpoch",
    "ContaminationGuard",
    "CopiedAnswer",
    "DiversityMonitor",
    "DuplicateAnswer",
    "GracefulStop",
    "HarmEvaluation",
    "HarmPreferenceEvaluation",
    "HeldOutAnswers",
    "JudgedHarmful",
    "JudgedPoor",
    "Ledger",
    "NearDuplicate",
    "OuterEpochBar",
    "OuterEpochSummary",
    "OuterEpochTable",
    "PredictionWriter",
    "RefusalEvaluation",
    "Repetitive",
    "ReportWriter",
    "RewardEvaluation",
    "RunCheckpoint",
    "SampleLogger",
    "SemanticDuplicate",
    "StageProgress",
    "TooShort",
    "TruthfulnessEvaluation",
    "Unfinished",
    "Unsupported",
]
