"""Exact minima of convex problems with certificates: Newton, proximal Newton and bounds, coordinate descent."""
