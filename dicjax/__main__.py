"""`python -m dicjax`: the command line, where its own program is not on the path."""

from dicjax.cli import main


if __name__ == "__main__":
    main()
