"""Embeddings: the only place where an encoder runs over a data set."""
