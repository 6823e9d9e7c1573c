"""Run beftkit from a checkout: python cli.py ... (after pip install -e .)."""

from beftkit.app import main

if __name__ == "__main__":
    main()
