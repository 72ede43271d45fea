"""How long do metrics of a generator take, once the features are there?

  taskset -c 0 python -m benchmarks.features

Seconds of a core, medians: those of the whole process, so that other programs can only
make caches colder. Features are random.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import app, flags

from styleclip_jax.evaluation import generator_metrics
from styleclip_jax.io import tables
from styleclip_jax.ops import moments

IMAGES = flags.DEFINE_integer("images", 5000, "Images of each set.")
FEATURES = flags.DEFINE_integer("features", 2048, "Features of Inception.")
NEIGHBORHOOD = flags.DEFINE_list(
    "neighborhood", ["512", "4096"], "Features for precision and recall."
)
TURNS = flags.DEFINE_integer("turns", 3, "Turns of each.")


def _seconds(run: Callable[[], Any]) -> float:
    """Median CPU seconds of a call, after one that compiles."""
    run()
    found = []
    for _ in range(TURNS.value):
        before = time.process_time()
        run()
        found.append(time.process_time() - before)
    return statistics.median(found)


def main(_: list[str]) -> None:
    """Prints a row per metric."""
    random, count = np.random.default_rng(0), IMAGES.value
    g, r = random.random((2, count, FEATURES.value), np.float32)
    of, rows = moments.FeatureStatistics.of, []
    for size in (16, 64, 512):
        name = f"statistics, batches of {size}"
        rows.append([name, f"{size} images", _seconds(lambda size=size: of(g[:size]))])
    pair = of(g).gaussian, of(r).gaussian
    distance = _seconds(lambda: generator_metrics.frechet_distance(*pair))
    rows.append(["Fréchet distance", f"{FEATURES.value}²", distance])
    subsets = generator_metrics.draw_subsets(0, count, count, num_subsets=10)
    distance = _seconds(lambda: generator_metrics.kernel_distance(g, r, subsets))
    rows.append(["kernel distance", "10 subsets", distance])
    for length in map(int, NEIGHBORHOOD.value):
        pair = random.random((2, count, length), np.float32)
        share = _seconds(lambda pair=pair: generator_metrics.precision_recall(*pair))
        rows.append(["precision, recall", f"{count}² × {length}", share])
    table = [[name, size, f"{found:.3g}"] for name, size, found in rows]
    print(tables.markdown(["metric", "size", "s of a core"], table), end="")


if __name__ == "__main__":
    app.run(main)
