"""Commands: they print, they never decide."""
