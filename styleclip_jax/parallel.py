"""Devices: meshes, sharded batches, programs per device, and processes.

A one-axis mesh holds all devices. Batches are sharded along it and parameters are
replicated, so a jitted function of a batch runs as one program per device without
communication.

Training is one program per device instead, by `map_devices`, over all devices of all
processes; its batches come from `split` and `prefetch`. Processes that edit have a mesh
of their own devices each, and a `share` of the work.
"""

import collections
import concurrent.futures
import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from styleclip_jax.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Axis of the mesh, and what a per-device function averages over.
AXIS = "batch"

# Largest batch per device that nobody has asked for.
_DEFAULT_BATCH = 8
# Largest number of steps of an optimization in one call.
_MOST_STEPS = 10
# Seconds between two looks at what a process waits for.
_WAIT_SECONDS = 0.2

# Texts with which devices report a lack of memory: XLA's own, CUDA's, those of cuDNN
# and cuBLAS, which take memory for themselves, AMD's and TPUs'; in small letters.
_OUT_OF_MEMORY = (
    "resource_exhausted",
    "out of memory",
    "out_of_memory",
    "outofmemory",
    "failed to allocate",
    "alloc_failed",
    "failed to determine best cudnn convolution algorithm",
)


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Mesh of one axis over the given devices, or over all of them."""
    return Mesh(np.asarray(jax.devices() if devices is None else devices), (AXIS,))


def generator_precision(platform: str | None = None) -> str:
    """Precision of a generator's products that a kind of device has by default.

    What `high` rounds on accelerators changes no 8-bit image by a level in the mean,
    see docs/measurements.md.

    Args:
      platform: kind of device, such as cpu, gpu or tpu; this process's if absent.
    """
    return "highest" if (platform or jax.default_backend()) == "cpu" else "high"


def over_batch(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays whose leading axis is the batch.

    Raises:
      ValueError: the mesh is not one of `make_mesh`.
    """
    return NamedSharding(_checked(mesh), PartitionSpec(AXIS))


def _checked(mesh: Mesh) -> Mesh:
    """The mesh, whose sharding the compiler spreads through a program."""
    kinds = {str(kind) for kind in mesh.axis_types}
    if mesh.axis_names != (AXIS,) or kinds != {str(AxisType.Auto)}:
        raise ValueError(
            f"mesh: expected one axis {AXIS} of the type Auto, as parallel.make_mesh "
            f"makes it, found {', '.join(map(str, mesh.axis_names))} of the type "
            f"{', '.join(sorted(kinds))}"
        )
    return mesh


def shard(tree: Any, mesh: Mesh) -> Any:
    """Arrays on the mesh, their leading axis spread over its devices.

    Raises:
      ValueError: a leading axis is not a multiple of the number of devices, or the mesh
        is not one of `make_mesh`.
    """
    return jax.device_put(tree, over_batch(mesh))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Arrays on the mesh, with a copy on each of its devices.

    Raises:
      ValueError: the mesh is not one of `make_mesh`.
    """
    return jax.device_put(tree, NamedSharding(_checked(mesh), PartitionSpec()))


def pad(tree: Any, size: int) -> Any:
    """Arrays whose leading axes have the length `size`; the last row is repeated.

    A last, shorter batch then has the shape of the others and compiles nothing new.
    """

    def lengthen(array: np.ndarray) -> np.ndarray:
        missing = size - len(array)
        return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])

    return jax.tree.map(lengthen, tree)


def round_up(count: int, devices: int) -> int:
    """Least number of rows, at least so many, that all devices share equally."""
    return math.ceil(count / devices) * devices


def default_batch_size(count: int, devices: int) -> int:
    """Largest batch size up to 8 that gives every device a batch.

    Fewer latents than devices are a batch each.

    Args:
      count: number of latents.
      devices: number of devices of all processes.
    """
    for size in range(min(_DEFAULT_BATCH, count), 1, -1):
        if math.ceil(count / size) >= devices:
            return size
    return 1


def steps_per_call(steps: int, sharding: jax.sharding.Sharding) -> int:
    """Number of an optimization's steps in one call, a divisor of all of them.

    An accelerator waits for the host in each call, which small images make longer than
    the step. A CPU waits for nothing, and its steps are long enough to be reported one
    by one. Since it is a divisor, one program takes all steps.
    """
    devices: set[Any] = sharding.device_set
    if any(device.platform == "cpu" for device in devices):
        return 1
    return max(k for k in range(1, _MOST_STEPS + 1) if steps % k == 0)


def connect(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Joins this process to others, each with its own devices; before any other use.

    Args:
      coordinator_address: host:port of process 0; None for what the cluster says.
      num_processes: number of processes.
      process_id: index of this one, from 0.
    """
    # The service would take SIGTERM from the program, which ends by it.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(coordinator_address, num_processes, process_id)


