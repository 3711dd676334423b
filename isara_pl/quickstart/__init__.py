"""Data of the quickstart: everyday misconceptions, written for this project."""
