"""The frozen image encoders: which there are, where their weights come from, how they run."""
