"""`python -m sweep`: see cli.py."""

from sweep.cli import main

if __name__ == "__main__":
    main()
