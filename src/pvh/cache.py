"""The boot cache: guests that are booted already, in files of one user, for the next run to go on from.

An entry is a folder with guest RAM in a sparse file, which guests map privately and never read whole, and everything
else as text with a checksum. What decides how a guest boots is its key: the bytes of the kernel and its modules, the
options, the engine's library, every file of this package. An entry is believed only if

- nobody but its user can have written it, and the text has its checksum;
- the file of RAM is the very one that was written: number, length and times, down to that of the last change of its
  inode. Its pages are not summed: that would mean reading them;
- the host has not restarted since: so nothing has to be flushed to disk when it is written, and the frequency of the
  TSC is the one that the guest was told.

Anything else is dropped, with a word. Guests of one entry share all that a boot makes up, such as the kernel's own
random addresses; docs/snapshots.md tells what that means.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import contextmanager, suppress

from pvh.amounts import parse_size
from pvh.build.frozen import Frozen, freeze
from pvh.errors import PvhError, UsageError
from pvh.hints import TYPE_CHECKING, Any
from pvh.kept import dumps, loads
from pvh.kernel.record import Features, Kernel
from pvh.kernel.source import open_source
from pvh.plan.record import MemoryMapEntry, Plan, StartInfo
from pvh.record import dataclass, replace
from pvh.snapshot import RECORDS, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from pvh.machine import Machine
    from pvh.plan.options import BootOptions

LIMIT = 2 << 30  # bytes, unless PVH_CACHE_SIZE says otherwise
_FORMAT = 1
_RAM, _TEXT, _LOCK = "ram", "guest", ".lock"
_ABANDONED = 3600  # seconds after which a half-written entry belongs to nobody
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """What `pvh cache list` tells of an entry. size in bytes on disk; used in seconds since the epoch."""

    key: str
    kernel: str
    cmdline: str
    memory: int
    vcpus: int
    size: int
    used: float


class Stale(Exception):
    """An entry that is not to be believed; the text says why."""


def folder() -> str:
    """Return where the cache is: PVH_CACHE, else pvh in XDG_CACHE_HOME, else in ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.environ.get("PVH_CACHE") or os.path.join(home, "pvh")


def limit() -> int:
    """Return how many bytes all entries may take: PVH_CACHE_SIZE, else 2 GiB. 0: there is no cache.

    Raises UsageError where that is no size.
    """
    said = os.environ.get("PVH_CACHE_SIZE", "")
    try:
        return parse_size(said) if said else LIMIT
    except ValueError as error:
        raise UsageError(f"PVH_CACHE_SIZE: {error}") from None


def key(kernel: str, options: BootOptions, engine: str) -> str:
    """Return what names the guest that these boot into. Raises UsageError for a file that cannot be read."""
    from hashlib import sha256

    digest = sha256(b"pvh guest %d\0" % _FORMAT)
    for path in (kernel, *(module.path for module in options.modules)):
        source = open_source(path)
        digest.update(b"%d\0" % source.size)
        for at in range(0, source.size, _CHUNK):
            digest.update(source.read(at, min(_CHUNK, source.size - at)))
    modules = tuple(replace(module, path="") for module in options.modules)
    plain = replace(options, modules=modules, engine="auto", timeout=None, trace=None, core=None, copy=False)
    digest.update(f"{engine}\0{plain!r}\0".encode())
    for line in _software(engine):
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _software(engine: str) -> Iterator[str]:
    """Yield a line for each file of this package and of the engine's library: its path, size and time."""
    top = os.path.dirname(os.path.abspath(__file__))
    paths = [os.path.join(place, name) for place, _, names in os.walk(top) for name in names]
    paths = [path for path in sorted(paths) if not path.endswith(".pyc")]
    if engine == "emulator":
        from pvh.engines.emulator.libunicorn import library_path

        paths.append(library_path() or "")
    for path in paths:
        with suppress(OSError):
            stat = os.stat(path)
            yield f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n"


