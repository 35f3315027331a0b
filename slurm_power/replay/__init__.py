"""The twin: a job trace on a cluster that exists only in memory, faster than real time. Pure."""
