"""The lookup map's file: what is written is read, as the map grows, is replaced, and grows old."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lictor.agent.lookup_file import LookupFile, MapFull, older_names
from lictor.client.errors import DamagedMap, NoInstance, NoMap, NotPublished, Stale
from lictor.client.lookups import Lookups
from lictor.client.map_file import MapFile
from lictor.model import lookup_layout as layout
from tests.client.maps import encode, instance, lookups, new_map, now, put
from tests.patience import eventually


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lookup.map"


def test_what_is_put_is_found(path: Path) -> None:
    file = new_map(path)
    put(file, "web", instance(1, tags=("v1", "blue"), meta={"k": "v"}, weight=7, rtt=0.25, datacenter="dc1"))
    found = lookups(path).lookup("Web")
    assert (found.service, found.id, found.node, found.authority) == ("Web", "web1", "n1", "10.0.0.1:8001")
    assert (found.tags, found.meta, found.weight, found.rtt) == (("v1", "blue"), {"k": "v"}, 7, 0.25)
    assert (found.status, found.datacenter) == ("passing", "dc1")
    assert 0 <= found.age < 100


def test_a_change_is_seen_by_the_next_lookup(path: Path) -> None:
    file, reader = new_map(path), lookups(path)
    for number in range(1, 50):
        put(file, "web", instance(number))
        assert reader.lookup("web").port == 8000 + number


def test_only_what_is_well_is_found_unless_warnings_will_do(path: Path) -> None:
    file, reader = new_map(path), lookups(path)
    put(file, "web", instance(1, "critical"), instance(2, "warning"), instance(3, "maintenance"))
    with pytest.raises(NoInstance, match="web has no passing instance: 1 critical, 1 maintenance, 1 warning"):
        reader.lookup("web")
    assert reader.lookup("web", warning=True).port == 8002
    put(file, "web")
    with pytest.raises(NoInstance, match="none is registered"):
        reader.lookup("web")


def test_tags_narrow_the_choice_whatever_their_case(path: Path) -> None:
    file, reader = new_map(path), lookups(path)
    put(file, "web", instance(1), instance(2, tags=("Primary",)))
    assert {reader.lookup("web", tag="primary").port for _ in range(20)} == {8002}
    with pytest.raises(NoInstance, match="with the tag other"):
        reader.lookup("web", tag="other")


def test_a_policy_that_there_is_not_is_named(path: Path) -> None:
    put(new_map(path), "web", instance(1))
    with pytest.raises(ValueError, match="no policy 'best'; there are random, round_robin"):
        lookups(path).lookup("web", "best")  # type: ignore[arg-type]


def test_an_empty_map_is_opened_once(path: Path) -> None:
    new_map(path)
    reader = lookups(path)
    file = reader.file
    with pytest.raises(NotPublished):
        reader.lookup("web")
    assert reader.file is file


def test_what_is_not_published_is_told_apart_from_what_is_not_there(path: Path) -> None:
    file, reader = new_map(path), lookups(path)
    with pytest.raises(NotPublished, match="does not hold web"):
        reader.lookup("web")
    put(file, "web", instance(1))
    assert reader.lookup("web").port == 8001
    file.remove("web")
    with pytest.raises(NotPublished):
        reader.lookup("web")
    put(file, "web", instance(2))
    assert reader.lookup("web").port == 8002


def test_without_a_map_the_places_are_named(path: Path) -> None:
    with pytest.raises(NoMap, match=str(path)):
        lookups(path).lookup("web")


def test_ten_thousand_services_while_the_map_grows(path: Path) -> None:
    file, reader = new_map(path), lookups(path)
    put(file, "s0", instance(0))
    assert reader.lookup("s0").port == 8000
    for number in range(1, 10_000):
        put(file, f"s{number}", instance(number % 200), instance(200))
    assert len(file) == reader.file.count == 10_000
    for number in range(1, 10_000):
        assert {e.port for e in reader.service(f"s{number}").endpoints} == {8000 + number % 200, 8200}
    assert reader.lookup("s0").port == 8000
    before = file.size
    for turn in range(3):
        for number in range(1, 10_000, 7):
            put(file, f"s{number}", instance(turn), instance(200))
    assert file.size == before, "what is let go is used again"
    assert {e.port for e in reader.service("s8").endpoints} == {8002, 8200}


def test_services_that_come_and_go_leave_room(path: Path) -> None:
    file = new_map(path)
    for number in range(5000):
        put(file, f"s{number}", instance(1))
        file.remove(f"s{number}")
    assert file.size < 200_000
    assert lookups(path).file.count == 0


def test_a_service_may_have_many_instances(path: Path) -> None:
    file, reader = new_map(path), lookups(path)
    put(file, "web", instance(1))
    assert len(reader.service("web").endpoints) == 1
    put(file, "web", *[instance(number) for number in range(20_000)])
    assert len(reader.service("web").endpoints) == 20_000
    put(file, "web", instance(3))
    assert reader.lookup("web").port == 8003


def test_a_full_map_keeps_what_it_has(path: Path) -> None:
    file, reader = new_map(path, max_size=100_000), lookups(path)
    put(file, "web", instance(1))
    with pytest.raises(MapFull, match="over 100000 bytes"):
        put(file, "big", *[instance(number) for number in range(5000)])
    assert reader.lookup("web").port == 8001
    put(file, "web", instance(2))
    assert reader.lookup("web").port == 8002


def test_readers_follow_to_the_file_of_a_new_run(path: Path) -> None:
    first = new_map(path)
    put(first, "web", instance(1))
    reader = lookups(path)
    assert reader.lookup("web").port == 8001
    run = reader.file.run
    second = new_map(path)
    with pytest.raises(NotPublished):
        reader.lookup("web")
    put(second, "web", instance(2))
    assert reader.lookup("web").port == 8002
    assert reader.file.run != run


def test_a_file_that_was_put_in_place_unsaid_is_found_too(path: Path) -> None:
    """The old agent was killed, and its file removed by somebody: nobody could tell its readers."""
    put(new_map(path), "web", instance(1))
    clock = [0.0]
    reader = Lookups("", str(path), {}, clock=lambda: clock[0])
    assert reader.lookup("web").port == 8001
    path.unlink()
    put(new_map(path), "web", instance(2))
    assert reader.lookup("web").port == 8001
    clock[0] += 1.5
    assert reader.lookup("web").port == 8002


def test_a_map_that_is_gone_goes_on_answering(path: Path) -> None:
    clock = [0.0]
    put(new_map(path), "web", instance(1))
    reader = Lookups("", str(path), {}, clock=lambda: clock[0])
    assert reader.lookup("web").port == 8001
    path.unlink()
    clock[0] += 5
    assert reader.lookup("web").port == 8001


def test_the_age_is_that_of_the_agents_knowledge(path: Path) -> None:
    file, reader = new_map(path), lookups(path)
    put(file, "web", instance(1))
    file.heartbeat(now() - 300 * 10**9)  # it has not heard of the servers for five minutes
    found = reader.lookup("web")
    assert 300 <= found.age < 400
    assert reader.lookup("web", max_age=500) == found
    with pytest.raises(Stale, match=r"is 3\d\d\.\d s old, and at most 200 s is allowed") as caught:
        reader.lookup("web", max_age=200)
    assert 300 <= caught.value.age < 400
    file.heartbeat(0)
    assert reader.lookup("web").age == float("inf")
    with pytest.raises(Stale, match="of unknown age"):
        reader.lookup("web", max_age=10**9)


def test_an_agent_is_alive_while_its_heart_beats(path: Path) -> None:
    file = new_map(path)
    at = MapFile(path).words[layout.H_HEARTBEAT] / 1e9

    def looked_at(clock: float) -> tuple[bool, int]:
        reader = MapFile(path, clock=lambda: clock)
        try:
            return reader.alive, round(reader.silence() / 10)
        finally:
            reader.close()

    assert looked_at(at) == (True, 0)
    assert looked_at(at + 60) == (False, 6)
    file.end()
    assert looked_at(at) == (False, 0)


def test_a_map_of_before_the_machine_started_tells_its_age_by_the_calendar(path: Path) -> None:
    file = new_map(path)
    file.heartbeat(now() - 10 * 10**9)
    with path.open("r+b") as raw:
        raw.seek(layout.H_BOOT * layout.WORD)
        raw.write(bytes(range(16)))
    wall = time.time_ns()
    reader = MapFile(path, clock=lambda: 5.0, wall=lambda: wall + 3600 * 10**9)
    assert 3600 <= reader.age() < 3700
    assert 3590 <= reader.silence() < 3690
    reader.close()


def test_the_newest_of_several_maps_is_read(tmp_path: Path) -> None:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    (tmp_path / "lictor").mkdir(mode=0o755)
    file = new_map(tmp_path / "lictor" / "lookup-127.0.0.1-18500.map")
    put(file, "web", instance(1))
    reader = Lookups("http://localhost:18500", environment=environment)
    assert reader.lookup("web").port == 8001


def test_a_map_that_lives_takes_the_place_of_one_whose_agent_is_gone(tmp_path: Path) -> None:
    """The agent was started by another user, whose maps are elsewhere."""
    environment, clock = {"XDG_RUNTIME_DIR": str(tmp_path)}, [0.0]
    (tmp_path / "lictor").mkdir(mode=0o755)
    first = new_map(tmp_path / "lictor" / "lookup-127.0.0.1-18500.map")
    put(first, "web", instance(1))
    reader = Lookups("127.0.0.1:18500", environment=environment, clock=lambda: clock[0])
    assert reader.lookup("web").port == 8001
    first.end()
    other = new_map(tmp_path / "other.map")
    put(other, "web", instance(2))
    reader.told(str(tmp_path / "other.map"))

    def changed() -> bool:
        other.heartbeat(now())
        clock[0] += 1.5
        return reader.lookup("web").port == 8002

    eventually(changed, "the one that lives is read")


def test_a_folder_that_others_may_write_to_is_not_believed(tmp_path: Path) -> None:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    (tmp_path / "lictor").mkdir()
    put(new_map(tmp_path / "lictor" / "lookup-127.0.0.1-18500.map"), "web", instance(1))
    (tmp_path / "lictor").chmod(0o777)
    with pytest.raises(NoMap):
        Lookups("127.0.0.1:18500", environment=environment).lookup("web")


def test_the_files_mode_is_the_one_that_was_asked_for(path: Path) -> None:
    new_map(path, mode=0o640)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_map_that_may_not_be_read_says_so(path: Path) -> None:
    new_map(path, mode=0o600)
    if os.getuid() == 0:
        code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from lictor.client.errors import NoMap
from lictor.client.map_file import MapFile
from pathlib import Path
os.setgid(65534); os.setuid(65534)
try:
    MapFile(Path({str(path)!r}))
except NoMap as error:
    print(error)
"""
        for folder in path.parents:
            if folder.stat().st_uid == 0 and folder.is_relative_to("/tmp") and folder != Path("/tmp"):
                folder.chmod(0o755)
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    else:
        path.chmod(0)
        with pytest.raises(NoMap) as caught:
            MapFile(path)
        told = str(caught.value)
    assert "Permission denied" in told
    assert str(path) in told


