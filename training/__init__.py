"""DeepSpeed training will live here; it never imports slurm_power."""
