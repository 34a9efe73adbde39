"""Tell how the check fares on faulty and on right convolutions: `python -m tests.mutants`.

`--drawn N` checks each right convolution on N drawn layers. The default, 14, makes a thousand cells
in all; results/diagnosis.txt has more.
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
