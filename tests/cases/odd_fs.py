"""A file system with faults from the field: no case, no owners, unreadable blocks, reads that never end.

It covers a directory with itself by the kernel's FUSE protocol (linux/fuse.h), since no file system that every machine
can mount has these faults. Usage, in a mount namespace of one's own: odd_fs.py DIRECTORY OPTION...

    fold         names that differ only in case are one
    plain        no owners, modes or times (EPERM), as on many shares
    eio=BYTES    a read at or after this offset gives EIO
    hang=NAME    a read of that file makes DIRECTORY/hangs, and does not end while there is DIRECTORY/hanging
"""

import ctypes
import errno
import os
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = 1
ATTRIBUTES = struct.Struct("<6Q10I")
IN = struct.Struct("<IIQQIIII")
SUPPORTED = 31  # the protocol's minor version that the replies follow


class OddFs:
    """The file system's state: the parent and name of each node, and the open files."""

    def __init__(self, backing: str, options: list[str]) -> None:
        settings = dict(option.partition("=")[::2] for option in options)
        self.fold, self.plain = "fold" in settings, "plain" in settings
        self.eio = int(settings.get("eio", sys.maxsize))
        self.hang = settings.get("hang")
        self.backing = backing
        self.nodes: dict[int, tuple[int, str]] = {}
        self.names: dict[int, str] = {}

    # --- paths and attributes ---

    def path(self, node: int, name: bytes = b"") -> str:
        """The path of a node or of an entry in it. Without case, an existing entry's own spelling."""
        parts = [os.fsdecode(name.rstrip(b"\0"))] if name else []
        while node != ROOT:
            node, part = self.nodes[node]
            parts.append(part)
        path = os.path.join(self.backing, *reversed(parts))
        if name and self.fold and not os.path.lexists(path):
            directory, wanted = os.path.split(path)
            return next((e.path for e in os.scandir(directory) if e.name.lower() == wanted.lower()), path)
        return path

    def attributes(self, found: os.stat_result) -> bytes:
        times = (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)
        seconds, rests = zip(*(divmod(time, 10**9) for time in times), strict=True)
        rest = (found.st_mode, found.st_nlink, found.st_uid, found.st_gid, 0, 4096, 0)
        return ATTRIBUTES.pack(found.st_ino, found.st_size, found.st_blocks, *seconds, *rests, *rest)

    def entry(self, parent: int, name: bytes) -> bytes:
        path = self.path(parent, name)
        found = os.lstat(path)
        self.nodes[found.st_ino] = parent, os.path.basename(path)
        return struct.pack("<5Q", found.st_ino, 0, 0, 0, 0) + self.attributes(found)

    def permit(self) -> None:
        if self.plain:
            raise PermissionError(errno.EPERM, "EPERM")

    # --- calls: node and body in, the answer out ---

    def lookup(self, node: int, body: bytes) -> bytes:
        return self.entry(node, body)

    def getattr(self, node: int, body: bytes) -> bytes:
        flags, _, handle = struct.unpack_from("<IIQ", body)
        found = os.fstat(handle) if flags & 1 else os.lstat(self.path(node))
        return bytes(16) + self.attributes(found)

    def setattr(self, node: int, body: bytes) -> bytes:
        valid, _, handle, size, _, atime, mtime, _, ans, mns, _, mode, _, uid, gid, _ = struct.unpack_from(
            "<IIQQQQQQIIIIIIII", body
        )
        path = self.path(node)
        if valid & ~(8 | 64 | 512):  # anything but the size
            self.permit()
        if valid & 8:
            os.truncate(handle if valid & 64 else path, size)
        if valid & 1:
            os.chmod(path, stat.S_IMODE(mode))
        if valid & 6:
            os.chown(path, uid if valid & 2 else -1, gid if valid & 4 else -1, follow_symlinks=False)
        if valid & 0x180:
            os.utime(path, follow_symlinks=False)
        elif valid & 0x30:
            os.utime(path, ns=(atime * 10**9 + ans, mtime * 10**9 + mns), follow_symlinks=False)
        return bytes(16) + self.attributes(os.lstat(path))

    def mkdir(self, node: int, body: bytes) -> bytes:
        os.mkdir(self.path(node, body[8:]))
        return self.entry(node, body[8:])

    def unlink(self, node: int, body: bytes) -> bytes:
        os.unlink(self.path(node, body))
        return b""

    def rmdir(self, node: int, body: bytes) -> bytes:
        os.rmdir(self.path(node, body))
        return b""

    def rename(self, node: int, body: bytes, head: int = 8) -> bytes:
        directory = struct.unpack_from("<Q", body)[0]
        if head > 8 and struct.unpack_from("<I", body, 8)[0]:
            raise OSError(errno.EINVAL, "flags")
        old, new = body[head:].split(b"\0")[:2]
        target = self.path(directory, new)
        os.rename(self.path(node, old), target)
        self.nodes[os.lstat(target).st_ino] = directory, os.path.basename(target)
        return b""

    def rename2(self, node: int, body: bytes) -> bytes:
        return self.rename(node, body, 16)

    def open(self, node: int, body: bytes) -> bytes:
        flags = struct.unpack_from("<I", body)[0]
        return self.opened(node, os.open(self.path(node), flags & ~(os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)))

    def create(self, node: int, body: bytes) -> bytes:
        flags, mode, umask = struct.unpack_from("<III", body)
        handle = os.open(self.path(node, body[16:]), flags | os.O_CREAT, mode & ~umask)
        entry = self.entry(node, body[16:])
        return entry + self.opened(struct.unpack_from("<Q", entry)[0], handle)

    def opened(self, node: int, handle: int) -> bytes:
        self.names[handle] = os.path.basename(self.path(node))
        return struct.pack("<QII", handle, 1, 0)  # 1: FOPEN_DIRECT_IO, so that each read comes here

    def read(self, node: int, body: bytes) -> bytes | None:
        handle, offset, size = struct.unpack_from("<QQI", body)
        if self.names[handle] == self.hang and Path(self.backing, "hanging").exists():
            Path(self.backing, "hangs").touch()
            return None
        if offset >= self.eio:
            raise OSError(errno.EIO, "EIO")
        return os.pread(handle, min(size, self.eio - offset), offset)

    def write(self, node: int, body: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", body)
        return struct.pack("<II", os.pwrite(handle, body[40 : 40 + size], offset), 0)

    def release(self, node: int, body: bytes) -> bytes:
        os.close(struct.unpack_from("<Q", body)[0])
        return b""

    def nothing(self, node: int, body: bytes) -> bytes:
        return b""

    def statfs(self, node: int, body: bytes) -> bytes:
        found = os.statvfs(self.backing)
        sizes = (found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree)
        return struct.pack("<5Q4I24x", *sizes, found.f_bsize, 255, found.f_frsize, 0)

    def opendir(self, node: int, body: bytes) -> bytes:
        return bytes(16)

    def readdir(self, node: int, body: bytes) -> bytes:
        offset, size = struct.unpack_from("<QI", body, 8)
        listing = b""
        for number, name in list(enumerate(sorted(os.listdir(self.path(node))), 1))[offset:]:
            found, raw = os.lstat(os.path.join(self.path(node), name)), os.fsencode(name)
            one = struct.pack("<QQII", found.st_ino, number, len(raw), found.st_mode >> 12) + raw
            one += bytes(-len(one) % 8)
            if len(listing) + len(one) > size:
                break
            listing += one
        return listing

    def init(self, node: int, body: bytes) -> bytes:
        return struct.pack("<IIIIHHIIHH32x", 7, SUPPORTED, 65536, 0, 16, 12, 65536, 1, 0, 0)

    def calls(self) -> dict[int, Callable[[int, bytes], bytes | None]]:
        """The protocol's operation codes."""
        named = {1: "lookup", 3: "getattr", 4: "setattr", 9: "mkdir", 10: "unlink"}
        named |= {11: "rmdir", 12: "rename", 14: "open", 15: "read", 16: "write", 17: "statfs"}
        named |= {18: "release", 20: "nothing", 25: "nothing", 26: "init", 27: "opendir", 28: "readdir"}
        named |= {29: "nothing", 30: "nothing", 35: "create", 45: "rename2"}
        return {code: getattr(self, name) for code, name in named.items()}

    def serve(self, device: int) -> None:
        """Answer the kernel until the mount is gone."""
        calls = self.calls()
        while True:
            try:
                request = os.read(device, 1 << 20)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                return
            _, code, unique, node, *_ = IN.unpack_from(request)
            body = request[IN.size :]
            if code in (2, 42):  # forgotten nodes: no answer
                continue
            if code == 36:  # interrupted: the call that hangs ends, or its process could not be killed
                unique, failed, answer = struct.unpack_from("<Q", body)[0], errno.EINTR, b""
            else:
                failed, answer = self.answer(calls.get(code), node, body)
            if answer is not None:
                try:
                    os.write(device, struct.pack("<IiQ", 16 + len(answer), -failed, unique) + answer)
                except FileNotFoundError:  # the call was interrupted meanwhile
                    continue

    def answer(
        self, call: Callable[[int, bytes], bytes | None] | None, node: int, body: bytes
    ) -> tuple[int, bytes | None]:
        if call is None:
            return errno.ENOSYS, b""
        try:
            return 0, call(node, body)
        except OSError as error:
            return error.errno or errno.EIO, b""
        except KeyError:
            return errno.ESTALE, b""


def main(directory: str, *options: str) -> None:
    below = os.open(directory, os.O_PATH)  # leads below the mount
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    data = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},allow_other"
    if libc.mount(b"odd", os.fsencode(directory), b"fuse.odd", 0, data.encode()):
        raise OSError(ctypes.get_errno(), f"cannot mount: {os.strerror(ctypes.get_errno())}")
    print("ready", flush=True)
    OddFs(f"/proc/self/fd/{below}/.", list(options)).serve(device)


if __name__ == "__main__":
    main(*sys.argv[1:])
