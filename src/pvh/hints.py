"""Words of type hints for modules that a short run imports: the typing module takes 4 ms of its 30, for itself and re.

Type checkers see the real ones. At run time a Protocol is a plain base class, and a Literal of strings is str.
"""

from __future__ import annotations

TYPE_CHECKING = False  # by its name checkers know that it is true for them
if TYPE_CHECKING:
    from typing import Any, ClassVar, Literal, Protocol
else:
    Any = object

    class Protocol:
        """Base of what is there for its shape."""

    class ClassVar:
        """Of the class, not of its instances."""

        def __class_getitem__(cls, kind: object) -> object:
            return kind

    class Literal:
        """One of some strings."""

        def __class_getitem__(cls, _strings: object) -> type[str]:
            return str


__all__ = ["TYPE_CHECKING", "Any", "ClassVar", "Literal", "Protocol"]
