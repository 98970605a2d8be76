"""Experiments: the same training run under several arms and seeds, compared in one table."""
