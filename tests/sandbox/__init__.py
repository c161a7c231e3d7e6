"""The sandbox, judged over HTTP and by clients that know nothing of it."""
