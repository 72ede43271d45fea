"""Processes that share a run: their flags, and how they find each other."""

import os
import sys
import threading

from absl import flags

from styleclip_jax.cli import help_page
from styleclip_jax.errors import UserError

# Flags that do not decide the results: they say where a run takes place.
FLAGS = ("coordinator_address", "num_processes", "process_id", "distributed")
# Seconds that a process which has failed waits for the others.
_PATIENCE = 30


def define(values: flags.FlagValues) -> None:
    """Defines the flags of processes."""
    flags.DEFINE_string(
        "coordinator_address",
        None,
        "Address of process 0 as host:port, for several processes.",
        flag_values=values,
        module_name=help_page.DEVICES,
    )
    flags.DEFINE_integer(
        "num_processes",
        None,
        "Number of processes.",
        flag_values=values,
        module_name=help_page.DEVICES,
    )
    flags.DEFINE_integer(
        "process_id",
        None,
        "Which process this is, from 0.",
        flag_values=values,
        module_name=help_page.DEVICES,
    )
    flags.DEFINE_bool(
        "distributed",
        False,
        "Several processes that the cluster knows: a TPU pod, SLURM or Open MPI.",
        flag_values=values,
        module_name=help_page.DEVICES,
    )


def connect(values: flags.FlagValues) -> None:
    """Joins the other processes, if any; to be called before other use of devices.

    Raises:
      UserError: flags are missing, or the cluster is unknown.
    """
    from styleclip_jax import parallel

    names = FLAGS[:3]
    missing = [name for name in names if values[name].value is None]
    if not missing:
        parallel.connect(*(values[name].value for name in names))
    elif len(missing) < len(names):
        raise UserError(
            f"--{missing[0]}: expected --{', --'.join(names)} together, found none"
        )
    elif values.distributed:
        try:
            parallel.connect(None, None, None)
        except ValueError as error:
            raise UserError(
                "--distributed: expected a TPU pod, SLURM or Open MPI, found none; "
                f"give --{', --'.join(names)} ({error})"
            ) from None


def leave_soon(code: int) -> None:
    """Ends this process in half a minute, if others have not joined its end by then.

    JAX would wait for them for five minutes, and end all by SIGABRT. So it ends them
    once this one is gone.

    Args:
      code: exit code.
    """
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        end = threading.Timer(_PATIENCE, os._exit, [code])
        end.daemon = True
        end.start()
