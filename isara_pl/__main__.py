"""`python -m isara_pl`: the command line."""

from isara_pl.main import main

if __name__ == "__main__":
    main()
