"""The probe kernel: small, honest about what it is given, readable out of any log; and what it says of QEMU."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest
from tools.loaders import XEN

from elfwriter import Elf, Load, entry_note, notes
from kernel.real_loaders import on_libxenguest
from pvh.build.builder import build
from pvh.cli import main
from pvh.conformance.probe.capture import Capture, read_capture
from pvh.conformance.probe.compare import differences
from pvh.conformance.probe.facts import Observation, observe
from pvh.conformance.probe.kernel import FORMS, Form, probe_file
from pvh.conformance.probe.own import run_own
from pvh.conformance.probe.verdicts import Verdict, judge
from pvh.conformance.probe.vmm import CMDLINE, MODULE, VMMS, Accel, Probe, run_vmm
from pvh.engines.select import choose
from pvh.errors import PvhError, UsageError
from pvh.kernel.read import read_kernel, read_source
from pvh.kernel.source import BytesSource
from pvh.machine import Machine
from pvh.plan.options import MIB, BootOptions, ModuleSpec
from pvh.plan.planner import plan
from pvh.plan.variation import Variation
from pvh.record import replace

HAS_QEMU = shutil.which("qemu-system-x86_64") is not None
HAS_KVM = os.access("/dev/kvm", os.R_OK | os.W_OK)


def log_of(options: BootOptions, form: Form = "elf32") -> bytes:
    """Return what the probe says on the emulator."""
    kernel = read_source(BytesSource("probe", probe_file(form)))
    image = build(plan(kernel, options))
    said = bytearray()
    try:
        machine = Machine(image, choose("emulator", lambda _: None), said.extend)
        machine.run()
    finally:
        image.ram.close()
    return bytes(said)


def asked(options: BootOptions | None = None) -> Observation:
    return observe(read_capture(log_of(options or BootOptions(memory=64 * MIB))), "test")


def entered(*registers: tuple[str, int]) -> BootOptions:
    """Return options of a boot that is entered with other registers than the ABI promises."""
    return BootOptions(memory=64 * MIB, variation=Variation(registers=registers))


def verdicts(seen: Observation) -> dict[str, Verdict]:
    return {verdict.clause: verdict for verdict in judge(seen)}


def violated(seen: Observation) -> set[str]:
    return {verdict.clause for verdict in judge(seen) if verdict.answer == "violated"}


@pytest.mark.parametrize("form", FORMS)
def test_it_is_small(form: Form) -> None:
    assert len(probe_file(form)) <= 4096


@pytest.mark.parametrize("form", FORMS)
def test_every_build_says_the_same(form: Form) -> None:
    capture = read_capture(log_of(BootOptions(memory=64 * MIB), form=form))
    assert (capture.parts, capture.missing, capture.damaged) == (3, (), 0)
    seen = observe(capture, form)
    assert violated(seen) == set()
    assert seen.facts["tr.base_0"] == seen.facts["tr.io_inside"] == 1
    assert seen.facts["tr.io_outside"] == 0


def test_it_reads_all_that_start_info_leads_to(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one", "two")]
    for path in paths:
        path.write_bytes(path.name.encode() * 20)
    modules = tuple(ModuleSpec(str(path), f"of {path.name}") for path in paths)
    seen = asked(BootOptions(memory=64 * MIB, vcpus=2, cmdline="x" * 300, modules=modules))
    facts = seen.facts
    assert facts["cmdline"] == "x" * 300
    assert [(facts[f"module{n}.size"], facts[f"module{n}.cmdline"]) for n in (0, 1)] == [(60, "of one"), (60, "of two")]
    assert bytes.fromhex(str(facts["module1.head"])) == b"twotwotwotwotwot"
    assert sum(entry.size for entry in seen.memmap if entry.type == 1) == 64 * MIB
    assert (facts["rsdp.found"], facts["rsdp.sums"], facts["acpi_root.signature"]) == (1, 1, "XSDT")
    assert str(facts["cpuid.40000000"]).endswith("566e6558 65584d4d 4d4d566e")  # XenVMMXenVMM


def test_it_keeps_registers_it_cannot_know() -> None:
    values = {name: 0x11111111 * (n + 1) for n, name in enumerate(("rax", "rcx", "rdx", "rbp", "rsi", "rdi"))}
    registers = (*values.items(), ("rsp", 0x7000), ("rflags", 0x40C95))
    seen = asked(BootOptions(memory=64 * MIB, variation=Variation(registers=registers, poison=7)))
    assert {name: seen.facts["e" + name[1:]] for name in values} == values
    assert (seen.facts["esp"], seen.facts["eflags"]) == (0x7000, 0x40C97)
    assert violated(seen) == set()
    found = verdicts(seen)
    assert found["entry.esp"].tempting
    assert "AC" in found["eflags.system"].evidence
    assert "DF" in found["eflags.df"].evidence


BROKEN = (
    ("cr0", ("cr0", 0x10011)),
    ("cr4", ("cr4", 1 << 5)),
    ("eflags", ("rflags", 1 << 9)),
    ("tr", ("tr.limit", 0xFFFF)),
    ("tr", ("tr.limit", 0x66)),
    ("segments.flat", ("ss.attributes", 0x893)),  # a stack of 16 bits
)


@pytest.mark.parametrize(("clause", "register"), BROKEN)
def test_a_broken_promise_is_found(clause: str, register: tuple[str, int]) -> None:
    assert violated(asked(entered(register))) == {clause}


def test_a_tss_elsewhere_ends_the_machine_and_is_not_taken_for_more() -> None:
    found = verdicts(asked(entered(("tr.base", 0x1000))))["tr"]
    assert found.answer == "not seen"
    assert "did not come back" in found.evidence


def test_a_start_info_that_is_none_is_found() -> None:
    assert {"entry.ebx", "start_info.magic"} <= violated(asked(entered(("rbx", 0x3000))))


LOG = log_of(BootOptions(memory=64 * MIB))


def test_noise_around_lines_does_no_harm() -> None:
    chooser = random.Random(5)
    lines = sorted(set(LOG.splitlines()), key=lambda _: chooser.random())
    noisy = b"\r\n(XEN) d1: ".join([b"\xff\x00boot...", *lines, b"[  0.0] hello", *lines[:9]]) + b"\x1b[0m"
    assert read_capture(noisy) == read_capture(LOG)


def test_damage_is_found_and_named() -> None:
    lines = sorted(set(LOG.splitlines()))
    damaged = [*lines[:4], lines[4][:30] + b"0" + lines[4][30:], lines[5].swapcase(), *lines[7:]]
    capture = read_capture(b"\n".join(damaged))
    assert set(capture.missing) == {4, 5, 6}
    assert capture.damaged >= 1
    assert "missing or damaged" in " ".join(observe(capture, "x").remarks)


def test_no_byte_of_a_line_can_change_unseen() -> None:
    line = next(line for line in LOG.splitlines() if b" info " in line)
    for at in range(len(line)):
        changed = line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]
        try:
            capture = read_capture(changed)
        except UsageError:
            continue
        assert capture.blocks == (), at


def test_a_log_without_a_line_is_refused() -> None:
    with pytest.raises(UsageError, match="no line of the probe kernel"):
        read_capture(b"Linux version 6.1")


def test_a_loader_that_takes_e_entry_is_found() -> None:
    """The same code at both entries: what a loader without PVH does."""
    source = BytesSource("probe", probe_file("elf32"))
    data = source.read(0, source.size)
    e_entry = int.from_bytes(data[0x18:0x1C], "little")
    load = Load(0x200000, data[:0xA00], memsz=0x210000)
    kernel = read_source(BytesSource("stray", Elf((load, notes(entry_note(e_entry))), bits=32).build()))
    image = build(plan(kernel, BootOptions(memory=64 * MIB, timeout=1.0)))
    said = bytearray()
    try:
        machine = Machine(image, choose("emulator", lambda _: None), said.extend)
        machine.run()
    finally:
        image.ram.close()
    capture = read_capture(bytes(said))
    assert capture == Capture((), 0, stray=True)
    assert violated(observe(capture, "x")) == {"entry.eip"}


def test_random_blocks_are_never_a_traceback() -> None:
    chooser = random.Random(11)
    base = read_capture(LOG)
    for _ in range(300):
        blocks = tuple(replace(block, data=chooser.randbytes(chooser.randrange(len(block.data) + 8)))
                       for block in base.blocks if chooser.random() < 0.8)  # fmt: skip
        judge(observe(replace(base, blocks=blocks), "x"))


def test_our_engines_keep_every_promise() -> None:
    assert violated(run_own("pvh-emulator", Probe())) == set()


@pytest.mark.skipif(not HAS_KVM, reason="no /dev/kvm here")
def test_kvm_keeps_every_promise_but_patches() -> None:
    seen = run_own("pvh-kvm", Probe())
    assert violated(seen) == ({"memory.loaded"} if seen.facts["code.intact"] == 0 else set())
    assert (seen.facts["code.intact"] == 0) == any("replaced" in remark for remark in seen.remarks)
    assert (seen.facts["code.intact"] == 0) == ("pvh replaced" in verdicts(seen)["memory.loaded"].evidence)
    assert (seen.facts["tr.limit"], seen.facts["tr.type"]) == (0x67, 11)


ACCELS = ["tcg", pytest.param("kvm", marks=pytest.mark.skipif(not HAS_KVM, reason="no /dev/kvm here"))]


@pytest.mark.skipif(not HAS_QEMU, reason="no qemu-system-x86_64 here")
@pytest.mark.parametrize("accel", ACCELS)
def test_what_qemu_hands_over(accel: str) -> None:
    seen = run_vmm(VMMS["qemu-microvm"], Probe(accel="kvm" if accel == "kvm" else "tcg"))
    found = verdicts(seen)
    assert seen.remarks == ()
    assert found["tr"].answer == "violated"
    assert "never loaded" in found["tr"].evidence
    assert found["entry.eax"].tempting
    assert seen.facts["eax"] == 0x2BADB002
    assert found["entry.esp"].tempting
    assert str(seen.facts["cmdline"]).startswith(CMDLINE)
    assert bytes.fromhex(str(seen.facts["module0.head"])) == MODULE[:16]
    names = {difference.name for difference in differences(seen, run_own("pvh-emulator", Probe()))}
    assert {"eax", "esp", "tr.limit", "memmap"} <= names


@pytest.mark.skipif(not HAS_QEMU, reason="no qemu-system-x86_64 here")
@pytest.mark.parametrize("form", ["elf32", "elf64"])
@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_pc_and_q35(machine: str, form: Form) -> None:
    seen = run_vmm(VMMS[f"qemu-{machine}"], Probe(form))
    assert violated(seen) == {"tr"}
    assert verdicts(seen)["entry.esp"].tempting


def test_an_absent_vmm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match=r"firecracker is not installed here.*--dump"):
        run_vmm(VMMS["firecracker"], Probe())


def test_a_vmm_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "firecracker"
    fake.write_text("#!/bin/sh\necho 'Running Firecracker'\necho 'Error: no /dev/kvm'\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(PvhError, match=r"said nothing \(found Error: no /dev/kvm\) - firecracker ended with status 1"):
        run_vmm(VMMS["firecracker"], Probe(seconds=10))


@pytest.mark.skipif(not HAS_QEMU, reason="no qemu-system-x86_64 here")
def test_qemu_is_quoted_behind_its_prompt(tmp_path: Path) -> None:
    """It prints its monitor's greeting and the prompt before it reads the kernel."""
    vmm = VMMS["qemu-pc"]
    text = tmp_path / "text"
    text.write_text("no kernel\n" * 1000)

    def words(folder: str, accel: Accel) -> list[str]:
        return [str(text) if word == f"{folder}/kernel" else word for word in vmm.words(folder, accel)]

    with pytest.raises(PvhError, match=r"said nothing \(found qemu: linux kernel too old to load a ram disk\)"):
        run_vmm(replace(vmm, words=words), Probe(seconds=20))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("qemu-pc", "Linux's real-mode boot protocol"),
        ("qemu-microvm", "Linux's real-mode boot protocol"),
        ("cloud-hypervisor", "Linux's 32-bit boot protocol"),
        ("firecracker", "Cannot load kernel due to"),
    ],
)
def test_a_form_that_is_booted_otherwise_is_refused(
    name: str, path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["probe", name, "--form", "bzimage"]) == 2
    said = capsys.readouterr().err
    assert f"{name} does not boot the probe as bzimage by PVH" in said
    assert path in said
    assert main(["probe", name]) == 2
    assert "is not installed here" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["firecracker", "cloud-hypervisor", "xl"])
