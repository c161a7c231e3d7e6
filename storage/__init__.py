"""Where Clarion keeps what must not be lost: the Store port in memory and on SQLite."""
