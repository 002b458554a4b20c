"""Search spaces of sweeps."""
