"""Emulated GPUs behind the real pynvml."""
