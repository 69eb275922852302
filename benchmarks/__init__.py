"""What the watchdog costs, beside other ways to do the same. Run by ``make bench`` or ``python -m benchmarks``."""
