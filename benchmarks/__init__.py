"""How fast, how small: `python -m benchmarks.speed` and `python -m benchmarks.memory`, from the root."""
