"""Finding VMCALL and VMMCALL in kernels: instructions only, and of code only (facts/engines.md, "direct VMCALL")."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import capstone
import pytest

from engines.flat import MEMORY
from engines.kvm.scenarios import guest_image
from pvh.build.builder import build
from pvh.build.image import Image
from pvh.build.ram import GuestRam
from pvh.engines.kvm import libcapstone
from pvh.engines.kvm.hypercall_page import PORT, VMCALL, VMMCALL
from pvh.engines.kvm.patch import find_sites, patch
from pvh.errors import EngineError
from pvh.kernel.read import read_kernel
from pvh.kernel.record import Segment
from pvh.kernel.source import BytesSource
from pvh.plan.options import BootOptions
from pvh.plan.planner import plan

AT = 0x2000
CODE = bytes.fromhex(  # what a compiler makes of a small function; it has a meaning for 32-bit eyes too
    "554889e54157415649"
    "89fe534883ec18488b074885c0742a488b50084839d075114c8d7e1031db8b43043dff0f0000770c89c7"
    "e81234560085c07805488d4424084883c4185b415e415f5dc3"
)


def image_of(code: bytes, *, flags: int = 5, bits: int = 64) -> Image:
    """Return an image with one load segment of this code, without section headers."""
    base = guest_image(0)
    base.ram.close()
    ram = GuestRam(((0, MEMORY),))
    assert ram.write(AT, code)
    segment = Segment(0, 1, flags, 0, AT, AT, len(code), len(code), 0x1000)
    kernel = replace(base.plan.kernel, segments=(segment,), source=BytesSource("", code), bits=bits)
    return replace(base, plan=replace(base.plan, kernel=kernel), ram=ram)


def occurrences(image: Image) -> tuple[int, ...]:
    """Return every place of VMCALL's and VMMCALL's bytes in the kernel."""
    found: set[int] = set()
    for segment in image.plan.kernel.loads:
        data = image.ram.read(segment.paddr, segment.filesz) or b""
        found |= {segment.paddr + at for at in range(len(data)) if data[at : at + 3] in (VMCALL, VMMCALL)}
    return tuple(sorted(found))


@pytest.mark.parametrize("instruction", [VMCALL, VMMCALL])
@pytest.mark.parametrize("bits", [32, 64])
def test_an_instruction_is_found_wherever_it_stands(instruction: bytes, bits: int) -> None:
    for before in (0, 1, 2):
        code = CODE * before + instruction + CODE
        assert find_sites(image_of(code, bits=bits)) == (AT + len(CODE) * before,)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("f30f01d9", "VMGEXIT, which is VMMCALL with a prefix (AMD APM vol. 3)"),
        ("b80f01c190", "mov eax, 0x90c1010f"),
        ("8b0f01d98b", "mov ecx, [rdi]; add ecx, ebx: the bytes of two instructions"),
        ("48b80f01c10f01d90f01", "mov rax, imm64"),
    ],
)
def test_the_same_bytes_elsewhere_are_not(code: str, why: str) -> None:
    assert find_sites(image_of(CODE + bytes.fromhex(code) + CODE)) == (), why


def test_segments_that_cannot_be_executed_are_not_searched() -> None:
    assert find_sites(image_of(VMCALL * 4, flags=6)) == ()


def test_only_sections_with_instructions_are_searched() -> None:
    """Linux's executable segment holds .rodata; a table there has the bytes."""
    image = guest_image(0)
    data = bytearray(image.plan.kernel.source.read(0, image.plan.kernel.source.size))
    assert len(find_sites(image)) == 3
    # Take SHF_EXECINSTR (4) away from every section: then nothing says where the code is, and the segment counts.
    shoff = int.from_bytes(data[40:48], "little")
    for index in range(int.from_bytes(data[60:62], "little")):
        data[shoff + 64 * index + 8] &= ~4
    unsaid = replace(image.plan.kernel, source=BytesSource("", bytes(data)))
    assert len(find_sites(replace(image, plan=replace(image.plan, kernel=unsaid)))) == 3
    # Say that code is elsewhere: the same bytes are a table now.
    data[shoff + 64 + 8] |= 4
    data[shoff + 64 + 24 : shoff + 64 + 40] = (0x1000).to_bytes(8, "little") + (16).to_bytes(8, "little")
    said = replace(image.plan.kernel, source=BytesSource("", bytes(data)))
    assert find_sites(replace(image, plan=replace(image.plan, kernel=said))) == ()
    image.ram.close()


