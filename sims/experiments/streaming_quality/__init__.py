"""What do streaming, overlap, 4 bits and eager updates cost in loss, and what do they save on the link? The same tokens, paired seeds."""
