"""What does it take until the first step of an optimization, and in memory?

  python -m benchmarks.startup --resolution=1024 --peer_python=PYTHON \
    --peer_dirs=STYLECLIP,CLIP

Our side starts twice: with nothing compiled yet, and with what the first start left in
the compilation cache.
"""

import tempfile

from absl import app, flags

from benchmarks import sides

STEPS = flags.DEFINE_integer("steps", 3, "Steps after the first.")

_COLUMNS = ("side", "import", "load", "first step", "later steps", "GB first", "later")
_QUESTION = "optimization"


def _line(name: str, side: sides.Side) -> str:
    for _ in range(1 + STEPS.value):
        side.take_turn()
    side.leave()
    first, *later = side.turns
    numbers = (
        side.import_seconds,
        side.load_seconds,
        first["seconds"],
        side.median("seconds"),
        first["peak"],
        max(turn["peak"] for turn in later),
    )
    return f"| {name} | {' | '.join(f'{x:.2f}' for x in numbers)} |"


def main(_: list[str]) -> None:
    """Prints a row per start."""
    cores = sides.stay_on_cores()
    print(f"{sides.RESOLUTION.value}², {cores} cores, seconds and peak memory")
    print(f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        kept = {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        }
        with tempfile.TemporaryDirectory() as folder:
            if sides.has_peer(_QUESTION):
                peer = sides.start_peer(_QUESTION, 1, folder)
                print(_line(sides.PEER.value, peer), flush=True)
        with tempfile.TemporaryDirectory() as folder:
            for name in ("ours", "ours, compiled before"):
                mine = sides.start_ours(_QUESTION, 1, folder, **kept)
                print(_line(name, mine), flush=True)


if __name__ == "__main__":
    app.run(main)
