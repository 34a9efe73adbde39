"""`python -m tests.mutants [--drawn N]`: how the check fares on faulty and on right convolutions.

`--drawn` layers for each right convolution (14: a thousand in all; results/diagnosis.txt has more).
"""

import argparse
import sys

from tests.mutants.causes import CAUSES
from tests.mutants.evidence import print_mutants, print_styles
from tests.mutants.holdout_causes import HOLDOUT

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drawn", type=int, default=14)
    drawn = parser.parse_args().drawn
    ok = [
        print_mutants("faulty", CAUSES),
        print_mutants("faulty, written after the diagnosis and not tuned to", HOLDOUT),
        print_styles(drawn),
    ]
    sys.exit(not all(ok))
