"""What Airflow sees of Headrace: the DAGs' factory and the services as its connections name them."""
