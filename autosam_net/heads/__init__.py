"""Heads: small trainable networks from embeddings to logits. Importing the package registers the built-in ones."""

from autosam_net.heads import cnn, linear, prompted, unet, vit

__all__ = ["cnn", "linear", "prompted", "unet", "vit"]
