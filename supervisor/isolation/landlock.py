"""Checks of this kernel: which parts of a task's isolation it lacks, and whether it can hold `roots` and `network`."""

from ipc import landlock, seccomp


def find_lacking() -> str:
    """A sentence for the log: the harm that modules can do because this kernel lacks something; empty if it has all."""
    version = landlock.abi()
    lacking = []
    if version < landlock.SCOPES_ABI:
        lacking.append(f"send signals to them ({_name(version)}; it takes {landlock.SCOPES_ABI}, Linux 6.12)")
    if not seccomp.is_available():
        lacking.append("set limits for them (this kernel has no seccomp filters)")
    return f"Modules can harm the client and other tasks: {', and '.join(lacking)}" if lacking else ""


def find_obstacle(roots: bool, network: bool) -> str | None:
    """The limit that this kernel cannot hold, and why; `None` if it can hold both."""
    if roots and (version := landlock.abi()) < landlock.FILES_ABI:
        return f"roots takes Landlock {landlock.FILES_ABI} (Linux 6.2): {_name(version)}"
    if not network and not seccomp.is_available():
        limit = "roots, without network = true," if roots else "network = false"
        return f"{limit} takes seccomp filters, which this kernel has not, or not on this architecture"
    return None


def _name(version: int) -> str:
    return f"this kernel has Landlock {version}" if version else "this kernel has no Landlock, or a container hides it"
