"""Export a trained model to a bundle: ONNX graphs, embedding table, tokenizer, manifest, model card."""
