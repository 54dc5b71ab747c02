"""Event channels, 2-level ABI (facts/xen-abi.md, 10.3 and 10.4; xen/common/event_{channel,2l}.c)."""

from __future__ import annotations

import pytest

from pvh.abi.hypercall import DOMID_SELF, EVENT_CHANNEL_OP
from xen.guest import ARG, RAM, SPARE, Guest

EPERM, ENOENT, ESRCH, EBUSY, EEXIST, EINVAL, ENOSPC, ENOSYS = 1, 2, 3, 16, 17, 22, 28, 38
BIND_INTERDOMAIN, BIND_VIRQ, CLOSE, SEND, STATUS, ALLOC_UNBOUND, BIND_IPI, BIND_VCPU, UNMASK, RESET = (
    0,
    1,
    *range(3, 11),
)
TIMER, DEBUG, XENPMU = 0, 1, 13
STORE_PORT, CONSOLE_PORT = 1, 2
FIRST = 3  # the first port that a guest gets
PENDING = 0x800  # in shared_info, both widths


def bind_virq(guest: Guest, virq: int, vcpu: int = 0) -> int:
    """Return the port, or the error."""
    result = guest.op(EVENT_CHANNEL_OP, BIND_VIRQ, "<III", virq, vcpu, 0)
    return result or guest.get("<III", ARG)[2]


def bind_ipi(guest: Guest, vcpu: int = 0) -> int:
    result = guest.op(EVENT_CHANNEL_OP, BIND_IPI, "<II", vcpu, 0)
    return result or guest.get("<II", ARG)[1]


def port_op(guest: Guest, command: int, port: int) -> int:
    return guest.op(EVENT_CHANNEL_OP, command, "<I", port)


