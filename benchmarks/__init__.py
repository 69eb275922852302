"""What the watchdog and the limits cost, beside other ways to do the same. Run by ``make bench``."""
