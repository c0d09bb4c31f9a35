"""`python -m child CONTROL`: the zygote. What it lacks is a line for a person, and no traceback."""

import sys


def main() -> None:
    """Run the zygote. The supervisor tells that it is lost."""
    try:
        from child import zygote

        zygote.main()
    except (MemoryError, SystemError):  # which Python 3.13 makes of one within an import
        sys.exit(1)
    except ImportError as error:
        sys.exit(f"the zygote cannot start: a package that it needs cannot be imported: {error}")


if __name__ == "__main__":
    main()
