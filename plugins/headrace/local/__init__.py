"""The services of one machine: PostgreSQL, Apache Kafka and Airflow from wheels and jars, nothing installed."""
