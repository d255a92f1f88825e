"""How fast each stage is, against the published code, against nnU-Net, and against what was promised."""
