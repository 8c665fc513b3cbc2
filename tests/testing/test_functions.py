"""check_vjp: what it accepts, refuses and finds in anybody's function."""
