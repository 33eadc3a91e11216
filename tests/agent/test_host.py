"""The machine's description, from /proc's texts and where there are none."""

from pathlib import Path

from lictor.agent.host import host_info, memory, processors

MEMINFO = """\
MemTotal:       1000 kB
MemFree:         400 kB
MemAvailable:    700 kB
Buffers:          50 kB
Cached:          150 kB
SReclaimable:    100 kB
HugePages_Total:   0
nonsense
"""

CPUINFO = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: A processor
cpu MHz\t\t: 2400.500
cache size\t: 1024 KB
stepping\t: unknown
flags\t\t: fpu vme

processor\t: 1
BogoMIPS\t: 100.00
Features\t: fp asimd

"""


def test_memory_is_in_bytes() -> None:
    found = memory(MEMINFO)
    assert (found["total"], found["available"], found["free"]) == (1000 * 1024, 700 * 1024, 400 * 1024)
    assert (found["cached"], found["used"], found["usedPercent"]) == (250 * 1024, 300 * 1024, 30.0)


def test_every_processor_is_told_of() -> None:
    first, second = processors(CPUINFO)
    assert (first["cpu"], first["vendorId"], first["mhz"], first["cacheSize"]) == (0, "GenuineIntel", 2400.5, 1024)
    assert (first["stepping"], first["flags"]) == (0, ["fpu", "vme"])
    assert (second["cpu"], second["modelName"], second["flags"]) == (1, "", ["fp", "asimd"])


def test_without_proc_there_is_an_answer(tmp_path: Path) -> None:
    found = host_info(str(tmp_path / "nowhere"), tmp_path)
    assert (found["Memory"]["total"], found["CPU"], found["Disk"]["path"]) == (0, [], "/")
