"""slurm-power: a Slurm cluster that keeps a power promise at the least cost."""

__version__ = "0.1.0"
