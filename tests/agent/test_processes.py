"""Programs that outlive who started them are found again, and nothing else is taken for them."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from lictor.agent.processes import Launched, Watched, began, memory, start
from tests.patience import PATIENCE, soon

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finding processes again needs Linux")

SLEEP = (sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)")


async def test_the_end_of_a_program_is_told_with_how_it_ended(tmp_path: Path) -> None:
    launched, child = start([sys.executable, "-c", "raise SystemExit(3)"], {}, tmp_path / "out", tmp_path, "")
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    Watched(launched, child, ended.set_result)
    assert await asyncio.wait_for(ended, PATIENCE) == "exit status 3"
    assert began(launched.pid) == 0


async def test_a_program_of_an_earlier_run_is_watched_and_ended(tmp_path: Path) -> None:
    launched, child = start(SLEEP, {}, tmp_path / "out", tmp_path, "")
    try:
        assert os.getsid(launched.pid) == launched.pid
        assert launched.began == began(launched.pid) > 0
        await soon(lambda: (tmp_path / "out").read_bytes() == b"here\n", "the program prints to its file")
        assert memory(launched.pid) > 1_000_000
        assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        watched = Watched(launched, None, ended.set_result)
        watched.signal(signal.SIGTERM)
        assert await asyncio.wait_for(ended, PATIENCE) == "it has ended"
        watched.signal(signal.SIGTERM)
    finally:
        child.kill()
        child.wait()


async def test_another_process_with_the_same_id_is_not_taken_for_it(tmp_path: Path) -> None:
    own = os.getpid()
    with pytest.raises(ProcessLookupError):
        Watched(Launched(own, began(own) + 1), None, lambda words: None)


async def test_output_is_never_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        start(SLEEP, {}, tmp_path / "out", tmp_path, "")