def supported() -> bool:
    """Return whether this host has what an entry is believed for: owners, folders by descriptor, a name of its boot."""
    return hasattr(os, "geteuid") and os.open in os.supports_dir_fd and os.path.exists(_BOOT_ID)


def cache_for(options: BootOptions, say: Callable[[str], None]) -> Cache | None:
    """Return the cache that a run with these options may use, if any: not one that is traced whole, or repeated."""
    return Cache(say) if supported() and options.clock == "host" and options.trace is None else None


class Cache:
    """The entries in one folder, which is made when something is kept.

    say  is told of entries that are dropped, and why nothing can be kept
    """

    def __init__(self, say: Callable[[str], None], path: str | None = None, most: int | None = None) -> None:
        self._say = say
        self._path = path or folder()
        self._most = limit() if most is None else most

    def find(self, key: str, kernel: str, options: BootOptions) -> Snapshot | None:
        """Return the guest of a key, to be run with these options; None if there is none that can be believed."""
        try:
            fd = os.open(os.path.join(self._path, key), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            _private(os.fstat(fd))
            found = _snapshot(fd, kernel, options)
            os.utime(fd)
        except (Stale, OSError, ValueError, KeyError, TypeError) as why:
            self.drop(key, str(why))
            return None
        finally:
            os.close(fd)
        return found

    def drop(self, key: str, why: str) -> None:
        """Forget an entry, and say so."""
        self._say(f"dropped {key[:12]} from the boot cache: {why}")
        self._remove(key)

    def keep(self, key: str, machine: Machine) -> None:
        """Keep a guest of which no vCPU runs. A failure is said; the guest goes on all the same."""
        if not self._most:
            return
        made = os.path.join(self._path, f".{key}.{os.getpid()}")
        try:
            os.makedirs(self._path, mode=0o700, exist_ok=True)
            _private(os.stat(self._path))
            os.mkdir(made, mode=0o700)
            _write(made, machine)
            with self._locked():
                if not os.path.exists(os.path.join(self._path, key)):  # another run may have been faster
                    self._make_room(_size(made))
                    os.rename(made, os.path.join(self._path, key))
        except (OSError, Stale, PvhError) as error:
            reason = (error.strerror or "").lower() if isinstance(error, OSError) else str(error)
            self._say(f"the boot cache in {self._path} cannot keep this guest: {reason}")
        shutil.rmtree(made, ignore_errors=True)

    def entries(self) -> list[Entry]:
        """Return all entries, the one used last first. What cannot be read has no kernel."""
        return sorted((self._entry(name) for name in self._names()), key=lambda entry: -entry.used)

    def clear(self) -> int:
        """Forget all entries; return how many."""
        names = self._names()
        for name in names:
            self._remove(name)
        return len(names)

    def _names(self) -> list[str]:
        try:
            return [name for name in os.listdir(self._path) if not name.startswith(".")]
        except OSError:
            return []

    def _entry(self, name: str) -> Entry:
        path = os.path.join(self._path, name)
        told: dict[str, Any] = {}
        with suppress(OSError, ValueError, Stale), open(os.path.join(path, _TEXT), "rb") as file:
            told = _checked(file.read())
        used = 0.0
        with suppress(OSError):
            used = os.stat(path).st_mtime
        words = str(told.get("kernel", "")), str(told.get("cmdline", ""))
        return Entry(name, *words, int(told.get("memory", 0)), int(told.get("vcpus", 0)), _size(path), used)

    def _make_room(self, size: int) -> None:
        """Remove what is unfinished for long, and the entries used least lately until a new one fits."""
        if size > self._most:
            raise Stale(f"it takes {size >> 20} MiB, and PVH_CACHE_SIZE allows {self._most >> 20}")
        for name in os.listdir(self._path):
            path = os.path.join(self._path, name)
            if name.startswith(".") and name != _LOCK and os.stat(path).st_mtime < time.time() - _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)
        entries = self.entries()
        while entries and size + sum(entry.size for entry in entries) > self._most:
            self._remove(entries.pop().key)

    def _remove(self, name: str) -> None:
        """Remove an entry; a guest that rests on it has its file as long as it runs."""
        gone = os.path.join(self._path, f".{name}.{os.getpid()}.gone")
        with suppress(OSError):
            os.rename(os.path.join(self._path, name), gone)
        shutil.rmtree(gone, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Generator[None]:
        import fcntl

        fd = os.open(os.path.join(self._path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _size(path: str) -> int:
    try:
        return sum(entry.stat().st_blocks * 512 for entry in os.scandir(path))
    except OSError:
        return 0


def _private(stat: os.stat_result) -> None:
    if stat.st_uid != os.geteuid():
        raise Stale("it belongs to another user")
    if stat.st_mode & 0o077:
        raise Stale("other users may reach it")


def _identity(stat: os.stat_result) -> list[int]:
    """Return what no write, truncation or replacement of a file leaves alone."""
    return [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _boot_id() -> str:
    with open(_BOOT_ID, encoding="ascii") as file:
        return file.read().strip()


def _write(path: str, machine: Machine) -> None:
    """Write an entry into a folder."""
    from hashlib import sha256

    state = machine.capture()
    fd = os.open(os.path.join(path, _RAM), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    ram = freeze(machine.image.ram, fd)
    plan = machine.image.plan
    told = {
        "format": _FORMAT,
        "boot": _boot_id(),
        "kernel": plan.kernel.path,
        "cmdline": plan.options.cmdline,
        "memory": plan.options.memory,
        "vcpus": plan.options.vcpus,
        "engine": machine.engine.name,
        "map": [(entry.addr, entry.size, entry.type) for entry in plan.memory_map],
        "backed": list(plan.backed),
        "places": list(ram.places),
        "ram": _identity(os.fstat(fd)),
        "state": state,
    }
    data = dumps(told).encode("ascii")
    with open(os.open(os.path.join(path, _TEXT), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(sha256(data).hexdigest().encode() + b"\n" + data)


def _checked(data: bytes) -> dict[str, Any]:
    """Return what an entry's text says."""
    from hashlib import sha256

    checksum, _, text = data.partition(b"\n")
    if sha256(text).hexdigest().encode() != checksum:
        raise Stale("it is damaged")
    told = loads(text, RECORDS)
    if not isinstance(told, dict) or told.get("format") != _FORMAT:  # pyright: ignore[reportUnknownMemberType]
        raise Stale("it has another format")
    return told  # pyright: ignore[reportUnknownVariableType]


def _open(fd: int, name: str) -> int:
    """Open a file of an entry's folder."""
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)


def _snapshot(fd: int, kernel: str, options: BootOptions) -> Snapshot:
    """Read an entry's folder."""
    with open(_open(fd, _TEXT), "rb") as file:
        _private(os.fstat(file.fileno()))
        told = _checked(file.read())
    if told["boot"] != _boot_id():
        raise Stale("the host has restarted since")
    ram = Frozen(_open(fd, _RAM), tuple(told["places"]))
    stat = os.fstat(ram.fd)
    _private(stat)
    if _identity(stat) != told["ram"] or ram.size != stat.st_size:
        raise Stale("its memory has been changed")
    plan = Plan(
        kernel=Kernel(kernel, open_source(kernel), (), 64, 0, 0, (), (), None, 0, 0, Features()),  # judged back then
        options=options,
        ranges=(),
        memory_map=tuple(MemoryMapEntry(*entry) for entry in told["map"]),
        backed=tuple(told["backed"]),
        entry=0,
        start_info=StartInfo(0, 0, 0, 0, (), 0, 0),
    )
    return Snapshot(plan, told["engine"], ram, told["state"])
