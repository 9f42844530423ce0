"""Does the protocol keep its word whatever fails? Whole swarms on the virtual clock, fault schedules drawn from seeds."""
