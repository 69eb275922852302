"""Template tags, where Django looks for those of an application in ``INSTALLED_APPS``."""