def share(count: int) -> range:
    """Indices of the tasks of this process, out of so many in their order."""
    index, processes = jax.process_index(), jax.process_count()
    return range(count * index // processes, count * (index + 1) // processes)


def agree(number: int) -> int:
    """Number of process 0; waits until all processes have come here."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def total(number: int) -> int:
    """Sum of a number over all processes; waits until they have come here."""
    return int(np.sum(multihost_utils.process_allgather(np.int32(number))))


def wait_while(condition: Callable[[], bool]) -> None:
    """Waits as long as it takes, for what another process does."""
    while condition():
        time.sleep(_WAIT_SECONDS)


def meet(is_ready: Callable[[], bool]) -> None:
    """Waits until something is ready, then until all processes have come here.

    `agree` alone gives up after half an hour on CPUs.
    """
    wait_while(lambda: not is_ready())
    agree(True)


def map_devices(
    step: Callable[..., Any],
    num_shared: int,
    *,
    donated: Sequence[int] = (),
    devices: Sequence[jax.Device] | None = None,
) -> Callable[..., Any]:
    """A function that runs once per device, each on its share of a batch.

    Args:
      step: (shared, …, batch) → results that are equal on all devices, as `lax.pmean`
        over `AXIS` makes them.
      num_shared: number of arguments before the batch.
      donated: arguments that are used up, whose memory the results take.
      devices: all devices of all processes if absent.

    Returns:
      (shared, …, batch) → results. Shared arguments and results have their plain
      shapes; the batch is a tree of [devices of this process, rows, …].
    """
    axes = (None,) * num_shared + (0,)
    return jax.pmap(
        step,
        AXIS,
        in_axes=axes,
        out_axes=None,
        donate_argnums=donated,
        devices=devices,
    )


def split(batch: Any, mesh: Mesh) -> Any:
    """Share of this process in a batch [B, …]: [devices, B / all devices, …].

    The rows go to the processes in their order, so that the batch as a whole is the
    same for any number of devices.

    Args:
      batch: tree of NumPy arrays, the same in every process.
      mesh: devices of this process.

    Raises:
      ValueError: B is not a multiple of the number of devices.
    """
    count = jax.process_count()

    def share(array: np.ndarray) -> np.ndarray:
        parts = array.reshape(count, mesh.size, -1, *array.shape[1:])
        return parts[jax.process_index()]

    return jax.tree.map(share, batch)


def prefetch(batches: Iterable[Any], mesh: Mesh, size: int = 2) -> Iterator[Any]:
    """Batches on the devices, put there before they are asked for.

    Args:
      batches: trees of arrays whose leading axis is spread over the devices, such as
        `split` makes.
      mesh: devices of this process.
      size: number of batches that wait there.
    """
    queue: collections.deque[Any] = collections.deque()
    for batch in batches:
        # Copies in the background, while the devices work on earlier batches.
        queue.append(shard(batch, mesh))
        if len(queue) > size:
            yield queue.popleft()
    yield from queue


def ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: concurrent.futures.Executor,
    count: int,
) -> Generator[Result]:
    """Results of a function in the order of its items, made before they are asked for.

    Args:
      function: function of an item.
      items: items, of which `count` are taken ahead.
      workers: threads that call it.
      count: number of results that are made or wait.
    """
    queue: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    try:
        for item in items:
            queue.append(workers.submit(function, item))
            if len(queue) > count:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        for one in queue:
            one.cancel()


def is_out_of_memory(error: Exception) -> bool:
    """Whether the memory of a device, or of the host, is full."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, jax.errors.JaxRuntimeError) and any(
        part in text for part in _OUT_OF_MEMORY
    )


def free_memory(mesh: Mesh) -> int | None:
    """Bytes that are free on each device of a mesh; None where a device cannot say."""
    found = [device.memory_stats() or {} for device in mesh.devices.flat]
    if not all({"bytes_limit", "bytes_in_use"} <= stats.keys() for stats in found):
        return None
    return min(stats["bytes_limit"] - stats["bytes_in_use"] for stats in found)


def shapes_of(
    sharding: jax.sharding.Sharding, function: Callable[..., Any], *arguments: Any
) -> Any:
    """Shapes and types of what a function makes, with a sharding; nothing is computed.

    Args:
      sharding: sharding of each array of the result.
      function: function of arrays.
      *arguments: arguments of it, or their shapes.
    """
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(function, *arguments),
    )


def bytes_needed(program: Any, *arguments: Any, **options: Any) -> int:
    """Bytes on each device that a call of a jitted program takes, by its compiler.

    Arguments are counted, and so are networks that are there already. The compiled
    program is kept for the call.

    Args:
      program: jitted function.
      *arguments: arguments of the call, or their shapes with shardings.
      **options: static arguments of the call.

    Returns:
      Their number, 0 where the compiler does not say.
    """
    found = program.lower(*arguments, **options).compile().memory_analysis()
    if found is None:
        return 0
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    return found.argument_size_in_bytes + found.temp_size_in_bytes + results


def why_no_device() -> str | None:
    """Why no device can be used, in a line; None if there is one."""
    try:
        jax.local_devices()
    except (AssertionError, RuntimeError) as error:
        asked = getattr(jax.config, "jax_platforms", None)
        # An assertion of JAX has no text.
        reason = " ".join(str(error).split()) or "its plugin is missing or failed"
        if not asked:
            return f"expected a device, found none that works ({reason})"
        return (
            f"JAX_PLATFORMS={asked}: expected a platform that works here, found none "
            f"({reason}); leave it out, or give cpu"
        )
    return None


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """Context that process 0 is through with before the others enter it.

    They then find its files. None goes on before all are through with it.

    Raises:
      UserError: another process has raised something.
    """
    is_first, failed, others = jax.process_index() == 0, True, 0
    if not is_first and not agree(0):
        raise _refused()
    try:
        yield
        failed = False
    finally:
        # The others do not enter it if the first one has failed.
        if not is_first or agree(not failed):
            others = total(failed)
    if others:
        raise _refused()


def _refused() -> UserError:
    return UserError(
        "process_id: another process refused the run and says why", field="process_id"
    )
