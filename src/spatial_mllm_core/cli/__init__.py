"""The command `spatial-mllm`: one file per verb; only the verb that is called is imported."""
