"""`python -m sweep`: see cli.py."""

if __name__ == "__main__":
    try:
        from sweep.cli import main

        main()
    except KeyboardInterrupt:  # while importing; later ones are the session's
        raise SystemExit(130) from None
