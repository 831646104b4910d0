"""`python -m otcore_ae.demo`: local and global Sinkhorn autoencoders, side by side, on digits."""
