"""Ways to train compared by paired seeds at the same tokens: swarms in one process, cells that are kept, intervals, figures."""
