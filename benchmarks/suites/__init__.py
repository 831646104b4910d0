"""asv suites: time and peak memory of the verbs and of whole solves, over N, D, temperature and backend.

    asv run --config benchmarks/asv.conf.json --python=same --quick --show-stderr    once each, a few minutes
    asv run --config benchmarks/asv.conf.json --python=same --bench Sweep            one suite, properly timed

Run in the environment that has otcore installed; nothing is built. A backend that cannot run is skipped.
"""

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BENCHMARKS))
sys.path.append(str(BENCHMARKS.parent))  # the clouds of tests/problems.py
