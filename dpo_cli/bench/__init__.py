"""What `dpo bench` measures: training and generation, against TRL and against what the machine can do."""