def test_the_replacement_has_the_length_of_what_it_replaces() -> None:
    image = image_of(b"\x90" + VMCALL + b"\x90")
    patch(image, (AT + 1,))
    assert image.ram.read(AT, 5) == bytes((0x90, 0xE6, PORT, 0x90, 0x90))


def test_the_scenarios_guests_have_instructions_only() -> None:
    """Their source has the bytes nowhere else."""
    image = guest_image(0)
    assert find_sites(image) == occurrences(image)
    image.ram.close()


def test_without_a_disassembler_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "capstone", None)
    with pytest.raises(EngineError, match="capstone") as caught:
        find_sites(image_of(VMCALL))
    assert "--no-patch" in str(caught.value)
    assert find_sites(image_of(b"\x90" * 64)) == (), "and does not need one when there is nothing to look at"


def test_a_library_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "libcapstone.so").write_bytes(b"no ELF file")
    monkeypatch.setattr(libcapstone, "library_path", lambda: str(tmp_path / "libcapstone.so"))
    with pytest.raises(EngineError, match="capstone library cannot be used") as caught:
        find_sites(image_of(VMCALL))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("bits", [32, 64])
def test_the_library_and_the_package_decode_alike(bits: int) -> None:
    """From every start to every later place of code, and of bytes that are none."""
    package = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64 if bits == 64 else capstone.CS_MODE_32)
    package.skipdata = True
    path = libcapstone.library_path()
    assert path
    decoder = libcapstone.Decoder(path, bits)
    code = CODE[:48] + VMCALL + bytes.fromhex("0f0b0f04") + random.Random(4).randbytes(24) + VMMCALL + b"\x0f"
    for start in range(len(code)):
        names = {at: name for at, _, name, _ in package.disasm_lite(code[start:], start) if name != ".byte"}
        for position in range(start, len(code)):
            found = decoder.name_at(code, start, position)
            assert found == names.get(position, "").split(" ")[-1], (start, position)
    decoder.close()


def test_the_package_is_not_imported() -> None:
    script = "import sys; sys.path.insert(0, 'tests'); from engines.kvm.scenarios import guest_image\n"
    script += "from pvh.engines.kvm.patch import find_sites; assert find_sites(guest_image(0))\n"
    script += "sys.exit('capstone' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("name", ["vmlinuz-cloud-6.1", "vmlinuz-6.12", "xen-shim", "grub-i386-xen_pvh.bin"])
def test_real_kernels_agree_with_objdump(name: str, specimen: Callable[[str], Path], tmp_path: Path) -> None:
    if shutil.which("objdump") is None:
        pytest.skip("no objdump")
    image = build(plan(read_kernel(str(specimen(name))), BootOptions(memory=512 << 20)))
    kernel = image.plan.kernel
    elf = tmp_path / "kernel.elf"
    elf.write_bytes(kernel.source.read(0, kernel.source.size))
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", elf], capture_output=True, text=True, check=True)
    addresses = [int(line.split(":")[0], 16) for line in re.findall(r"^.*\tvmm?call.*$", text.stdout, re.MULTILINE)]
    truth = {a - s.vaddr + s.paddr for a in addresses for s in kernel.loads if s.vaddr <= a < s.vaddr + s.memsz}
    assert set(find_sites(image)) == truth
    assert len(truth) == len(addresses)
    image.ram.close()
