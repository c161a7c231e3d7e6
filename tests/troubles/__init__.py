"""A store that is full, locked, away or slow in the middle of a broadcast: real files, a real MongoDB, a real
engine, and a platform that is spoken to over HTTP."""
