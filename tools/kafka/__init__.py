"""A real Apache Kafka on this machine, from Maven jars: for tests, benchmarks and trying things out."""
