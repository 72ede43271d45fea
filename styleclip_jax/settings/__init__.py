"""Settings of all work, which programs make flags of: dataclasses that need no JAX.

Whoever asks for a program's help or mistypes a flag is answered from these alone. What
settings do is a function, or the method of a class that extends them, where it is done.
"""
