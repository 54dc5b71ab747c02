"""Under the monitor, what start_info leads to in the layout of Draft C, and where its sizes are nonsense."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from conformance.monitored import monitored, violations
from conformance.relies import written
from pvh.build.image import Image
from pvh.demo import demo_path
from pvh.kernel.read import read_kernel
from pvh.plan.options import BootOptions, ModuleSpec
from pvh.plan.planner import plan
from pvh.record import replace

DRAFT = BootOptions(abi="draft-c", cmdline="word", modules=(ModuleSpec("README.md"),), timeout=20.0)
END = "b000 e6f4 f4"


def found(folder: Path, code: str, options: BootOptions = DRAFT) -> list[tuple[str, str]]:
    findings, outcome, _ = monitored(Path(written(folder, "draft.elf", bytes.fromhex(f"{code} {END}"))), options)
    assert (outcome.ending, outcome.status) == ("exit-port", 0), outcome.reason
    return violations(findings)


def test_the_demo_kernel_ends_and_is_seen_to_read_beyond_the_20_bytes() -> None:
    findings, outcome, _ = monitored(Path(demo_path()), replace(DRAFT, modules=(), cmdline=""))
    assert outcome.ending == "poweroff", outcome.reason
    assert [clause for clause, _ in violations(findings)] == ["start_info.last-bytes"]


def test_who_follows_its_pointers_relies_on_nothing(tmp_path: Path) -> None:
    follows = (
        "8b4308 8038 77 7400",  # cmdline_paddr at 8: does the line begin with w?
        "837b0c01 7400",  # nr_modules at 12
        "8b4b10 8b01 8a10 80fa23 7400",  # modlist_paddr at 16: does the first module begin with #?
    )
    assert found(tmp_path, " ".join(follows)) == []


@pytest.mark.parametrize(
    ("code", "clause"),
    [("837b14 00 7400", "start_info.last-bytes"), ("8b4b10 837908 00 7400", "modules.count")],
    ids=["behind-start_info", "behind-the-list"],
)
def test_what_stands_behind_is_nothing(tmp_path: Path, code: str, clause: str) -> None:
    assert [clause for clause, _ in found(tmp_path, code)] == [clause]


def test_a_pointer_that_is_null_may_be_tested_but_not_followed(tmp_path: Path) -> None:
    bare = replace(DRAFT, cmdline="", modules=())
    assert found(tmp_path, "8b4308 85c0 7400", bare) == []
    assert [clause for clause, _ in found(tmp_path, "8b4308 8a00", bare)] == ["cmdline.absent"]


def test_a_module_is_not_overwritten_before_it_is_known_where_it_is(tmp_path: Path) -> None:
    path = written(tmp_path, "draft.elf", bytes.fromhex(f"c605 00000000 00 {END}"))
    module = plan(read_kernel(path), DRAFT).start_info.modules[0].paddr
    store = f"c605 {struct.pack('<I', module).hex()} 00"
    assert [clause for clause, _ in found(tmp_path, store)] == ["memory.placement"]
    assert found(tmp_path, f"8b4b10 8b01 {store}") == []


@pytest.mark.parametrize("abi", ["draft-c", "v1"])
def test_a_module_list_of_nonsense_ends_too(tmp_path: Path, abi: str) -> None:
    def nonsense(image: Image) -> None:
        assert image.ram.write(image.plan.start_info.modlist_paddr, b"\xff" * 16)

    options = BootOptions(abi="draft-c" if abi == "draft-c" else "v1", modules=DRAFT.modules, timeout=20.0)
    kernel = Path(written(tmp_path, "idle.elf", bytes.fromhex(END)))
    _, outcome, _ = monitored(kernel, options, change=nonsense)
    assert outcome.ending == "exit-port"
