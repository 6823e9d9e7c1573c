"""``python -m beftkit``."""

from beftkit.app import main

main()
