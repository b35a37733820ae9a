"""docker-compose.yml for real, in containers: `make test-compose`."""
