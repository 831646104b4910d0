"""What a GPU does with the kernels: predicted from their machine code, and measured where there is one."""

import sys
from pathlib import Path

# As for the scripts beside this folder: clouds, comparison.
sys.path.append(str(Path(__file__).resolve().parents[1]))
