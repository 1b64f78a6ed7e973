"""Layers of twelve architectures are learned from, exactly, and what is learned beside the student stays beside it."""
