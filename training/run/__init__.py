"""One training run: its config, its loop, and what may be asked of it while it runs."""
