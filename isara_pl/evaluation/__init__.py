"""Measures of a model; none of them knows the trainer."""
