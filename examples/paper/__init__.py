"""The paper's tables and figures on any generator; see `__main__`."""
