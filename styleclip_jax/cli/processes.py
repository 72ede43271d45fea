"""Processes that share a run: their flags, and how they find each other."""

from absl import flags

from styleclip_jax.cli import help_page
from styleclip_jax.errors import UserError

# Flags that do not decide the results: they say where a run takes place.
FLAGS = ("coordinator_address", "num_processes", "process_id", "distributed")


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
