"""Which sequences advance in the next iteration, and by how many tokens. Pure."""