def test_the_names_of_an_older_map_are_read_for_the_next(path: Path) -> None:
    file = new_map(path)
    for name in ("web", "db", "gone"):
        put(file, name, instance(1))
    file.remove("gone")
    assert sorted(older_names(path)) == ["db", "web"]
    path.write_bytes(path.read_bytes()[:5000])
    assert list(older_names(path)) == []
    path.write_bytes(b"x" * 100_000)
    assert list(older_names(path)) == []
    assert list(older_names(path.with_name("none"))) == []


def test_a_map_that_was_never_shown_leaves_nothing(path: Path) -> None:
    file = LookupFile(path, 0o644, now, time.time_ns)
    file.abandon()
    assert list(path.parent.iterdir()) == []


def test_a_later_version_may_tell_more_of_an_instance(path: Path) -> None:
    file = new_map(path)
    whole = ["web", [["web1", "n1", "10.0.0.1", 80, "passing", 1, None, [], {}, "dc1", "something new"]], "more"]
    file.put("web", 1, encode(whole))
    assert lookups(path).lookup("web").authority == "10.0.0.1:80"


def test_another_layout_is_refused_by_its_number(path: Path) -> None:
    new_map(path)
    with path.open("r+b") as raw:
        raw.seek(layout.H_VERSION * layout.WORD)
        raw.write((2).to_bytes(8, sys.byteorder))
    with pytest.raises(DamagedMap, match="its layout is version 2, and 1 is understood"):
        lookups(path).lookup("web")


