"""Kills real runs at random moments, resumes them, and compares what they leave with an undisturbed run.

`pytest tests/chaos` is the short version, `make chaos KILLS=200 SEED=0` the long one.

A start takes seconds, its imports many more: `zygote` imports once and forks a process for each start, whose
`watch` tells where the run is. `starts` begins such processes and kills them, `trials` draws where, `findings`
compares.
"""
