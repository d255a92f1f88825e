"""What people look at: overlays of raw data, and the report of a data set; no torch."""
