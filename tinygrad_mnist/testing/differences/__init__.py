"""Gradients against central differences: what is measured, how it is judged, and what it means."""
