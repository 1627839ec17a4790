"""What all tests share: one thread, so that small tensors do not wait for a second one."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start, too

import torch

torch.set_num_threads(1)
