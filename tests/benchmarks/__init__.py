"""What Headrace costs, measured: `make bench` runs all of it, `make bench ONLY=growth` one bench."""
