"""Device code written in Python; knows nothing of torch."""