class Words:
    """shared_info as a guest of this width reads it, at SPARE; every port masked first, as Linux does."""

    def __init__(self, guest: Guest) -> None:
        guest.domain.shared.latch_width(wide=guest.bits == 64)
        assert guest.domain.shared.map_at(SPARE >> 12)
        self.guest = guest
        self.word = guest.bits // 8
        self.mask = SPARE + PENDING + self.word * self.word * 8  # one word of bits for each bit of a selector
        self.length = self.word * self.word * 8
        guest.ram.write(self.mask, b"\xff" * self.length)

    def pending(self) -> set[int]:
        return self._bits(SPARE + PENDING, self.length)

    def selectors(self, vcpu: int = 0) -> set[int]:
        return self._bits(SPARE + vcpu * 64 + self.word, self.word)

    def upcall(self, vcpu: int = 0) -> int:
        return self.guest.get("<B", SPARE + vcpu * 64)[0]

    def unmask(self, port: int) -> None:
        (byte,) = self.guest.get("<B", self.mask + port // 8)
        self.guest.put("<B", self.mask + port // 8, byte & ~(1 << port % 8))

    def masked(self, port: int) -> bool:
        return bool(self.guest.get("<B", self.mask + port // 8)[0] >> port % 8 & 1)

    def _bits(self, gpa: int, size: int) -> set[int]:
        raw = self.guest.ram.read(gpa, size)
        assert raw is not None
        value = int.from_bytes(raw, "little")
        return {bit for bit in range(size * 8) if value >> bit & 1}


@pytest.fixture
def words(guest: Guest) -> Words:
    return Words(guest)


def test_the_words_lie_where_public_xen_h_puts_them(words: Words) -> None:
    assert words.mask - SPARE == (0xA00 if words.word == 8 else 0x880)
    assert words.guest.domain.shared.layout.ports == (4096 if words.word == 8 else 1024)


def test_a_masked_port_becomes_pending_and_nothing_more(words: Words) -> None:
    port = bind_ipi(words.guest)
    assert port_op(words.guest, SEND, port) == 0
    assert (words.pending(), words.selectors(), words.upcall()) == ({port}, set(), 0)


def test_an_unmasked_port_sets_pending_selector_and_upcall_and_calls_up(words: Words) -> None:
    guest = words.guest
    guest.domain.upcall_vectors[0] = 0xF3
    port = bind_ipi(guest)
    words.unmask(port)
    assert port_op(guest, SEND, port) == 0
    assert (words.pending(), words.selectors(), words.upcall()) == ({port}, {0}, 1)
    assert guest.host.vectors == [(0, 0xF3)]


def test_a_port_that_is_pending_is_not_sent_again(words: Words) -> None:
    guest = words.guest
    guest.domain.upcall_vectors[0] = 0xF3
    port = bind_ipi(guest)
    words.unmask(port)
    port_op(guest, SEND, port)
    guest.put("<B", SPARE, 0)  # the guest took the upcall, but not the port
    assert port_op(guest, SEND, port) == 0
    assert (words.upcall(), len(guest.host.vectors)) == (0, 1)


def test_the_selector_bit_is_that_of_the_ports_word(words: Words) -> None:
    guest = words.guest
    ports = [bind_ipi(guest) for _ in range(70)]
    port = ports[-1]
    words.unmask(port)
    port_op(guest, SEND, port)
    assert words.selectors() == {port // guest.bits}


def test_events_go_to_the_vcpu_they_are_bound_to(words: Words) -> None:
    guest = words.guest
    guest.domain.upcall_vectors |= {0: 0xF3, 1: 0xF4}
    port = bind_ipi(guest, 1)
    words.unmask(port)
    port_op(guest, SEND, port)
    assert (words.upcall(0), words.upcall(1), words.selectors(0), words.selectors(1)) == (0, 1, set(), {0})
    assert guest.host.vectors == [(1, 0xF4)]


def test_unmask_of_a_pending_port_delivers_it(words: Words) -> None:
    guest = words.guest
    port = bind_ipi(guest)
    port_op(guest, SEND, port)
    assert port_op(guest, UNMASK, port) == 0
    assert not words.masked(port)
    assert (words.selectors(), words.upcall()) == ({0}, 1)


def test_unmask_of_a_quiet_port_only_unmasks(words: Words) -> None:
    port = bind_ipi(words.guest)
    assert port_op(words.guest, UNMASK, port) == 0
    assert (words.masked(port), words.selectors(), words.upcall()) == (False, set(), 0)


def test_unmask_of_an_unmasked_port_delivers_nothing(words: Words) -> None:
    """Xen acts on the change of the mask only."""
    port = bind_ipi(words.guest)
    port_op(words.guest, SEND, port)
    words.unmask(port)
    assert port_op(words.guest, UNMASK, port) == 0
    assert words.upcall() == 0


def test_ports_count_from_1_and_the_lowest_free_one_is_given(guest: Guest) -> None:
    """Port 0 is reserved; xenstore has 1 and the console 2."""
    assert [bind_ipi(guest) for _ in range(3)] == [FIRST, FIRST + 1, FIRST + 2]
    assert port_op(guest, CLOSE, FIRST + 1) == 0
    assert bind_ipi(guest) == FIRST + 1


def test_when_no_port_is_left_binding_gives_enospc(guest: Guest) -> None:
    """libxl lets a domain have 1023 (event_channels= of xl.cfg), whatever the width of shared_info allows."""
    guest.domain.shared.latch_width(wide=guest.bits == 64)
    assert [bind_ipi(guest) for _ in range(1024 - FIRST)][-1] == 1023
    assert bind_ipi(guest) == -ENOSPC
    assert bind_virq(guest, TIMER) == -ENOSPC


@pytest.mark.parametrize("command", [CLOSE, SEND])
@pytest.mark.parametrize("port", [0, FIRST, 63, 64, 5000, 0xFFFFFFFF])
def test_ports_that_are_not_open_give_einval(guest: Guest, command: int, port: int) -> None:
    assert port_op(guest, command, port) == -EINVAL


@pytest.mark.parametrize(("port", "wanted"), [(0, 0), (FIRST, 0), (63, 0), (64, -EINVAL), (0xFFFFFFFF, -EINVAL)])
def test_unmask_of_a_free_port_that_xen_has_a_record_of_does_nothing(words: Words, port: int, wanted: int) -> None:
    """Records are made 64 at a time; evtchn_port_unmask looks at the state of those there are."""
    assert port_op(words.guest, UNMASK, port) == wanted
    assert port > 4096 or words.masked(port)


def test_records_are_made_as_ports_are_needed(guest: Guest) -> None:
    while bind_ipi(guest) < 64:
        pass
    assert (port_op(guest, UNMASK, 127), port_op(guest, UNMASK, 128)) == (0, -EINVAL)


@pytest.mark.parametrize(
    ("virq", "vcpu", "wanted"),
    [(24, 0, -EINVAL), (0xFFFFFFFF, 0, -EINVAL), (TIMER, 2, -ENOENT), (XENPMU, 9, -ENOENT), (2, 1, -EINVAL)],
)
def test_bind_virq_refuses(guest: Guest, virq: int, vcpu: int, wanted: int) -> None:
    assert bind_virq(guest, virq, vcpu) == wanted


@pytest.mark.parametrize("virq", [2, 3, 4, 6, 8, 23])
def test_global_virqs_belong_to_the_hardware_domain(guest: Guest, virq: int) -> None:
    assert bind_virq(guest, virq) == -EBUSY


def test_a_virq_has_one_port_for_each_vcpu(guest: Guest) -> None:
    assert bind_virq(guest, TIMER) == FIRST
    assert bind_virq(guest, TIMER) == -EEXIST
    assert bind_virq(guest, TIMER, 1) == FIRST + 1
    assert bind_virq(guest, DEBUG) == FIRST + 2
    assert port_op(guest, CLOSE, FIRST) == 0
    assert bind_virq(guest, TIMER) == FIRST


def test_a_virq_cannot_be_sent(guest: Guest) -> None:
    assert port_op(guest, SEND, bind_virq(guest, TIMER)) == -EINVAL


def test_an_ipi_needs_its_vcpu(guest: Guest) -> None:
    assert bind_ipi(guest, 2) == -ENOENT


def test_closing_forgets_that_the_port_was_pending(words: Words) -> None:
    port = bind_ipi(words.guest)
    port_op(words.guest, SEND, port)
    assert port_op(words.guest, CLOSE, port) == 0
    assert words.pending() == set()
    assert port_op(words.guest, SEND, port) == -EINVAL


@pytest.mark.parametrize(
    ("port", "vcpu", "wanted"), [(CONSOLE_PORT, 1, 0), (CONSOLE_PORT, 2, -ENOENT), (9, 0, -EINVAL)]
)
def test_bind_vcpu_moves_a_port(words: Words, port: int, vcpu: int, wanted: int) -> None:
    guest = words.guest
    assert guest.op(EVENT_CHANNEL_OP, BIND_VCPU, "<II", port, vcpu) == wanted
    words.unmask(CONSOLE_PORT)
    guest.domain.events.set_pending(CONSOLE_PORT)
    assert words.upcall(1) == (wanted == 0)


def test_ipis_and_per_vcpu_virqs_do_not_move(guest: Guest) -> None:
    for port in (bind_ipi(guest), bind_virq(guest, TIMER), bind_virq(guest, XENPMU)):
        assert guest.op(EVENT_CHANNEL_OP, BIND_VCPU, "<II", port, 1) == -EINVAL


@pytest.mark.parametrize("command", [11, 12, 13, 14, 0xFFFFFFFF])
def test_the_fifo_abi_is_not_offered(guest: Guest, command: int) -> None:
    """Any error of init_control makes a guest use the 2-level ABI (facts, 10.1, step 5)."""
    assert guest.call(EVENT_CHANNEL_OP, command, ARG) == -ENOSYS


def test_a_port_whose_number_cannot_be_returned_gives_efault() -> None:
    guest = Guest()
    guest.put("<II", RAM - 8, 0, 0)
    assert guest.call(EVENT_CHANNEL_OP, BIND_IPI, RAM - 8) == 0
    assert guest.call(EVENT_CHANNEL_OP, BIND_IPI, RAM - 7) == -14


def alloc_unbound(guest: Guest, remote: int = DOMID_SELF, domid: int = DOMID_SELF) -> int:
    result = guest.op(EVENT_CHANNEL_OP, ALLOC_UNBOUND, "<HHI", domid, remote, 0)
    return result or guest.get("<HHI", ARG)[2]


def bind_interdomain(guest: Guest, port: int, domid: int = DOMID_SELF) -> int:
    result = guest.op(EVENT_CHANNEL_OP, BIND_INTERDOMAIN, "<H2xII", domid, port, 0)
    return result or guest.get("<H2xII", ARG)[2]


def status(guest: Guest, port: int, domid: int = DOMID_SELF) -> tuple[int, ...]:
    """Return status, vCPU, and the two words that depend on the status; or the error."""
    result = guest.op(EVENT_CHANNEL_OP, STATUS, "<H2xIIIII", domid, port, 0xAA, 0xAA, 0, 0)
    return (result,) if result else guest.get("<H2xIIIII", ARG)[2:]


def test_two_ports_of_one_domain_ring_each_other(words: Words) -> None:
    guest = words.guest
    waiting = alloc_unbound(guest)
    assert status(guest, waiting) == (1, 0, guest.domain.domid, 0)
    assert port_op(guest, SEND, waiting) == 0, "dropped: nobody is there"
    assert words.pending() == set()
    other = bind_interdomain(guest, waiting)
    assert words.pending() == {other}, "what was sent before was lost, so the binder is told"
    assert status(guest, waiting) == (2, 0, guest.domain.domid, other)
    assert status(guest, other) == (2, 0, guest.domain.domid, waiting)
    assert port_op(guest, SEND, other) == 0
    assert words.pending() == {other, waiting}


def test_closing_one_end_has_the_other_wait_again(words: Words) -> None:
    guest = words.guest
    waiting = alloc_unbound(guest)
    other = bind_interdomain(guest, waiting)
    assert port_op(guest, CLOSE, other) == 0
    assert status(guest, waiting) == (1, 0, guest.domain.domid, 0)
    assert bind_interdomain(guest, waiting) == other


def test_a_port_waits_for_the_domain_it_names(guest: Guest) -> None:
    for remote in (0, 7):
        port = alloc_unbound(guest, remote)
        assert status(guest, port) == (1, 0, remote, 0)
        assert bind_interdomain(guest, port) == -EINVAL


@pytest.mark.parametrize(("domid", "wanted"), [(0, -EPERM), (2, -ESRCH), (0x7FF1, -ESRCH)])
def test_ports_of_other_domains_are_not_allocated_nor_told_of(guest: Guest, domid: int, wanted: int) -> None:
    assert alloc_unbound(guest, 0, domid) == wanted
    assert status(guest, CONSOLE_PORT, domid) == (wanted,)
    assert guest.op(EVENT_CHANNEL_OP, RESET, "<H", domid) == wanted


@pytest.mark.parametrize(("domid", "wanted"), [(0, -EINVAL), (2, -ESRCH), (0x7FF1, -ESRCH)])
def test_no_port_of_another_domain_waits_for_us(guest: Guest, domid: int, wanted: int) -> None:
    assert bind_interdomain(guest, 1, domid) == wanted


@pytest.mark.parametrize("port", [0, CONSOLE_PORT, FIRST, FIRST + 1, 64, 0xFFFFFFFF])
def test_only_a_waiting_port_can_be_bound_to(guest: Guest, port: int) -> None:
    """Not the one that is being allocated either; and what was allocated for it is free again."""
    assert bind_ipi(guest) == FIRST
    assert bind_interdomain(guest, port) == -EINVAL
    assert bind_ipi(guest) == FIRST + 1


def test_status_of_each_kind(guest: Guest) -> None:
    assert status(guest, 0) == status(guest, FIRST) == (0, 0, 0, 0)
    assert status(guest, CONSOLE_PORT) == (2, 0, 0, CONSOLE_PORT)
    assert status(guest, bind_virq(guest, DEBUG, 1)) == (4, 1, DEBUG, 0)
    assert status(guest, bind_ipi(guest, 1)) == (5, 1, 0, 0)
    assert status(guest, 64) == (-EINVAL,)


def test_reset_closes_every_port(words: Words) -> None:
    guest = words.guest
    port = bind_ipi(guest)
    port_op(guest, SEND, port)
    assert guest.op(EVENT_CHANNEL_OP, RESET, "<H", DOMID_SELF) == 0
    assert {status(guest, port)[0] for port in range(64)} == {0}
    assert words.pending() == set()
    assert bind_ipi(guest) == STORE_PORT


def test_a_pirq_is_none(guest: Guest) -> None:
    assert guest.op(EVENT_CHANNEL_OP, 2, "<III", 1, 0, 0) == -EINVAL


def test_loops_of_ports_bind_vcpu_alike(guest: Guest) -> None:
    port = alloc_unbound(guest)
    assert guest.op(EVENT_CHANNEL_OP, BIND_VCPU, "<II", port, 1) == 0
    assert status(guest, port)[1] == 1


def test_a_device_does_not_ring_at_a_port_that_the_guest_made_another_of(words: Words) -> None:
    guest = words.guest
    assert port_op(guest, CLOSE, CONSOLE_PORT) == 0
    assert bind_ipi(guest) == CONSOLE_PORT
    guest.host.typing.extend(b"typed")
    guest.domain.serve_console()
    assert words.pending() == set()
