"""What the figures of `segkey bench` should be, and whether they are: met or missed.

    python examples/bench_goals.py                 # measures this machine, in about a minute
    python examples/bench_goals.py bench.json      # reads what `segkey bench --json` printed

Ends with status 1 if a goal is missed. A stage that was not measured is passed over.
"""

import json
import sys
from dataclasses import fields
from pathlib import Path

from segkey.reports import benchmark
from segkey.reports.benchmark_rows import Row

# By stage, the ratio to the limit; without a limit, the speed-up; with neither, the rate.
GOALS = {
    "np encrypt, CPU, one thread": 0.8,
    "np decrypt, CPU, one thread": 0.8,
    "shf encrypt, CPU, one thread": 0.06,
    "shf decrypt, CPU, one thread": 0.06,
    "ffx encrypt, CPU, one thread": 0.03,
    "ffx decrypt, CPU, one thread": 0.03,
    "np encrypt, M=4, beside float32 torch": 80,
    "shf encrypt, M=4, beside float32 torch": 10,
    "ffx encrypt, M=4, beside float32 torch": 8,
    "ffx encrypt, M=4, beside a pyffx call a pixel": 10_000,
    "segkey --help": 0.4,
    "segkey encrypt, np M=4, end to end": 0.9,
    "segkey encrypt, shf M=4, end to end": 0.9,
    "segkey encrypt, ffx M=4, end to end": 0.85,
    "shards to batches, in order": 0.7,
    "shards to batches, shuffled": 0.7,
    "memory of encrypt, 10,000 images beside 1,000": 1.1,  # and under 600 MB
    "photograph of 12 megapixels, beside --exact-decode": 3,
    "wrong keys, np M=4, CPU": 1.33,  # 100 keys in the time of 75 bare forward passes
    "training step, CPU": 0.95,
    "depthwise training step, CPU, beside nn.Conv2d": 1.4,
    "np encrypt, GPU": 0.8,
    "shf encrypt, GPU": 0.5,
    "ffx encrypt, GPU": 0.5,
    "training step, FCN-ResNet-50, GPU": 0.45,  # encryption on the fly costs at most 2 % of it
    "attack, GPU": 0.95,
}


def is_met(row: Row, goal: float | None) -> bool | None:
    """Whether a goal is met; None if there is none, or nothing was measured."""
    if goal is None or row.rate is None:
        return None
    value = row.ratio or row.speed_up or row.rate
    return value <= goal if row.lower_is_better else value >= goal


def rows_of(file: Path) -> list[Row]:
    """What an earlier `segkey bench --json` found."""
    names = {field.name for field in fields(Row)}
    lines = json.loads(file.read_text())
    return [Row(**{name: line[name] for name in names & line.keys()}) for line in lines]


def main() -> int:
    rows = rows_of(Path(sys.argv[1])) if sys.argv[1:] else benchmark.run()
    missed = 0
    for row in rows:
        goal = GOALS.get(row.stage)
        met = is_met(row, goal)
        if met is not None:
            missed += not met
            value, sign = (
                row.ratio or row.speed_up or row.rate,
                "<=" if row.lower_is_better else ">=",
            )
            print(f"{'met' if met else 'MISSED':6}  {row.stage}: {value:.3g}, goal {sign} {goal:g}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
