"""The field's own harnesses on a run's model; what they measure stands beside the run's figures."""
