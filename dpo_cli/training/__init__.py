"""Training: DPO on TRL; the only rooms that import trl."""
