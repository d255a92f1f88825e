"""What to do with a data set, and why: check it, measure it, decide."""
