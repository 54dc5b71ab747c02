"""What other loaders make of a file: against the loaders themselves, where they can be had; and their rules, each once.

`make test-loaders` brings them: QEMU, libxenguest, Firecracker, libkrun.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from elfwriter import BzImage, Elf, Load, entry_note, kernel, note, notes, pack, u32, u64
from kernel.case import Case
from kernel.corpus import CASES
from kernel.real_loaders import REAL, Real
from pvh.cli import main
from pvh.kernel.loaders import LoaderVerdict, judge_all
from pvh.kernel.read import read_kernel, read_source
from pvh.kernel.source import BytesSource
from tools import corpus

BIG = Load(0x200000, align=0x200000)  # what linux-loader takes
ENTERED = {"entry": 0x200000}


def made_of(data: bytes) -> dict[str, LoaderVerdict]:
    return {verdict.loader: verdict for verdict in judge_all(read_source(BytesSource("kernel", data)))}


def on_qemu(path: Path, entry: int | None) -> tuple[str, bool]:
    """Run a file in QEMU: what it says when it refuses it ("": it does not), and whether it halts behind `entry`."""
    words = ["qemu-system-x86_64", "-M", "microvm", "-accel", "tcg", "-m", "256", "-nodefaults", "-no-user-config",
             "-display", "none", "-no-reboot", "-no-shutdown", "-monitor", "stdio", "-kernel", str(path)]  # fmt: skip
    pipe = subprocess.PIPE
    for wait in (0.15, 1.0):
        with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as qemu:
            time.sleep(wait)
            ended = qemu.poll() is not None
            try:
                told, complaint = qemu.communicate("" if ended else "info registers\nquit\n", timeout=5)
            except subprocess.TimeoutExpired:
                return "(QEMU hangs)", False
            finally:
                qemu.kill()
        if qemu.returncode == -8:
            return "Floating point exception (SIGFPE)", False
        if qemu.returncode:
            return complaint, False
        found = re.search(r"^[ER]IP=([0-9a-f]+) .*HLT=1", told, re.MULTILINE)
        if entry is None or (found and int(found.group(1), 16) == entry + 1):
            return "", entry is not None
    return "", False


ODD = (
    Case("p-align-0", Elf((Load(), notes(entry_note(), align=0))).build()),
    Case("p-align-0-behind-another", Elf((Load(), notes(note(6, b"linux\0") + entry_note(), align=0))).build()),
    Case("p-align-8-padded-to-4", Elf((Load(), notes(note(6, b"linux\0") + entry_note(), align=8))).build()),
    Case("p-align-8-of-one", Elf((Load(), notes(entry_note(), align=8))).build()),
    Case("entry-0", kernel(entry_note(0), loads=(Load(0),))),
    Case("owner-is-another", Elf((Load(), notes(note(18, u32(0x100000), owner=b"BSD\0")))).build()),
    Case("two-note-segments", Elf((Load(), notes(entry_note()), notes(entry_note(0x100001)))).build()),
    Case("e-flags", Elf((Load(), notes(entry_note())), header={"machine": 40}).build()),
    Case("overlap", kernel(entry_note(), loads=(Load(memsz=64), Load(0x100010)))),
    Case("multiboot", kernel(entry_note(), loads=(Load(data=u32(0x1BADB002, 0, 0xE4524FFE) + b"\xf4" * 32),))),
    Case("elf32", kernel(entry_note(), bits=32)),
    Case("gzip", pack("gzip", kernel(entry_note()))),
)


def proves(case: Case, tmp_path: Path) -> bool:
    """Tell whether QEMU does what we say of it; AssertionError where it does not. True: it was seen at the entry."""
    verdict = made_of(case.data)["QEMU"]
    path = tmp_path / "kernel"
    path.write_bytes(case.data)
    said, there = on_qemu(path, verdict.entry)
    if verdict.pvh or verdict.path:
        assert said == "", f"{case.id}: {said}"
        return there
    assert verdict.says in said, f"{case.id}: {said or 'boots'}"
    return False


needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64 here")


@needs_qemu
@pytest.mark.parametrize("case", ODD, ids=lambda case: case.id)
def test_qemu_reads_odd_files_as_we_say(case: Case, tmp_path: Path) -> None:
    proves(case, tmp_path)


@needs_qemu
@pytest.mark.slow
def test_qemu_reads_the_corpus_as_we_say(tmp_path: Path) -> None:
    wrong: list[str] = []
    entered = 0
    for case in CASES:
        try:
            entered += proves(case, tmp_path)
        except AssertionError as error:
            wrong.append(str(error).partition("\n")[0])
    assert wrong == []
    assert entered > len(CASES) // 3


def entered(case: Case) -> Case:
    """Return an ELF64 with an e_entry of 1 MiB: VMMs that ask for one look no further where there is none."""
    elf64 = case.data[:5] == b"\x7fELF\2"
    return Case(f"{case.id}, entered", case.data[:24] + u64(1 << 20) + case.data[32:] if elf64 else case.data)


def differs(real: Real, case: Case, tmp_path: Path) -> str:
    """Return what is otherwise than we say when a loader itself reads a file; "" if nothing is."""
    verdict = made_of(case.data)[real.name]
    path = tmp_path / "kernel"
    path.write_bytes(case.data)
    seen = real.run(path)
    if verdict.says not in seen.said:
        return f"{case.id}: not a word of {verdict.says!r}: {seen.said[-200:]}"
    if seen.took != (verdict.pvh or bool(verdict.path)):
        return f"{case.id}: {'takes' if seen.took else 'refuses'} it: {seen.said[-200:]}"
    if seen.took and seen.pvh not in (None, verdict.pvh or verdict.path.startswith("PVH")):
        return f"{case.id}: by PVH: {seen.pvh}"
    return f"{case.id}: enters at {seen.entry}" if verdict.pvh and seen.entry not in (None, verdict.entry) else ""


LOADERS = [pytest.param(real, id=real.name, marks=pytest.mark.skipif(
    not real.here, reason=f"no {real.name} here: make test-loaders")) for real in REAL]  # fmt: skip


@pytest.mark.parametrize("real", LOADERS)
def test_a_loader_reads_odd_files_as_we_say(real: Real, tmp_path: Path) -> None:
    assert [differs(real, case, tmp_path) for case in map(entered, ODD)] == [""] * len(ODD)


@pytest.mark.slow
@pytest.mark.parametrize("real", LOADERS)
def test_a_loader_reads_the_corpus_as_we_say(real: Real, tmp_path: Path) -> None:
    cases = [*CASES, *(entered(case) for case in CASES)]
    assert [found for case in cases if (found := differs(real, case, tmp_path))] == []
    assert sum(made_of(case.data)[real.name].pvh for case in cases) > len(CASES) // 3


RUST = ("Firecracker", "Cloud Hypervisor", "linux-loader", "libkrun")


def test_all_take_a_kernel_that_is_made_for_all() -> None:
    data = Elf((BIG, notes(entry_note(0x200000))), header={"entry": 0x200000}).build()
    assert {name: verdict.entry for name, verdict in made_of(data).items() if verdict.pvh} == dict.fromkeys(
        ("libxenguest", "Xen dom0 builder", "QEMU", *RUST), 0x200000
    )


@pytest.mark.parametrize(
    ("data", "loader", "says", "why"),
    [
        (kernel(entry_note(), bits=32), "Firecracker", "Invalid program header size", "no ELF64"),
        (
            Elf((Load(paddr=1 << 32), notes(entry_note())), header={"entry": 1 << 20}).build(),
            "Firecracker",
            "Unable to read kernel image",
            "above 4 GiB",
        ),
        (
            Elf((BIG, notes(note(18, b"ab"))), header={"entry": 1 << 21}).build(),
            "linux-loader",
            "Invalid PVH note header",
            "",
        ),
        (pack("gzip", kernel(entry_note())), "libkrun", "Invalid Elf magic", ""),
        (Elf((BIG, notes(entry_note(0x200000)))).build(), "Cloud Hypervisor", "bzImage kernel image", "below 1 MiB"),
    ],
)
def test_linux_loader_refuses(data: bytes, loader: str, says: str, why: str) -> None:
    verdict = made_of(data)[loader]
    assert not verdict.pvh
    assert says in verdict.says
    assert why in verdict.why


def test_how_far_it_is_known_is_told() -> None:
    unsure = made_of(kernel(entry_note(), loads=(Load(memsz=8),)))
    assert {name for name, verdict in unsure.items() if verdict.verified == "unverified"} == {"Xen dom0 builder"}
    assert {name for name, verdict in unsure.items() if verdict.verified == "read"} == {"Cloud Hypervisor"}
    sure = made_of(kernel(entry_note()))
    assert {name for name, verdict in sure.items() if verdict.verified == "read"} == {
        "Cloud Hypervisor",
        "Xen dom0 builder",
    }


def test_without_a_note_each_goes_its_own_way() -> None:
    found = made_of(Elf((BIG, notes(note(6, b"linux\0"))), header={"entry": 1 << 21}).build())
    assert found["Firecracker"].path == found["libkrun"].path == "Linux's 64-bit boot protocol, at e_entry"
    assert found["Cloud Hypervisor"].says == "Kernel lacks PVH header"
    assert found["QEMU"].says == "Error loading uncompressed kernel without PVH ELF Note"
    assert not any(verdict.pvh for verdict in found.values())


def test_a_bzimage_is_pvh_to_xen_alone() -> None:
    found = made_of(BzImage(pack("gzip", kernel(entry_note()))).build())
    assert {name for name, verdict in found.items() if verdict.pvh} == {"libxenguest", "Xen dom0 builder"}
    assert "real-mode" in found["QEMU"].path


def test_debians_kernel(specimen: Callable[[str], Path]) -> None:
    found = {verdict.loader: verdict for verdict in judge_all(read_kernel(str(specimen("vmlinuz-cloud-6.1"))))}
    assert found["libxenguest"].entry == found["Xen dom0 builder"].entry == 0x1000850
    assert not found["QEMU"].pvh


def test_the_table_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(Elf((Load(), notes(entry_note(), align=0))).build())
    assert main(["inspect", "--loaders", str(path)]) == 0
    said = capsys.readouterr().out
    assert "SIGFPE" in said
    assert "hw/i386/x86.c" in said or "elf_ops" in said
    assert main(["inspect", "--loaders", "--json", str(path)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["loader"] for row in report["loaders"]][2] == "QEMU"


def test_the_published_corpus_is_current() -> None:
    assert corpus.PAGE.read_text(encoding="utf-8") == corpus.page(), "run: python -m tools.corpus"
    assert corpus.DATA.read_text(encoding="utf-8") == corpus.data(), "run: python -m tools.corpus"
