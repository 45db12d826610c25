"""Direct Preference Optimization on any preference data, with evidence after every run."""
