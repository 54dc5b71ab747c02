"""What real Xen 4.17 does to a guest, by its committed logs, against what we plan and what our guests say here.

Each difference has a name, which docs/oracle.md explains. `make oracle` makes the logs anew.
"""

from __future__ import annotations

import re
from collections import Counter
from difflib import unified_diff

import pytest
from tools.oracle import job
from tools.oracle.run import usual_guests

from entry.expect import expected, hidden_differences
from oracle import hvmctx, libxl417
from oracle.differences import OF_LINES, OF_TABLES, VOLATILE
from oracle.recorded import ENTRY, NAMES, OTHERS, ROOT, job_of, log_of, plan_of
from pvh.abi.hvm_param import CONSOLE_EVTCHN, CONSOLE_PFN, STORE_EVTCHN, STORE_PFN
from pvh.abi.sched import SHUTDOWN_POWEROFF
from pvh.abi.x86 import PAGE_SIZE
from pvh.build.builder import build
from pvh.build.cpu_state import LOADABLE_MSRS, CpuState, SegmentRegister, TableRegister
from pvh.devices.lapic import LocalApic
from pvh.engines.select import choose
from pvh.machine import Machine
from pvh.plan import layout
from xen.guest import Guest

# What the probe kernel prints is judged, not compared: docs/probe.md.
LINES = [name for name in OTHERS if name not in OF_TABLES and name != "probe"]
APIC_BASE, ENABLED, BSP = 0xFEE00000, 1 << 11, 1 << 8  # IA32_APIC_BASE (SDM vol. 3, 11.4.4)


def context(name: str) -> hvmctx.Context:
    return hvmctx.read(log_of(name).parts["hvmctx"])


def segments(name: str) -> dict[str, tuple[int, int]]:
    """Return what the domain builder says it placed, by its own names: start and end."""
    row = re.compile(r"xc_dom_alloc_segment:\s+(.*?)\s*: 0x([0-9a-f]+) -> 0x([0-9a-f]+)")
    return {name: (int(start, 16), int(end, 16)) for name, start, end in row.findall(log_of(name).parts["create"])}


def without_checksum(lines: list[str]) -> list[str]:
    """Blank byte 8 of the RSDP: it makes up for the tables' addresses, and the guest found the sum right."""
    return [re.sub(r"^(rsdp\.head=.{16})..", r"\1__", line) for line in lines]


def diff(ours: list[str], theirs: list[str]) -> list[str]:
    return [line for line in unified_diff(ours, theirs, n=0, lineterm="") if not line.startswith(("---", "+++", "@@"))]


