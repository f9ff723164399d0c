"""Arguments that several commands take."""


def add_runs(parser) -> None:
    """Add the recorded runs that a command is about."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="directories of runs, or directories above them",
    )


def names(text: str | None) -> list[str] | None:
    """Names with commas between, or `None` where none were given."""
    return None if text is None else [name.strip() for name in text.split(",")]
