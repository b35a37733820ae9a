"""How others bring the same records from the same topic into the same Postgres, each as its documentation advises."""
