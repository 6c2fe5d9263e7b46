"""`python -m dgss.cli`: the same as `dgss`."""

from dgss.cli import main

main()
