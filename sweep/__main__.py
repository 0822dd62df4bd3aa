"""`python -m sweep`: see cli.py."""

if __name__ == "__main__":
    try:
        from sweep.streams import steady

        steady("sweep")  # first: a file opened earlier would take the number of a closed descriptor
        from sweep.cli import main

        main()
    except KeyboardInterrupt:  # while importing; the session handles later ones
        raise SystemExit(130) from None
