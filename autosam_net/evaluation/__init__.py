"""How good a segmentation is: metrics in mm, and the report over many cases."""
