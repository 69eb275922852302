"""What makes a request be profiled, and who may ask for it."""
