"""From a raw volume to normalised slices on the target grid, and back."""
