"""Disks that fail and machines that lose power, behind the calls of a store's writer."""

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from fastinn import _saved

CALLS = (
    "open",
    "pwrite",
    "ftruncate",
    "fsync",
    "close",
    "mkdir",
    "link",
    "replace",
    "unlink",
)


class _Calls:
    """The module ``os`` with some calls looked at."""

    def __getattr__(self, name):
        call = getattr(os, name)
        if name not in CALLS:
            return call
        return lambda *args, **options: self.called(name, call, *args, **options)

    def called(self, name, call, *args, **options):
        raise NotImplementedError


class FailingCalls(_Calls):
    """Call number ``index`` fails: with ENOSPC, with EIO, or as a short write that then fails."""

    def __init__(self, index, kind):
        self.index, self.kind = index, kind
        self.n_calls = 0
        self.failed = None
        self.was_short = False

    def called(self, name, call, *args, **options):
        at, self.n_calls = self.n_calls, self.n_calls + 1
        if name == "fsync" and at != self.index:
            return None  # a sync costs time and shows nothing here
        if at != self.index:
            return call(*args, **options)
        if self.kind == "short" and name == "pwrite" and not self.was_short:
            fd, data, offset = args
            self.index, self.was_short = self.index + 1, True
            return os.pwrite(fd, data[: len(data) // 2], offset)
        if name == "close":
            call(*args)
        self.failed = name
        code = errno.EIO if self.kind == "EIO" else errno.ENOSPC
        raise OSError(code, os.strerror(code))


@dataclass
class _File:
    """A file as the disk may have it: what is durable, and what was written since."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list = field(default_factory=list)

    def sync(self):
        for change in self.pending:
            _apply(self.durable, change)
        self.pending = []

    def after_power_loss(self, random):
        content = bytearray(self.durable)
        for change in self.pending:
            fate = random.choice(["kept", "dropped", "torn", "zeros"])
            if fate != "dropped":
                _apply(content, _torn(change, fate, random))
        return bytes(content)


def _torn(change, fate, random):
    kind, at, data = change
    if kind == "truncate" or fate == "kept":
        return change
    if fate == "zeros":  # the file has its new size, but not its data
        return kind, at, bytes(len(data))
    return kind, at, data[: random.randrange(len(data) + 1)]


def _apply(content, change):
    kind, at, data = change
    if kind == "truncate":
        del content[at:]
        content.extend(bytes(at - len(content)))
        return
    content.extend(bytes(max(0, at + len(data) - len(content))))
    content[at : at + len(data)] = data


class RecordedCalls(_Calls):
    """Keeps what a writer asks of the disk, to be replayed up to any call."""

    def __init__(self):
        self.calls = []
        self._paths = {}

    def called(self, name, call, *args, **options):
        if name == "fsync":
            self.calls.append(("fsync", self._paths[args[0]]))
            return None
        created = name == "open" and not Path(args[0]).exists()
        found = call(*args, **options)
        if name == "open":
            self._paths[found] = str(args[0])
            if created:
                self.calls.append(("create", str(args[0])))
        elif name == "pwrite":
            self.calls.append(("write", self._paths[args[0]], args[2], bytes(args[1])))
        elif name == "ftruncate":
            self.calls.append(("truncate", self._paths[args[0]], args[1]))
        elif name != "close":
            self.calls.append((name, *map(str, args)))
        return found


class Disk:
    """Replays recorded calls and then loses power.

    Names live in folders: a change of one is durable once the folder was synced. Until then each
    change of a name, and each write of a file that was not synced, may be kept or lost, whatever
    became of the others; writes may be torn, or leave zeros.
    """

    def __init__(self, root):
        self._root = str(root)
        self._durable_names = {}
        self._names = {}
        self._pending = {}

    def run(self, call):
        kind, path, *rest = call
        if kind == "create":
            self._rename(path, None, _File())
        elif kind == "mkdir":
            self._rename(path, None, "folder")
        elif kind in ("link", "replace"):
            source = path if kind == "replace" else None
            self._rename(rest[0], source, self._names[path])
        elif kind == "unlink":
            self._rename(None, path, None)
        elif kind == "write":
            self._names[path].pending.append(("write", *rest))
        elif kind == "truncate":
            self._names[path].pending.append(("truncate", rest[0], b""))
        elif self._names.get(path, "folder") == "folder":
            self._sync_folder(path)
        else:
            self._names[path].sync()

    def power_loss(self, random):
        """Return the files that are found afterwards, by their name below the root."""
        names = dict(self._durable_names)
        for changes in self._pending.values():
            for change in changes:
                if random.random() < 0.5:
                    _change_name(names, change)
        found = {path for path, what in names.items() if what == "folder"} | {self._root}
        return {
            str(Path(path).relative_to(self._root)): file.after_power_loss(random)
            for path, file in sorted(names.items())
            if file != "folder" and {str(p) for p in self._folders(path)} <= found
        }

    def _folders(self, path):
        return [p for p in Path(path).parents if p.is_relative_to(self._root)]

    def _rename(self, new, old, what):
        change = new, old, what
        _change_name(self._names, change)
        folder = str(Path(new or old).parent)
        self._pending.setdefault(folder, []).append(change)

    def _sync_folder(self, folder):
        for change in self._pending.pop(folder, []):
            _change_name(self._durable_names, change)


def _change_name(names, change):
    new, old, what = change
    if old is not None:
        names.pop(old, None)
    if new is not None:
        names[new] = what


class FailingDisk:
    """Lets a call fail of those by which files outside of stores are written whole."""

    def __init__(self, monkeypatch):
        self._monkeypatch = monkeypatch
        self.calls = None

    def run(self, index, kind, action):
        """Do ``action`` with call number ``index`` failing, and return the calls."""
        self.calls = calls = FailingCalls(index, kind)
        open_ = Path.open

        def opened(path, mode="r", *args, **options):
            if "w" not in mode:
                return open_(path, mode, *args, **options)
            return _FailingFile(calls.called("open", open_, path, mode, *args, **options), calls)

        with self._monkeypatch.context() as patch:
            patch.setattr(_saved, "os", calls)
            patch.setattr(Path, "open", opened)
            action()
        return calls


class _FailingFile:
    """A file of which each write is a call that may fail, or write a half and then fail."""

    def __init__(self, file, calls):
        self._file, self._calls = file, calls

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def write(self, data):
        at = self._calls.n_calls
        if self._calls.kind == "short" and at == self._calls.index:
            self._file.write(bytes(data)[: len(bytes(data)) // 2])
        return self._calls.called("write", self._file.write, data)
