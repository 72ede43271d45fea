"""What a pickle of a checkpoint may name, and what it is rebuilt of."""
