"""LLM serving replayed in memory: a trace of requests, instances that batch them, and the managers that steer them."""
