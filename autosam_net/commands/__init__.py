"""One thin main(argv) per console script."""
