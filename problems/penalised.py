"""Exact minima of penalised linear models."""
