"""pvh inspect: its JSON contract, its exit status, and what people read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from elfwriter import XEN, BzImage, Elf, Load, entry_note, kernel, note, notes, pack, u32, u64
from pvh.cli import main

RICH = kernel(
    note(6, b"linux\0"),
    note(1, u64(0xFFFFFFFF81000000)),
    note(17, u32(0x8001)),
    note(10, b"!writable_page_tables|dom0\0"),
    entry_note(),
    note(19, u32(0x200000, 0x1000000, 0x3FFFFFFF)),
    note(3, b"\xde\xad", owner=b"GNU\0"),
    note(0x100, b"salt", owner=b"Linux\0"),
)
KEYS = {
    "container",
    "compression",
    "elf_class",
    "entry",
    "notes",
    "features",
    "segments",
    "verdict",
    "reasons",
    "warnings",
}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(data: bytes, name: str = "vmlinux") -> str:
        path = tmp_path / name
        path.write_bytes(data)
        return str(path)

    return write


def inspect_json(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, Any]]:
    status = main(["inspect", "--json", *argv])
    captured = capsys.readouterr()
    assert captured.err == ""
    report: dict[str, Any] = json.loads(captured.out)
    assert report.keys() >= KEYS
    return status, report


def inspect_text(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    status = main(["inspect", *argv])
    captured = capsys.readouterr()
    assert captured.err == ""
    return status, captured.out


def test_json_of_a_bootable_kernel(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = inspect_json(capsys, write(BzImage(pack("xz", RICH)).build()))
    assert status == 0
    assert report["verdict"] == "bootable"
    assert (report["container"], report["compression"], report["elf_class"]) == ("bzimage", "xz", 64)
    assert [layer["format"] for layer in report["layers"]] == ["bzImage", "xz", "ELF64"]
    assert (report["entry"], report["image"], report["min_memory"]) == (
        0x100000,
        {"start": 0x100000, "end": 0x100020},
        0x101000,
    )
    assert report["notes"][0] == {
        "type": 6,
        "name": "GUEST_OS",
        "value": "linux",
        "source": "segment 1",
        "offset": 0xD0,
    }
    assert [found["value"] for found in report["notes"] if found["type"] == 17] == [[0x8001]]
    assert [found["owner"] for found in report["other_notes"]] == ["GNU", "Linux"]
    assert report["features"] == {
        "supported": ["writable_page_tables", "dom0", "linux_rsdp_unrestricted"],
        "required": ["writable_page_tables"],
    }
    assert report["segments"] == [
        {
            "index": 0,
            "flags": 5,
            "offset": 0xB0,
            "vaddr": 0x100000,
            "paddr": 0x100000,
            "filesz": 32,
            "memsz": 32,
            "align": 0x1000,
        }
    ]
    assert report["relocation"] == {"align": 0x200000, "min": 0x1000000, "last": 0x3FFFFFFF}
    assert (report["linux_version"], report["build_id"]) == ("6.1.0-test", "dead")
    assert report["reasons"] == report["warnings"] == []


@pytest.mark.parametrize(
    ("data", "container", "compression"),
    [
        (kernel(entry_note()), "elf", None),
        (kernel(entry_note(), bits=32), "elf", None),
        (pack("gzip", kernel(entry_note())), "gzip", "gzip"),
        (BzImage(pack("lz4", kernel(entry_note()))).build(), "bzimage", "lz4"),
        (pack("gzip", BzImage(pack("zstd", kernel(entry_note()))).build()), "gzip", "zstd"),
    ],
)
def test_containers(
    write: Any, capsys: pytest.CaptureFixture[str], data: bytes, container: str, compression: str | None
) -> None:
    status, report = inspect_json(capsys, write(data))
    assert (status, report["container"], report["compression"]) == (0, container, compression)


def test_json_of_a_refused_kernel(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = inspect_json(capsys, write(kernel(entry_note(0x5000))))
    assert status == 20
    assert report["verdict"] == "refused"
    assert report["entry"] == 0x5000
    assert report["reasons"] == [
        {
            "code": "entry-outside",
            "message": "has an entry outside its own image",
            "hint": "give the physical address: the virtual one less the offset between p_vaddr and p_paddr",
            "field": "PHYS32_ENTRY",
            "offset": 0xD0,
            "found": "0x5000",
            "wanted": "0x100000 to 0x100020",
        }
    ]


@pytest.mark.parametrize(
    ("data", "container", "code"),
    [
        (b"", None, "not-a-kernel"),
        (b"#!/bin/sh", None, "not-a-kernel"),
        (BzImage(pack("xz", b"x"), protocol=0x200).build(), "bzimage", "not-a-kernel"),
        (pack("gzip", b"070701"), "gzip", "not-a-kernel"),
        (kernel(entry_note())[:60], "elf", "not-a-kernel"),
        (Elf().build(), "elf", "phys32-entry-missing"),
    ],
)
def test_a_refused_file_still_prints_its_json(
    write: Any, capsys: pytest.CaptureFixture[str], data: bytes, container: str | None, code: str
) -> None:
    status, report = inspect_json(capsys, write(data))
    assert (status, report["verdict"], report["container"]) == (20, "refused", container)
    assert [reason["code"] for reason in report["reasons"]] == [code]
    assert report["entry"] is None
    assert report["notes"] == []


@pytest.mark.parametrize(("abi", "count"), [("v1", 0), ("v0", 0), ("draft-c", 6)])
def test_draft_c_warns_of_notes_that_lack(write: Any, capsys: pytest.CaptureFixture[str], abi: str, count: int) -> None:
    status, report = inspect_json(capsys, "--abi", abi, write(kernel(entry_note())))
    assert (status, report["verdict"]) == (0, "bootable")
    assert [warning["code"] for warning in report["warnings"]] == ["draft-c"] * count


def test_text_of_a_bootable_kernel(
    write: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    path = write(RICH)
    status, text = inspect_text(capsys, path)
    assert status == 0
    lines = text.splitlines()
    assert lines[0] == f"{path}: bootable"
    assert "  entry     0x100000 (PHYS32_ENTRY)" in lines
    assert "  image     0x100000 to 0x100020, 32 bytes" in lines
    assert "  build id  dead" in lines
    assert "      6 GUEST_OS           linux  [segment 1]" in lines
    assert "      1 ENTRY              0xffffffff81000000  [segment 1]" in lines
    assert "  0x100 Linux BUILD_SALT   4 bytes  [segment 1]" in lines
    assert any(line.startswith("   0  R-X  0x100000-0x100020") for line in lines)
    assert any(line.startswith("  movable   to multiples of 0x200000") for line in lines)


def test_text_of_a_missing_note_shows_the_lines_to_add(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = inspect_text(capsys, write(Elf().build()))
    assert status == 20
    assert ": refused\n\n  - has no PVH entry point" in text
    assert '.section .note.Xen, "a", @note\n' in text
    assert "PHDRS { load PT_LOAD FLAGS(7); note PT_NOTE FLAGS(4); }\n" in text


def test_text_of_no_kernel(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = inspect_text(capsys, write(b"!<arch>\ndebian-binary", "linux.deb"))
    assert status == 20
    assert "linux.deb: refused\n\n  - is a Debian package\n" in text
    assert "    hint   dpkg-deb -x FILE DIR" in text


def test_text_of_a_damaged_file_says_where(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = inspect_text(capsys, write(Elf(header={"data": 2}).build()))
    assert "  - is an ELF file that is not little-endian (at 0x5)" in text


@pytest.mark.parametrize("width", [40, 60, 79, 80, 120])
def test_text_keeps_to_the_width(
    write: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    odd = kernel(entry_note(), note(10, b"|".join([b"hvm_callback_vector"] * 9) + b"|new\0"), note(99, b""))
    _, text = inspect_text(capsys, "--abi", "draft-c", write(odd, "k"))
    body = text.split("\n", 1)[1]
    assert max(map(len, body.splitlines())) <= width


def test_text_from_a_file_does_not_steer_the_terminal(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = b"\x1b[2J\x07\x9b\r\n\0"
    _, text = inspect_text(capsys, write(kernel(entry_note(), note(6, hostile), note(1, b"", owner=hostile))))
    assert "\\x1b[2J\\x07\\x9b" in text
    assert all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize(
    ("records", "shown"),
    [
        ((note(6, b"\0"),), '6 GUEST_OS           ""'),
        ((note(17, b""),), "17 SUPPORTED_FEATURES nothing"),
        ((note(16, u32(1)),), "16 MOD_START_PFN      1"),
        ((note(3, b"", owner=b"\0"),), "3 (no owner) 0x3     0 bytes"),
    ],
)
def test_values(write: Any, capsys: pytest.CaptureFixture[str], records: tuple[bytes, ...], shown: str) -> None:
    _, text = inspect_text(capsys, write(kernel(entry_note(), *records)))
    assert shown in text


def test_sizes_have_units(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    loads = (Load(memsz=3 << 29), Load(0x100000, bytes(2048), memsz=2048))
    _, text = inspect_text(capsys, write(kernel(entry_note(), loads=loads)))
    assert "1.5 GiB" in text
    assert "2 KiB" in text


def test_a_file_without_anything(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = inspect_text(capsys, write(Elf(()).build()))
    assert "segments" not in text
    assert "notes:" not in text


def test_a_banner_names_linux(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    text = Load(data=b"Linux version 6.9.1-test (me@here) #1\0")
    _, report = inspect_text(capsys, write(kernel(entry_note(), note(6, b"linux\0"), loads=(text,))))
    assert "  Linux     6.9.1-test\n" in report


def test_warnings_are_told(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    data = Elf((Load(), notes(entry_note() + XEN)), header={"machine": 183}).build()
    status, text = inspect_text(capsys, write(data))
    assert status == 0
    assert "\nwarnings:\n" in text
    assert "\n  - is not marked as an x86 file (e_machine at 0x12)" in text


def test_a_terminal_gives_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    from pvh.cli import inspect

    monkeypatch.delenv("COLUMNS", raising=False)

    def terminal(_fd: int) -> os.terminal_size:
        return os.terminal_size((63, 20))

    monkeypatch.setattr(os, "get_terminal_size", terminal)
    assert inspect._width() == 63

    def no_terminal(_fd: int) -> os.terminal_size:
        raise OSError

    monkeypatch.setattr(os, "get_terminal_size", no_terminal)
    assert inspect._width() == 100


def pvh(*argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "import sys; from pvh.cli import main; sys.exit(main())", "inspect", *argv]
    return subprocess.run(command, input=stdin, capture_output=True, check=False)


def test_standard_input() -> None:
    done = pvh("-", "--json", stdin=kernel(entry_note()))
    assert done.returncode == 0
    assert json.loads(done.stdout)["path"] == "standard input"


@pytest.mark.parametrize("argv", [[], ["--no-such"], ["--abi", "v9", "x"], ["/no/such/file"], ["/"]])
def test_wrong_usage(argv: list[str]) -> None:
    done = pvh(*argv)
    assert done.returncode == 2
    assert done.stderr
    assert b"Traceback" not in done.stderr
