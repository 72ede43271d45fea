"""Programs one after the other in one process, as `programs.run_on` starts it."""

import importlib
import json
import os
import sys

from tests import programs


def main() -> None:
    """Runs the calls of stdin, [folder, module, argv] each, to the first failure."""
    for folder, module, argv in json.load(sys.stdin):
        os.chdir(folder)
        code = programs.run(importlib.import_module(module), argv)
        if code:
            sys.exit(f"exit code {code} of {' '.join(argv)}")


if __name__ == "__main__":
    main()