def test_other_vmms_are_run_and_read(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in that says what the emulator's console said: command line, log and the end are seen."""
    fake, log = tmp_path / VMMS[name].program, tmp_path / "log"
    log.write_bytes(LOG)
    fake.write_text(f'#!/bin/sh\nfor word; do echo "$word"; done >{tmp_path}/words\ncat {log}\nexec sleep 30\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    seen = run_vmm(VMMS[name], Probe(seconds=20))
    assert seen.remarks == ()
    assert violated(seen) == set()
    assert (tmp_path / "words").read_text().split()


@pytest.mark.skipif(not XEN.exists(), reason="no libxenguest here: make test-loaders")
@pytest.mark.parametrize("form", FORMS)
def test_real_libxenguest_loads_each_form_for_pvh(form: Form, tmp_path: Path) -> None:
    path = tmp_path / "probe"
    path.write_bytes(probe_file(form))
    seen = on_libxenguest(path)
    assert seen.took, seen.said
    assert seen.pvh
    assert seen.entry == read_kernel(str(path)).entry


def test_a_vmm_gets_the_form_that_it_boots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Firecracker's loader takes no 32-bit ELF."""
    fake = tmp_path / "firecracker"
    fake.write_text(f'#!/bin/sh\ncp $(sed -n \'s/.*kernel_image_path": "\\(.*\\)".*/\\1/p\' $3) {tmp_path}/kernel\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(PvhError, match="said nothing"):
        run_vmm(VMMS["firecracker"], Probe(seconds=20))
    assert (tmp_path / "kernel").read_bytes() == probe_file("elf64")
    with pytest.raises(UsageError, match=r"as elf32 by PVH .*wanted --form elf64\)"):
        run_vmm(VMMS["firecracker"], Probe("elf32"))


class TestCommand:
    def test_a_log_is_read_and_compared(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "log").write_bytes(LOG)
        assert main(["probe", "--dump", str(tmp_path / "log"), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["schema"] == "pvh.probe/1"
        assert {row["answer"] for row in report["verdicts"]} == {"upheld", "open", "not seen"}
        assert "memmap" in {row["fact"] for row in report["against"]["differences"]}

    def test_a_violation_has_status_15(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "log").write_bytes(log_of(entered(("tr.limit", 0xFFFF))))
        assert main(["probe", "--dump", str(tmp_path / "log"), "--against", "none"]) == 15
        assert "its limit is above 0x67" in capsys.readouterr().out

    @pytest.mark.parametrize("form", FORMS)
    def test_it_writes_the_kernel(self, form: str, tmp_path: Path) -> None:
        path = tmp_path / "probe"
        assert main(["probe", "--write", str(path), "--form", form]) == 0
        assert path.read_bytes() == probe_file(form)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ([], "nothing to probe"),
            (["qemu-pc", "--dump", "x"], "more than one thing"),
            (["bhyve"], "no VMM of the name 'bhyve'"),
            (["--dump", "/nowhere/log"], "/nowhere/log"),
            (["pvh-emulator", "--against", "/nowhere/log"], "/nowhere/log"),
        ],
    )
    def test_a_wrong_line_is_explained(self, line: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["probe", *line]) == 2
        assert said in capsys.readouterr().err
