"""Measures of runs: items and figures on disk, statistics, comparison."""
