"""What people see: the only rooms that know rich, HTML or a terminal."""
