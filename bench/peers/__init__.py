"""Programs of the compared libraries' own environment (`bench.peering`); nothing of Clarion is imported here."""
