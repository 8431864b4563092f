"""`python -m gnomon`: the command line from a plain checkout."""

from gnomon.cli import main

if __name__ == "__main__":
    main(prog_name="gnomon")
