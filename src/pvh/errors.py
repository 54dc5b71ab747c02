"""Every error of the package.

PvhError                      status  code
├── UsageError                  2     usage            options that make no sense, files that cannot be read
├── Refused                    20     (abstract)       the image or the request cannot become a guest
│   ├── NotAKernel             20     not-a-kernel     the file is something else, or is damaged
│   ├── NotBootable            20     not-bootable     a kernel, but not by this ABI (libxenguest would refuse it)
│   └── DoesNotFit             20     does-not-fit     kernel, modules and tables do not fit the guest's memory
├── NoEngine                   21     no-engine        no usable engine, or not the one asked for
├── EngineError                14     engine           the engine, or the host under it, failed
├── Timeout                    13     timeout          a guest did not do in time what a program waited for
└── GuestEnded                 14     guest-ended      a guest ended before it did that (guest_ended.py)

Each carries the fields a person needs to act and renders one sentence that names the cause first.
"""

from __future__ import annotations

from pvh.hints import ClassVar


class PvhError(Exception):
    """Base of all errors.

    cause   what is wrong, in the user's terms; a clause without a final full stop
    path    the file it is about, as the user named it
    offset  where in that file, in bytes
    found   what stands there
    wanted  what should stand there
    hint    what to do about it

    >>> try:
    ...     pvh.read_kernel("/nonexistent")
    ... except pvh.PvhError as error:
    ...     print(error.code, error.status, error.path)
    usage 2 /nonexistent
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 14

    def __init__(
        self,
        cause: str,
        *,
        path: str | None = None,
        offset: int | None = None,
        found: str | None = None,
        wanted: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.path = path
        self.offset = offset
        self.found = found
        self.wanted = wanted
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        at = f" at offset {self.offset:#x}" if self.offset is not None else ""
        detail = "; ".join(
            f"{label} {text}" for label, text in (("found", self.found), ("wanted", self.wanted)) if text
        )
        return where + self.cause + at + (f" ({detail})" if detail else "") + (f" - {self.hint}" if self.hint else "")

    def as_dict(self) -> dict[str, str | int | None]:
        """Return the fields for --json.

        >>> pvh.PvhError("it is no kernel", path="notes.txt", offset=4).as_dict()["offset"]
        4
        """
        fields = ("cause", "path", "offset", "found", "wanted", "hint")
        return {"code": self.code, **{name: getattr(self, name) for name in fields}}


class UsageError(PvhError):
    """Options that make no sense together, or a file that cannot be read."""

    code = "usage"
    status = 2


class Refused(PvhError):
    """The image or the request cannot become a guest."""

    code = "refused"
    status = 20


class NotAKernel(Refused):
    """The file is not a kernel image this package knows, or it is damaged."""

    code = "not-a-kernel"


class NotBootable(Refused):
    """A kernel image that cannot be booted by this ABI."""

    code = "not-bootable"


class DoesNotFit(Refused):
    """Kernel, modules or tables do not fit the memory the guest was given."""

    code = "does-not-fit"


class NoEngine(PvhError):
    """No usable engine, or not the one that was asked for."""

    code = "no-engine"
    status = 21


class EngineError(PvhError):
    """The engine, or the host under it, failed."""

    code = "engine"
    status = 14


class Timeout(PvhError):
    """A guest did not do in time what a program waited for.

    said  what the guest had said last, as text; it may be empty

    >>> with pvh.boot(pvh.demo_path(), paused=True) as guest:
    ...     try:
    ...         guest.console.expect("login:", timeout=0.1)
    ...     except pvh.Timeout as late:
    ...         print(late.cause)
    the guest did not say 'login:' in 0.1 s
    """

    code = "timeout"
    status = 13

    def __init__(self, cause: str, said: str = "") -> None:
        super().__init__(cause, found=said_last(said))
        self.said = said


def said_last(said: str) -> str:
    """Return the end of a console as an error shows it."""
    return f"at the end of its console: {said!r}" if said else "nothing on its console"
