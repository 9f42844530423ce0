"""What does a codec cost in training? The same tokens through every codec, and through plain data parallel, by paired seeds."""
