"""The shared-prefix engine: TRL's DPO loss with the prompt computed once. It imports nothing of ours but errors and batches."""
