"""The commands of slurm-power-serve."""
