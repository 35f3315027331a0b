"""What every rank of a test needs, imported once in the process that ranks are forked from."""

import deepspeed
import torch

torch.set_num_threads(1)
# Otherwise each rank builds or loads a C++ extension first; gloo alone does what the tests need.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
