"""Checks and measurements on an accelerator: `python -m benchmarks.accelerator`."""

import importlib.util
import sys
from unittest import mock

# Packages that our modules import and that nothing here calls; a machine with a card
# may have none of them.
_UNCALLED = ("ftfy", "jaxtyping", "regex", "tokenizers", "tqdm")

for _name in _UNCALLED:
    if _name not in sys.modules and importlib.util.find_spec(_name) is None:
        sys.modules[_name] = mock.MagicMock()