WRITER = """
import sys, time
sys.path[:0] = {paths!r}
from pathlib import Path
from tests.client.maps import instance, new_map, put
file = new_map(Path({path!r}))
version = 0
while True:
    version += 1
    for name in ("a", "b", "c"):
        count = version % 13 + 1
        meta = dict(version=str(version), count=str(count), name=name, pad="x" * (version % 700))
        put(file, name, *[instance(n, meta=meta) for n in range(count)], index=version)
    if version % 50 == 0:
        for n in range(40):
            put(file, f"extra-{{version % 1000}}-{{n}}", instance(n))
    if version % 400 == 0:
        file = new_map(Path({path!r}))
"""


def test_no_read_is_torn_while_a_process_writes_as_fast_as_it_can(path: Path) -> None:
    """Every version is written with as many instances as it says, all of that version; and time goes forward."""
    code = WRITER.format(paths=sys.path, path=str(path))
    writer = subprocess.Popen([sys.executable, "-c", code])
    try:
        eventually(path.exists, "the writer has begun")
        reader = lookups(path)
        seen: set[str] = set()
        newest, reads = dict.fromkeys("abc", 0), 0

        def many() -> bool:
            assert writer.poll() is None
            nonlocal reads
            for _ in range(50):
                for name in "abc":
                    try:
                        service = reader.service(name)
                    except NotPublished:
                        continue
                    versions = {e.meta["version"] for e in service.endpoints}
                    assert len(versions) == 1
                    assert {e.meta["name"] for e in service.endpoints} == {name}
                    assert len(service.endpoints) == int(service.endpoints[0].meta["count"])
                    version = versions.pop()
                    assert int(version) >= newest[name]
                    newest[name] = int(version)
                    seen.add(version)
                    reads += 1
            return len(seen) > 100 and reads > 5000

        eventually(many, "many versions were read")
    finally:
        writer.kill()
        writer.wait()
    assert reader.service("a").endpoints, "killed in the middle of a write, what is there is whole"
