"""The command line: light at import, one file a command, one error boundary."""
