"""The store against a model so simple that it is easily believed: a dict of values, copied for each transaction."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from xenstore.xsclient import HOME, OK, Client

NAMES = st.sampled_from("abc")
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
VALUES = st.binary(max_size=4)

Model = dict[str, bytes]


def ancestors(path: str) -> list[str]:
    words = path.split("/")
    return ["/".join(words[:count]) for count in range(1, len(words))]


def put(model: Model, path: str, value: bytes | None) -> None:
    for above in ancestors(path):
        model.setdefault(above, b"")
    if value is not None:
        model[path] = value
    model.setdefault(path, b"")


def remove(model: Model, path: str) -> bool:
    if path not in model and path.count("/") and path.rpartition("/")[0] not in model:
        return False
    for each in [each for each in model if each == path or each.startswith(f"{path}/")]:
        del model[each]
    return True


class StoreMachine(RuleBasedStateMachine):
    """Requests outside of transactions and in two of them, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.client = Client()
        self.model: Model = {}
        self.open: dict[int, tuple[Model, Model]] = {}  # what it began with, what it has made of it

    def pick(self, data: st.DataObject) -> tuple[int, Model]:
        tx = data.draw(st.sampled_from([0, *self.open]), "tx")
        return tx, self.open[tx][1] if tx else self.model

    def expect(self, data: st.DataObject, path: str) -> tuple[int, Model]:
        """A transaction whose tree others have changed may see the changes; it cannot commit then, so end it."""
        tx, model = self.pick(data)
        if tx and self.open[tx][0] != self.model:
            self.end(tx)
            return self.expect(data, path)
        return tx, model

    def end(self, tx: int) -> None:
        began, made = self.open.pop(tx)
        answer = self.client.end(tx)
        assert answer in (OK, "EAGAIN")
        if began == self.model and made != self.model and answer == OK:
            self.model = made
        elif answer == OK:
            # Others changed what it did not touch: the store says what came of it, and must be whole.
            self.model = self.actual()

    def actual(self) -> Model:
        found: Model = {}
        todo = [""]
        for path in todo:
            listed = self.client.list(f"{HOME}/{path}".rstrip("/"))
            assert isinstance(listed, bytes)
            for name in listed.decode().split("\0")[:-1]:
                below = f"{path}/{name}".lstrip("/")
                value = self.client.read(below)
                assert isinstance(value, bytes)
                assert below not in found
                found[below] = value
                todo.append(below)
        return found

    @rule(data=st.data(), path=PATHS, value=VALUES)
    def write(self, data: st.DataObject, path: str, value: bytes) -> None:
        tx, model = self.expect(data, path)
        assert self.client.write(path, value, tx) == OK
        put(model, path, value)

    @rule(data=st.data(), path=PATHS)
    def mkdir(self, data: st.DataObject, path: str) -> None:
        tx, model = self.expect(data, path)
        assert self.client.mkdir(path, tx) == OK
        put(model, path, None)

    @rule(data=st.data(), path=PATHS)
    def rm(self, data: st.DataObject, path: str) -> None:
        tx, model = self.expect(data, path)
        assert self.client.rm(path, tx) == (OK if remove(model, path) else "ENOENT")

    @rule(data=st.data(), path=PATHS)
    def read(self, data: st.DataObject, path: str) -> None:
        tx, model = self.expect(data, path)
        assert self.client.read(path, tx) == model.get(path, "ENOENT")

    @rule(data=st.data(), path=PATHS)
    def directory(self, data: st.DataObject, path: str) -> None:
        tx, model = self.expect(data, path)
        listed = self.client.list(path, tx)
        if path not in model:
            assert listed == "ENOENT"
        else:
            assert isinstance(listed, bytes)
            names = {each.rpartition("/")[2] for each in model if each.rpartition("/")[0] == path}
            assert sorted(listed.decode().split("\0")[:-1]) == sorted(names)

    @precondition(lambda self: len(self.open) < 2)
    @rule()
    def start(self) -> None:
        self.open[self.client.start()] = dict(self.model), dict(self.model)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(sorted(self.open))))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        tx = data.draw(st.sampled_from(sorted(self.open)))
        del self.open[tx]
        assert self.client.end(tx, b"F") == OK

    @invariant()
    def the_tree_is_the_model(self) -> None:
        assert self.actual() == self.model

    @invariant()
    def a_guest_has_what_it_is_said_to_have(self) -> None:
        assert self.client.store.tree.owned(1) == len(self.model) + 1


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
