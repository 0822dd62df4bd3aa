"""`python -m sweep`: see cli.py."""

if __name__ == "__main__":
    try:
        from sweep.streams import steady

        steady("sweep")  # first: a file that is opened before would take the place of a closed descriptor
        from sweep.cli import main

        main()
    except KeyboardInterrupt:  # while importing; later ones are the session's
        raise SystemExit(130) from None
