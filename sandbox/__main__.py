"""`python -m sandbox`: the simulated platforms alone."""

import argparse

from sandbox.server import run
from sandbox.settings import Behaviour, SandboxSettings


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=1.0, help="sandbox seconds per second (%(default)s)")
    parser.add_argument("--people", type=int, default=20, help="on each channel (%(default)s)")
    parser.add_argument("--teams-endpoint", help="where activities are posted")
    parser.add_argument("--started", action="store_true", help="everybody knows the bots already")
    parser.add_argument("--quiet-people", action="store_true", help="nobody does anything of their own accord")
    parser.add_argument("--forget-messages", action="store_true", help="count messages only, for benchmarks")
    parser.add_argument("--no-limits", action="store_true", help="count breaches of rate limits, refuse nothing")
    options = parser.parse_args()
    settings = SandboxSettings(
        seed=options.seed,
        speed=options.speed,
        people=options.people,
        teams_endpoint=options.teams_endpoint,
        started=options.started,
        behaviour=Behaviour(auto=not options.quiet_people),
        keep_messages=not options.forget_messages,
        enforce_limits=not options.no_limits,
    )
    run(settings, options.host, options.port)


if __name__ == "__main__":
    main()
