"""Which method is best on given pairs: contestants, folds, their runs, the decision."""
