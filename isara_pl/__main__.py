"""`python -m isara_pl`: the command line."""

from isara_pl.cli.main import main

if __name__ == "__main__":
    main()
