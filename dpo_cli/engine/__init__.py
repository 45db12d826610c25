"""The shared-prefix engine: TRL's DPO loss with the prompt computed once. It knows nothing of ours but errors."""
