"""hvm_start_info's three layouts (xen public/arch-x86/hvm/start_info.h; Draft C: the 2015 thread)."""

from __future__ import annotations

from build.plans import plan
from pvh.build.start_info import start_info_pieces
from pvh.plan.options import Abi, BootOptions
from pvh.plan.record import PlacedModule, StartInfo

MODULES = (PlacedModule("a", 0x200000, 0x1234, 0x8100), PlacedModule("b", 0x202000, 5, 0))
INFO = StartInfo(0x8000, 3, 0x8040, 0x8080, MODULES, 0xFC008000, 0x8200)
MAGIC = "78c56e33"


def pieces(abi: Abi, info: StartInfo = INFO) -> dict[int, str]:
    made = start_info_pieces(plan(options=BootOptions(abi=abi), info=info))
    return {paddr: data.hex() for paddr, data in made}


def test_draft_c_is_20_bytes_with_flags_behind_the_magic() -> None:
    assert pieces("draft-c")[0x8000] == MAGIC + "03000000" + "40800000" + "02000000" + "80800000"


def test_draft_c_module_entries_are_8_bytes() -> None:
    assert pieces("draft-c")[0x8080] == "00002000" + "34120000" + "00202000" + "05000000"


def test_version_0_is_40_bytes_with_64_bit_pointers() -> None:
    head = pieces("v0")[0x8000]
    assert head == (
        MAGIC + "00000000" + "03000000" + "02000000" + "8080000000000000" + "4080000000000000" + "008000fc00000000"
    )


def test_version_1_appends_the_memory_map_and_a_reserved_zero() -> None:
    head = pieces("v1")[0x8000]
    assert head[8:16] == "01000000"
    assert head[16:80] == pieces("v0")[0x8000][16:]
    assert head[80:] == "0082000000000000" + "02000000" + "00000000"


def test_module_entries_are_32_bytes_and_say_0_for_no_command_line() -> None:
    wanted = "0000200000000000341200000000000000810000000000000000000000000000"
    wanted += "0020200000000000050000000000000000000000000000000000000000000000"
    assert pieces("v1")[0x8080] == pieces("v0")[0x8080] == wanted


def test_memory_map_entries_are_24_bytes() -> None:
    wanted = "000000000000000000000001000000000100000000000000"
    wanted += "0080fffe0000000000800000000000000200000000000000"
    assert pieces("v1")[0x8200] == wanted


def test_only_version_1_has_a_memory_map() -> None:
    assert set(pieces("v0")) == set(pieces("draft-c")) == {0x8000, 0x8080}


def test_without_modules_there_is_no_list() -> None:
    bare = StartInfo(0x8000, 0, 0, 0, (), 0, 0x8200)
    assert set(pieces("v1", bare)) == {0x8000, 0x8200}
    assert pieces("v0", bare)[0x8000][24:48] == "00000000" + "0000000000000000"
