"""Everything that a model card says about a bundle, measured through the runtime that serves it."""