def test_every_guest_of_the_list_has_a_log_of_its_settings() -> None:
    listed = [job.parse(word) for word in usual_guests()]
    assert {one.name: one for one in listed} == {name: job.parse(log_of(name).facts["guest"]) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_log_is_of_the_guest_as_it_is(name: str) -> None:
    assert log_of(name).facts["sha256"] == job_of(name).digest, "run `make oracle`: the guest was built anew"


@pytest.mark.parametrize("name", NAMES)
def test_a_log_says_how_it_was_made(name: str) -> None:
    facts = log_of(name).facts
    assert re.match(r"20\d\d-\d\d-\d\d ", facts["date"])
    assert facts["xen"].startswith("4.17.")
    assert facts["qemu"].startswith("QEMU emulator version ")
    assert facts["dom0"].startswith("Linux ")
    assert facts["command"].startswith("python tools/oracle/run.py ")


@pytest.mark.parametrize("name", ENTRY)
def test_the_guest_finds_on_xen_what_we_plan(name: str) -> None:
    """docs/misc/pvh.pandoc, start_info.h: every line of the entry-state guest."""
    wanted = expected(libxl417.as_417(plan_of(name)))
    assert diff(without_checksum(wanted), without_checksum(log_of(name).said())) == []


@pytest.mark.parametrize("without", libxl417.STEPS)
def test_each_difference_of_the_plan_is_one(without: str) -> None:
    wanted = expected(libxl417.as_417(plan_of("entry64"), without))
    assert diff(without_checksum(wanted), without_checksum(log_of("entry64").said())) != []


@pytest.mark.parametrize("name", NAMES)
def test_xen_loads_the_processor_as_we_do(name: str) -> None:
    """All that xen-hvmctx shows of vCPU 0 before its first instruction; the other vCPUs are down, without a record."""
    cpus = context(name).cpus
    assert list(cpus) == [0]
    assert hidden_differences(plan_of(name), cpus[0]) == []


def test_every_field_of_a_record_counts() -> None:
    text = log_of("entry64").parts["hvmctx"]
    right = hvmctx.read(text).cpus[0]
    changed: Counter[str] = Counter()
    for number in re.finditer(r"\b(?:0x)?([0-9a-f]{3,16})\b", text):
        wrong = hvmctx.read(text[: number.start(1)] + "7" * len(number[1]) + text[number.end(1) :]).cpus[0]
        changed.update(name for name in CpuState.__slots__ if getattr(wrong, name) != getattr(right, name))
    parts = {SegmentRegister: 4, TableRegister: 2, tuple: 16, int: 1}
    wanted = {name: parts[type(getattr(right, name))] for name in CpuState.__slots__}
    assert changed == wanted | {"msrs": len(hvmctx.MSRS)}
    assert sorted(hvmctx.MSRS.values()) == sorted(LOADABLE_MSRS)


@pytest.mark.parametrize("name", NAMES)
def test_local_apics_start_as_xens(name: str) -> None:
    """APIC id = 2 * vCPU id, version, and every register before the first instruction (xen: vlapic.c)."""
    apics = context(name).apics
    assert list(apics) == list(range(job_of(name).vcpus))
    for vcpu, theirs in apics.items():
        ours = LocalApic(layout.apic_id(vcpu), lambda: 0, lambda _: None)
        assert {offset: ours.read(offset) for offset in theirs.registers} == theirs.registers
        assert theirs.base_msr == APIC_BASE | ENABLED | (0 if vcpu else BSP)


@pytest.mark.parametrize("name", NAMES)
def test_the_builder_places_what_we_place_where_we_do(name: str) -> None:
    made, placed = plan_of(name), segments(name)
    kernel = [piece for piece in made.ranges if piece.kind == "kernel"]
    start, end = placed.pop("kernel")
    assert (start, end) == (layout.page_down(kernel[0].start), layout.page_up(kernel[-1].end))
    assert placed.pop("HVM start info")[0] == made.start_info.paddr
    modules = [(module.paddr, module.paddr + module.size) for module in made.start_info.modules]
    assert list(placed.values()) == modules


@pytest.mark.parametrize("name", NAMES)
def test_rings_lie_where_xens_lie(name: str) -> None:
    """The store's ring and the console's are special pages; the ports are the first two (xenguest.h, libxl_dom.c)."""
    domid = re.search(r"/local/domain/(\d+)/", log_of(name).parts["xenstore"])
    assert domid
    rows = re.findall(rf'^/local/domain/{domid[1]}/(\S+) = "(.*)"$', log_of(name).parts["xenstore"], re.MULTILINE)
    tree = dict(rows)
    pages = {place.name: place.start // PAGE_SIZE for place in layout.SPECIAL_PAGES}
    params = Guest().domain.params.values
    assert int(tree["store/ring-ref"]) == pages["XENSTORE page"] == params[STORE_PFN]
    assert int(tree["console/ring-ref"]) == pages["CONSOLE page"] == params[CONSOLE_PFN]
    assert int(tree["store/port"]) == params[STORE_EVTCHN]
    assert int(tree["console/port"]) == params[CONSOLE_EVTCHN]


@pytest.mark.parametrize("name", NAMES)
def test_the_guest_ended_on_xen_by_powering_off(name: str) -> None:
    assert log_of(name).reason == SHUTDOWN_POWEROFF


def run_here(name: str) -> list[str]:
    """Run a log's guest on the emulator; return port 0xe9's lines."""
    said = bytearray()
    image = build(plan_of(name))
    try:
        outcome = Machine(image, choose("emulator", lambda _: None), said.extend).run()
    finally:
        image.ram.close()
    assert outcome.status == 0, outcome.reason
    return said.decode().splitlines()


@pytest.mark.parametrize("name", LINES)
def test_a_guest_says_here_what_it_says_on_xen(name: str) -> None:
    """Port 0xe9's lines from the emulator against those from Xen, save the listed differences."""
    found = diff(run_here(name), log_of(name).said())
    assert found == [line for _, lines in OF_LINES.get(name, ()) for line in lines]


def table(lines: list[str]) -> dict[str, str]:
    """Return `name=value` lines as a mapping, without what differs from run to run."""
    for pattern, replacement in VOLATILE:
        lines = [re.sub(pattern, replacement, line) for line in lines]
    found: dict[str, str] = {}
    for line in lines:
        name, _, found[name] = line.partition("=")
    assert len(found) == len(lines), "a name twice"
    return found


@pytest.mark.parametrize("name", OF_TABLES)
def test_a_table_is_the_same_here_and_on_xen(name: str) -> None:
    """Every line of a guest's table, save the listed names; each of those does differ."""
    ours, theirs = table(run_here(name)), table(log_of(name).said())
    found = {key: (ours.get(key), theirs.get(key)) for key in ours | theirs if ours.get(key) != theirs.get(key)}
    listed = [key for keys in OF_TABLES[name].values() for key in keys]
    assert {key: values for key, values in found.items() if key not in listed} == {}, "not listed in differences.py"
    assert set(listed) - found.keys() == set(), "listed in differences.py, but equal"


def test_the_page_explains_each_difference() -> None:
    page = (ROOT / "docs" / "oracle.md").read_text(encoding="utf-8")
    named = {*libxl417.STEPS, "rsdp-checksum", *(key for rows in OF_LINES.values() for key, _ in rows)}
    named |= {key for rows in OF_TABLES.values() for key in rows}
    explained = set(re.findall(r"^\| `([a-z0-9-]+)` \|", page.partition("\n## Differences\n")[2], re.MULTILINE))
    assert explained == named
