"""Heads trained on embeddings."""
