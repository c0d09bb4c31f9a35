"""`python -m sisyphus_client`: the program, by the name under which people know it."""

from supervisor.__main__ import main

if __name__ == "__main__":
    main()
