"""``python -m celeriac``: the same command line as ``celeriac``."""

from __future__ import annotations

from celeriac.cli.main import main

if __name__ == "__main__":
    main(prog_name="celeriac")
