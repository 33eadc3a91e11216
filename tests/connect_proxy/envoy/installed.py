"""Which Envoy there is to test with; without one, tests that need it are skipped by name."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ENVOY = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy") or ""
