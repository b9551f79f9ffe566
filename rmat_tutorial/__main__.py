"""``python -m rmat_tutorial``."""

import sys

try:
    from .cli import main
except (ImportError, OSError) as error:  # torch, which the other commands need, is missing or does not load
    if sys.argv[1:2] != ["doctor"]:
        sys.exit(f"python -m rmat_tutorial: error: {error}; what to do: python -m rmat_tutorial doctor")
    from .doctor import main as doctor

    sys.exit(doctor("--json" in sys.argv))

sys.exit(main())
