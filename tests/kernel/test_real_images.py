"""Debian's own images: the right container, notes, entry, verdict (tools/obtain.py fetches them)."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pvh.abi import features
from pvh.errors import NotAKernel
from pvh.kernel.read import read_kernel
from pvh.kernel.record import Relocation

Find = Callable[[str], Path]

DOM0, RSDP = 1 << features.DOM0, 1 << features.LINUX_RSDP_UNRESTRICTED


@pytest.mark.parametrize(
    ("name", "codec", "version", "supported"),
    [
        ("vmlinuz-cloud-6.1", "lz4", "6.1.0-", 1 | 1 << 4 | DOM0 | RSDP),
        ("vmlinuz-generic-6.1", "xz", "6.1.0-", 1 | 1 << 4 | DOM0 | RSDP),
        ("vmlinuz-6.12", "zstd", "6.12.", 1 | RSDP),
    ],
)
def test_debian_kernels(specimen: Find, name: str, codec: str, version: str, supported: int) -> None:
    kernel = read_kernel(str(specimen(name)))
    assert [layer.format for layer in kernel.layers] == ["bzImage", codec, "ELF64"]
    assert kernel.linux_version.startswith(version)
    assert len(kernel.build_id) == 40
    assert kernel.bootable
    assert kernel.warnings == ()
    assert kernel.start == 0x1000000 <= (kernel.entry or 0) < kernel.end
    values = {note.name: note.value for note in kernel.notes if note.owner == "Xen"}
    assert values["GUEST_OS"] == "linux"
    assert values["XEN_VERSION"] == "xen-3.0"
    assert values["MOD_START_PFN"] == 1
    assert values["PHYS32_ENTRY"] == kernel.entry
    assert (kernel.features.required, kernel.features.supported) == (1, supported)


def test_6_12_may_be_moved(specimen: Find) -> None:
    """PHYS32_RELOC came to Linux after 6.1."""
    assert read_kernel(str(specimen("vmlinuz-6.12"))).relocation == Relocation(0x200000, 0x1000000, 0x3FFFFFFF)
    assert read_kernel(str(specimen("vmlinuz-cloud-6.1"))).relocation is None


def test_grub(specimen: Find) -> None:
    kernel = read_kernel(str(specimen("grub-i386-xen_pvh.bin")))
    assert (kernel.bits, kernel.entry, kernel.start, kernel.bootable) == (32, 0x100000, 0x100000, True)
    assert [note.type for note in kernel.notes] == [18]
    assert kernel.loads[1].paddr % 4096 != 0


def test_xen_shim(specimen: Find) -> None:
    kernel = read_kernel(str(specimen("xen-shim")))
    assert (kernel.bits, kernel.start, kernel.bootable) == (32, 0x200000, True)
    assert [note.name for note in kernel.notes] == ["PHYS32_ENTRY", "BUILD_ID"]


def test_xen_itself_is_no_guest(specimen: Find) -> None:
    kernel = read_kernel(str(specimen("xen.gz")))
    assert [layer.format for layer in kernel.layers] == ["gzip", "ELF32"]
    assert [finding.code for finding in kernel.problems] == ["phys32-entry-missing"]
    assert kernel.problems[0].found == "a Multiboot header and no Xen note"


def test_a_program_is_no_kernel() -> None:
    kernel = read_kernel("/bin/ls")
    assert kernel.problems[0].code == "phys32-entry-missing"
    assert kernel.problems[0].found.startswith("a program to run under an operating system")


@pytest.mark.parametrize(
    ("name", "cause"),
    [("OVMF.fd", "is a UEFI firmware volume"), ("some.deb", "is a Debian package")],
)
def test_other_files(specimen: Find, name: str, cause: str) -> None:
    with pytest.raises(NotAKernel, match=cause):
        read_kernel(str(specimen(name)))


@pytest.mark.parametrize(
    ("name", "share"),
    [
        *((name, share) for name in ("xen-shim", "xen.gz") for share in (0.1, 0.9, 0.9999)),
        # The signature is cut too, one byte from the end of it.
        *(
            (name, share)
            for name in ("vmlinuz-cloud-6.1", "vmlinuz-generic-6.1", "vmlinuz-6.12")
            for share in (0.1, 0.9, 0.9999, 0.99999999)
        ),
    ],
)
def test_a_truncated_image(specimen: Find, tmp_path: Path, name: str, share: float) -> None:
    data = specimen(name).read_bytes()
    (tmp_path / "cut").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(NotAKernel, match=r"cut short|damaged|more than the limit"):
        read_kernel(str(tmp_path / "cut"))


def test_an_uncompressed_kernel_is_not_read_whole(specimen: Find, tmp_path: Path) -> None:
    """A 50 MB vmlinux costs well under 2 ms (the fastest of ten, so that a busy machine does not decide)."""
    packed = read_kernel(str(specimen("vmlinuz-cloud-6.1")))
    path = tmp_path / "vmlinux"
    path.write_bytes(packed.source.read(0, packed.source.size))
    assert read_kernel(str(path)).entry == packed.entry
    assert min(timeit.repeat(partial(read_kernel, str(path)), number=1, repeat=10)) < 0.002
