"""Whether a result file of configs/geometry.yaml has what it must have."""

import sys
from collections import Counter
from pathlib import Path

from convbench.results.file import load

result = load(Path(sys.argv[1])).result
counts = Counter(cell.status for cell in result.cells)
print(dict(counts))
assert result.cells, "no cells"
assert set(counts) <= {"ok", "unsupported"}, counts
for cell in result.cells:
    if cell.status == "unsupported":
        assert cell.implementation.startswith("keras"), cell
        assert "strides" in cell.reason, cell
        assert "dilation" in cell.reason, cell
    else:
        assert cell.time is not None, cell
        assert cell.memory is not None, cell
        assert cell.agreement is not None, cell
        assert cell.agreement.verdict == "agrees", cell
