"""The run folder and what surrounds a run: its files, lock, conditions, checkpoints, processes, time and memory."""
