"""The nouns: frozen dataclasses over numpy, no torch."""
