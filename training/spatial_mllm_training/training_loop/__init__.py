"""The training loop: batches, objective, optimisers, checkpoints, and the run that ties them together."""
