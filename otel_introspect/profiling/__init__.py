"""Profiles: how samples become a pyinstrument session, where that is kept and how it is shown."""
