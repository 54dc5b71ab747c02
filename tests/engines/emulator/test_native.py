"""The machine code of the hooks is what its source says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pvh.engines.emulator import native


@pytest.mark.skipif(shutil.which("as") is None, reason="no assembler here")
def test_the_bytes_are_the_source_s(tmp_path: Path) -> None:
    source = Path(__file__).with_name("hooks.S")
    subprocess.run(["as", "--64", "-o", tmp_path / "o", source], check=True)
    subprocess.run(
        ["ld", "-m", "elf_x86_64", "-e", "0", "--oformat=binary", "-Ttext=0", "-o", tmp_path / "bin", tmp_path / "o"],
        check=True,
    )
    assert (tmp_path / "bin").read_bytes() == native._CODE
    symbols = subprocess.run(["nm", tmp_path / "o"], check=True, capture_output=True, text=True).stdout
    for name, offset in ("block", native._BLOCK), ("in", native._IN), ("out", native._OUT), ("made", native._MADE):
        assert f"{offset:016x} t {name}\n" in symbols


def test_the_host_s_counter_advances() -> None:
    if native.available():
        assert 0 < native.host_tsc() < native.host_tsc()
