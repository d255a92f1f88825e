"""Foreign data into raw data sets in nnU-Net v2's layout; imports autosam_net, never the other way."""
