"""What `prefect deploy` needs around prefect.yaml: pools, limits, automations."""
