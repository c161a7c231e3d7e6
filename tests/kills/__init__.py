"""`kill -9` at random moments of running broadcasts, and what became of every message."""
