"""A paged-KV serving engine whose batch size, model and GPU clock can be changed while it serves."""
