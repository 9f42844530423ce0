"""Streaming DiLoCo's published utilization table against this project's own round scheduler: see __main__."""
