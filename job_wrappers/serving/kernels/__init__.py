"""Machine-near code of ours that the cache and attention run on: C for CPUs, Triton for GPUs."""
