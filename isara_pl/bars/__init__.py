"""Progress of the running stages, in the style of the trainer's own progress bar, or as lines of a log."""
