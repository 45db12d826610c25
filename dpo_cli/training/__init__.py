"""Training: DPO on TRL, with the engine."""
