"""What every rank of a job calls: train, and say how it ended."""

from __future__ import annotations

import os
import time

from training.parallel.groups import close_groups
from training.run.config import RunConfig
from training.run.job import check_job
from training.run.listener import Fanout, NullListener, RunResult, StepListener
from training.run.peers import peers
from training.run.signals import NoSignals, SignalSource
from training.run.start import make_ready
from training.run.training_loop import TrainingLoop
from training.run.watchdog import Say, Watchdog, to_stderr


def run_training(
    config: RunConfig,
    *,
    listener: StepListener = NullListener(),  # noqa: B008  it holds nothing
    signals: SignalSource = NoSignals(),  # noqa: B008  nor does this
    fresh: bool = False,
    say: Say = to_stderr,
) -> RunResult:
    """Train until done or until a power signal. Every rank calls it, with what torch.distributed wants in its
    environment.

    `fresh`: pass over checkpoints. `say`: takes the watchdog's last line, from another thread.
    Raise ConfigError, NumericsError and StorageError on all ranks alike, Unavailable on those that are left.
    """
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    job = check_job(config, world_size)
    began_at_unix_s = time.time()
    with Watchdog(config.run.watchdog_s, rank=rank, say=say) as watchdog, peers(watchdog.doing):
        ready = make_ready(job, Fanout([listener]), fresh=fresh, progress=watchdog.progress)
        loop = TrainingLoop(ready, listener, signals=signals, watchdog=watchdog, began_at_unix_s=began_at_unix_s)
        result = loop.run()
        watchdog.progress("leaving")
        ready.engine.close()
        close_groups()
    return result
