"""DeepSpeed training: FP8 mixed precision, pipeline x tensor x data x expert parallel. Never imports slurm_power."""
