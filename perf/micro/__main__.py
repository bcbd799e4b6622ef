"""Runs the micro-benchmarks; all options of pyperf apply, and ``--only TEXT`` takes those whose name has the text."""

import argparse

import pyperf

from bezant.perf.micro.benchmarks import BENCHMARKS


def _pass_on_only(command: list[str], arguments: argparse.Namespace) -> None:
    """Hand our own option to the worker processes, which pyperf does for its own alone."""
    if arguments.only:
        command += ["--only", arguments.only]


def main() -> None:
    """Run what was chosen."""
    runner = pyperf.Runner(program_args=("-m", "bezant.perf.micro"), add_cmdline_args=_pass_on_only)
    runner.argparser.add_argument("--only", metavar="TEXT", default="", help="benchmarks whose name has this text")
    arguments = runner.parse_args()
    for benchmark in BENCHMARKS:
        if arguments.only in benchmark.name:
            runner.bench_time_func(benchmark.name, benchmark.run, inner_loops=benchmark.units_per_loop)


if __name__ == "__main__":
    main()
